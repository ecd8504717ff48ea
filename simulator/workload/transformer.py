"""One layer of a transformer: its forward and backward pass on one GPU, and the parameters that this holds.

Kept activations follow Korthikanti et al., arXiv:2205.05198, operator by operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.specs.model import TransformerSpec
from simulator.workload import attention, chains, cross_attention, latent, lora, mlp, moe
from simulator.workload.blocks import Block, PassBuilder, Shard


def layer_block(model: TransformerSpec, shard: Shard, *, dense: bool = True, first: bool = False) -> Block:
    """One transformer block: attention and MLP, or routed experts, with their norms and residuals.

    In a decoder with a source, attention to that stands between.

    Args:
        model: The transformer.
        shard: One GPU's part of the micro-batch.
        dense: Whether it has an MLP though other blocks have routed experts.
        first: Whether it is the first here that reads the encoder's output, and keeps it for the others.
    """
    forward, backward = PassBuilder(), PassBuilder()
    mixture = None if dense else model.mixture
    if model.latent_attention is None:
        attention.add_forward(forward, model, shard)
    else:
        latent.add_forward(forward, model, model.latent_attention, shard)
    if shard.source_length:
        cross_attention.add_forward(forward, model, shard, first=first)
    if mixture is None:
        mlp.add_forward(forward, model, shard)
        mlp.add_backward(backward, model, shard)
    else:
        moe.add_forward(forward, model, mixture, shard)
        moe.add_backward(backward, model, mixture, shard)
    if shard.source_length:
        cross_attention.add_backward(backward, model, shard, first=first)
    if model.latent_attention is None:
        attention.add_backward(backward, model, shard)
    else:
        latent.add_backward(backward, model, model.latent_attention, shard)
    held = layer_parameters(model, shard, dense=dense)
    source = cross_attention.source_bytes(model, shard)
    return Block(
        name="layer",
        forward=forward.done(),
        backward=backward.done(),
        parameters=held.total,
        input_bytes=shard.residual_tokens * model.hidden_size * shard.element_bytes + source * first,
        sequential_parameters=0 if shard.lora_rank else held.replicated,
        expert_parameters=held.expert,
        frozen_parameters=held.frozen,
        carried_bytes=attention.position_bias_bytes(model, shard) + source * (not first),
    )


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """What one GPU holds of a layer.

    Attributes:
        total: All parameters, adapters included.
        replicated: Those that every tensor-parallel GPU holds.
        expert: Those of routed experts.
        frozen: Those that are not trained.
    """

    total: int
    replicated: int
    expert: int
    frozen: int


def layer_parameters(model: TransformerSpec, shard: Shard, *, dense: bool = True) -> LayerParameters:
    """Parameters of one layer on one GPU."""
    tp, width = shard.tensor_parallel, model.hidden_size
    query, key_value = attention.head_widths(model, tp)
    inner = model.intermediate_size // tp
    up = inner * (2 if model.gated_mlp else 1)
    vectors = model.norms_per_layer * chains.norm_parameters(model)
    vectors += width * model.attention_output_bias + width * model.mlp_bias
    vectors += 2 * model.head_dim * model.qk_norm
    shapes = {
        "attention.qkv": (width, query + key_value),
        "attention.output": (query, width),
        "mlp.up": (width, up),
        "mlp.down": (inner, width),
    }
    matrices = (query + key_value) * model.attention_bias + up * model.mlp_bias
    expert = 0
    if model.latent_attention is not None:
        split, whole = latent.parameters(model, model.latent_attention, shard)
        matrices, vectors = matrices + split, vectors + whole
        shapes = {name: shape for name, shape in shapes.items() if name.startswith("mlp")}
    if model.mixture is not None and not dense:
        expert = moe.expert_parameters(model, model.mixture, shard)
        shared, router = moe.other_parameters(model, model.mixture, shard)
        matrices, vectors = matrices + shared, vectors + router
        shapes = {name: shape for name, shape in shapes.items() if name.startswith("attention")}
    if shard.source_length:
        shapes |= cross_attention.shapes(model, tp)
        matrices += (query + key_value) * model.attention_bias
        vectors += cross_attention.norms(model) + width * model.attention_output_bias
    matrices += sum(rows * columns for rows, columns in shapes.values())
    whole = matrices + vectors + expert
    if model.latent_attention is not None:
        shapes |= latent.shapes(model, model.latent_attention, shard)
    adapters = lora.parameters(shapes, shard)
    return LayerParameters(whole + adapters, vectors, expert, whole if shard.lora_rank else 0)
