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
        sequential_parameters=held.replicated,
        expert_parameters=held.expert,
        matrices=held.matrices,
        trained_matrices=held.trained_matrices,
        frozen_parameters=held.frozen,
        frozen_experts=held.frozen_experts,
        carried_bytes=attention.position_bias_bytes(model, shard) * shard.trains("position_bias")
        + source * (not first and not shard.source_frozen),
    )


@dataclass(frozen=True, slots=True)
class Held:
    """Parameters of one operator on one GPU.

    Attributes:
        split: Those that are shared out over the tensor-parallel GPUs.
        replicated: Those that each of these holds.
        expert: Those of routed experts.
        adapters: Those of its adapters, which alone are trained where there are any.
        matrix: Of all these, those of a matrix that the layer's products read.
    """

    split: int = 0
    replicated: int = 0
    expert: int = 0
    adapters: int = 0
    matrix: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.split + self.replicated + self.expert + self.adapters


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """What one GPU holds of a layer.

    Attributes:
        total: All parameters, adapters included.
        replicated: Trained ones that every tensor-parallel GPU holds.
        expert: Those of routed experts, adapters included.
        frozen: Those that are not trained.
        frozen_experts: Of them, those of routed experts.
        matrices: Those of matrices that the layer's products read, but for routed experts; those of these.
        trained_matrices: Of them, those that are trained.
    """

    total: int
    replicated: int
    expert: int
    frozen: int
    frozen_experts: int
    matrices: tuple[int, int]
    trained_matrices: tuple[int, int]


def layer_parameters(model: TransformerSpec, shard: Shard, *, dense: bool = True) -> LayerParameters:
    """Parameters of one layer on one GPU."""
    held = layer_operators(model, shard, dense=dense)
    routed = [name for name in held if name.startswith("experts")]
    fixed = {name: each.total - each.adapters for name, each in held.items() if not shard.trains(name)}
    others = [name for name in held if name not in routed]

    def matrices(names: list[str]) -> int:
        return sum(held[name].matrix for name in names)

    return LayerParameters(
        total=sum(each.total for each in held.values()),
        replicated=sum(each.replicated for name, each in held.items() if shard.trains(name)),
        expert=sum(held[name].total for name in routed),
        frozen=sum(fixed.values()),
        frozen_experts=sum(fixed.get(name, 0) for name in routed),
        matrices=(matrices(others), matrices(routed)),
        trained_matrices=(
            matrices([name for name in others if name not in fixed]),
            matrices([name for name in routed if name not in fixed]),
        ),
    )


def layer_operators(model: TransformerSpec, shard: Shard, *, dense: bool = True) -> dict[str, Held]:
    """Parameters of each operator of one layer on one GPU, by name in the order of the forward pass."""
    width, norm = model.hidden_size, chains.norm_parameters(model)
    behind = model.norms_per_layer // 2
    found = {"attention.norm": Held(replicated=(model.norms_per_layer - behind) * norm)}
    found |= _attention(model, shard)
    if shard.source_length:
        found |= _cross_attention(model, shard)
    found["mlp.norm"] = Held(replicated=behind * norm)
    if model.mixture is None or dense:
        inner = model.intermediate_size // shard.tensor_parallel
        up = inner * (2 if model.gated_mlp else 1)
        found["mlp.up"] = _matrix("mlp.up", (width, up), shard, split=up * model.mlp_bias)
        found["mlp.down"] = _matrix("mlp.down", (inner, width), shard, replicated=width * model.mlp_bias)
        return found
    for name, (number, rows, columns) in moe.shapes(model, model.mixture, shard).items():
        size, adapters = number * rows * columns, number * lora.parameters(name, rows, columns, shard)
        if name == "router":
            found[name] = Held(replicated=size, adapters=adapters)
        elif name.startswith("experts"):
            expert = size + number * columns * model.mlp_bias
            found[name] = Held(expert=expert, adapters=adapters, matrix=size)
        else:
            number = model.mixture.num_shared_experts if name == "shared.down" else 1
            biases = number * columns * model.mlp_bias
            split, replicated = (biases, 0) if name == "shared.up" else (0, biases)
            found[name] = Held(size + split, replicated, adapters=adapters, matrix=size)
    return found


def _matrix(name: str, shape: tuple[int, int], shard: Shard, *, split: int = 0, replicated: int = 0) -> Held:
    """A matrix that is shared out, with what it has of biases."""
    rows, columns = shape
    size, adapters = rows * columns, lora.parameters(name, rows, columns, shard)
    return Held(size + split, replicated, adapters=adapters, matrix=size)


def _attention(model: TransformerSpec, shard: Shard) -> dict[str, Held]:
    width, part = model.hidden_size, model.latent_attention
    query, key_value = attention.head_widths(model, shard.tensor_parallel)
    biases, out = (query + key_value) * model.attention_bias, width * model.attention_output_bias
    if part is None:
        found = {"attention.qkv": _matrix("attention.qkv", (width, query + key_value), shard, split=biases)}
        if model.qk_norm:
            found["attention.query_key_norm"] = Held(replicated=2 * model.head_dim)
        found["attention.output"] = _matrix("attention.output", (query, width), shard, replicated=out)
        return found
    found = {}
    for name, (rows, columns) in latent.shapes(model, part, shard).items():
        if name == "attention.down":
            adapters = lora.parameters(name, rows, columns, shard)
            size = rows * columns
            found[name] = Held(replicated=size, adapters=adapters, matrix=size)
            found["attention.latent_norm"] = Held(replicated=part.q_lora_rank + part.kv_lora_rank)
        else:
            split = biases if name == "attention.query_up" else 0
            replicated = out if name == "attention.output" else 0
            found[name] = _matrix(name, (rows, columns), shard, split=split, replicated=replicated)
    return found


def _cross_attention(model: TransformerSpec, shard: Shard) -> dict[str, Held]:
    found = {"cross_attention.norm": Held(replicated=cross_attention.norms(model))}
    for name, shape in cross_attention.shapes(model, shard.tensor_parallel).items():
        last = name.endswith("output")
        split = shape[1] * model.attention_bias * (not last)
        replicated = model.hidden_size * model.attention_output_bias * last
        found[name] = _matrix(name, shape, shard, split=split, replicated=replicated)
    return found
