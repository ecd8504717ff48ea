"""Low-rank adapters: beside a frozen matrix [k, n], two trained ones of [k, r] and [r, n].

Source: Hu et al., LoRA, arXiv:2106.09685.
"""

from __future__ import annotations

from simulator.workload import operators
from simulator.workload.blocks import PassBuilder, Shard

_SAME = {
    "cross_attention.query": "attention.qkv",
    "cross_attention.key_value": "attention.qkv",
    "cross_attention.output": "attention.output",
    "attention.down": "attention.qkv",
    "attention.query_up": "attention.qkv",
    "attention.key_value_up": "attention.qkv",
}
"""Matrices that are adapted with those of plain self-attention, for they do the same."""


def adapts(name: str, shard: Shard) -> bool:
    """Whether a matrix has an adapter."""
    return shard.lora_rank > 0 and _SAME.get(name, name) in shard.lora_targets


def add_forward(into: PassBuilder, name: str, m: int, n: int, k: int, shard: Shard) -> int:
    """The adapter's two products behind a frozen one, and their sum; keeps the narrow product.

    Returns:
        Index of the last node.
    """
    if not adapts(name, shard):
        return len(into.nodes) - 1
    rank, precision, element = shard.lora_rank, shard.precision, shard.element_bytes
    into.add(operators.matmul(f"{name}.lora_a", m, rank, k, precision), kept=m * rank * element)
    into.add(operators.matmul(f"{name}.lora_b", m, n, rank, precision))
    return into.add(
        operators.pointwise(
            f"{name}.lora_sum", "elementwise", m * n, reads=2 * element, writes=element, flops=2
        )
    )


def add_backward(into: PassBuilder, name: str, m: int, n: int, k: int, shard: Shard) -> int:
    """Gradients of both matrices and what they add to that of the input.

    Returns:
        Index of the last node.
    """
    if not adapts(name, shard):
        return len(into.nodes) - 1
    rank, precision, element = shard.lora_rank, shard.precision, shard.element_bytes
    gradient = shard.gradient_bytes
    before = (len(into.nodes) - 1,)
    into.add(
        operators.weight_gradient(f"{name}.lora_b.weight_gradient", m, n, rank, precision, gradient),
        role="weight_gradient",
        held=m * (rank + n) * element,
    )
    data = into.add(operators.matmul(f"{name}.lora_b.input_gradient", m, rank, n, precision), after=before)
    into.add(
        operators.weight_gradient(f"{name}.lora_a.weight_gradient", m, rank, k, precision, gradient),
        freed=m * rank * element,
        role="weight_gradient",
        held=m * (rank + k) * element,
    )
    into.add(operators.matmul(f"{name}.lora_a.input_gradient", m, k, rank, precision), after=(data,))
    return into.add(
        operators.pointwise(
            f"{name}.lora_sum.gradient", "elementwise", m * k, reads=2 * element, writes=element, flops=1
        )
    )


def parameters(shapes: dict[str, tuple[int, int]], shard: Shard) -> int:
    """Trained parameters of the adapters of one GPU's matrices, given by name as [rows, columns]."""
    return sum(
        shard.lora_rank * (rows + columns) for name, (rows, columns) in shapes.items() if adapts(name, shard)
    )
