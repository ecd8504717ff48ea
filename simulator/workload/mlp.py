"""The dense MLP of a layer with its norm, and where it meets the residual stream."""

from __future__ import annotations

from simulator.specs.model import TransformerSpec
from simulator.workload import chains
from simulator.workload.attention import add_norm
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.columns import add_column_gradient, add_gather, add_reduce, casts_to_gather
from simulator.workload.matrices import add_input_gradient, add_product


def add_forward(into: PassBuilder, model: TransformerSpec, shard: Shard) -> None:
    """Norm, projection up, activation, projection down, residual."""
    width, element, tp = model.hidden_size, shard.element_bytes, shard.tensor_parallel
    tokens, residual, inner = shard.tokens, shard.residual_tokens, model.intermediate_size // tp
    up = inner * (2 if model.gated_mlp else 1)
    with into.of("mlp"):
        add_norm(into, model, shard, "mlp", "mlp.up")
        add_gather(into, shard, "mlp", width, made_by="layernorm:mlp")
        size = chains.kept_of_input(tokens * up, shard)
        ready, made_by = casts_to_gather(shard), "layernorm:mlp"
        last = add_product(into, "mlp.up", tokens, up, width, shard, kept=size, ready=ready, made_by=made_by)
        chains.add_store(into, "mlp.activation", tokens * up, shard)
        kept = chains.kept_by_activation(tokens * inner, model, shard)
        into.add(chains.activation(model, tokens * inner, shard), after=(last,), kept=kept)
        add_product(into, "mlp.down", tokens, width, inner, shard)
        add_reduce(into, shard, "mlp", tokens * width * element)
    into.add(
        chains.residual("mlp.residual", residual * width, model.mlp_bias, shard),
        kept=residual * width * shard.dropout,
    )


def add_backward(into: PassBuilder, model: TransformerSpec, shard: Shard) -> None:
    """The same backwards."""
    width, tp = model.hidden_size, shard.tensor_parallel
    tokens, residual, inner = shard.tokens, shard.residual_tokens, model.intermediate_size // tp
    up = inner * (2 if model.gated_mlp else 1)
    into.needs("layernorm:mlp", "mlp")
    add_gather(into, shard, "mlp.gradient", width)
    add_input_gradient(into, "mlp.down", tokens, inner, width, shard, ready=casts_to_gather(shard))
    operand = chains.kept_operand(shard, "mlp.down", tokens * inner)
    chains.add_weight_gradient(into, "mlp.down.weight_gradient", tokens, width, inner, shard, freed=operand)
    apart = chains.kept_by_activation(tokens * inner, model, shard) - operand
    before = len(into.nodes) - 1
    restored = chains.add_restore(into, "mlp.activation", tokens * up, shard)
    gradient = chains.activation_gradient(model, tokens * inner, shard)
    into.add(gradient, after=(before, *restored), freed=chains.stored_input(tokens * up, shard) + apart)
    add_column_gradient(into, model, shard, "mlp.up", up, residual)
