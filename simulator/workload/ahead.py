"""What predicts tokens further on than the next: state and embedding of the next token, brought together.

A module norms both, projects them side by side to the model's width, and has a layer; the model's embedding
and head are read once more.

Source: DeepSeek-V3, arXiv:2412.19437, section 2.2.
"""

from __future__ import annotations

from simulator.specs.model import TransformerSpec
from simulator.workload import chains, operators
from simulator.workload.blocks import Block, PassBuilder, Shard

NORMS = 2
"""Of the state and of the embedding."""


def ahead_parameters(model: TransformerSpec) -> int:
    """Parameters that a module has besides its layer and the norm before the head."""
    return NORMS * chains.norm_parameters(model) + 2 * model.hidden_size**2


def ahead_block(model: TransformerSpec, shard: Shard) -> Block:
    """Norms, concatenation and projection of one module; in the precision of the passes, as the head.

    Args:
        model: The transformer.
        shard: One GPU's part of the micro-batch, with whole matrices.
    """
    tokens, width, element = shard.residual_tokens, model.hidden_size, shard.element_bytes
    elements, name, forward, backward = tokens * width, "ahead.projection", PassBuilder(), PassBuilder()
    kept = elements * chains.kept_by_norm(model, shard, "ahead.norm")
    for part in ("state", "embedding"):
        forward.add(chains.norm(f"ahead.{part}_norm", elements, model, shard), kept=kept)
    both = operators.pointwise(
        "ahead.both", "elementwise", NORMS * elements, reads=element, writes=element, flops=0
    )
    forward.add(both, kept=NORMS * elements * element)
    forward.add(operators.matmul(name, tokens, width, NORMS * width, shard.precision))
    backward.add(
        operators.matmul(f"{name}.input_gradient", tokens, NORMS * width, width, shard.precision),
    )
    chains.add_weight_gradient(
        backward,
        f"{name}.weight_gradient",
        tokens,
        width,
        NORMS * width,
        shard,
        freed=NORMS * elements * element,
        precision=shard.precision,
    )
    for part in ("embedding", "state"):
        undone = chains.norm_gradient(f"ahead.{part}_norm.gradient", elements, model, shard)
        backward.add(undone, freed=kept)
    summed = operators.pointwise(
        "ahead.state.gradient", "elementwise", elements, reads=2 * element, writes=element, flops=1
    )
    backward.add(summed)
    return Block(
        name="ahead",
        forward=forward.done(),
        backward=backward.done(),
        parameters=ahead_parameters(model),
        input_bytes=NORMS * elements * element,
    )
