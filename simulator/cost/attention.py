"""Fused attention: matrix products and softmax over blocks of scores that never leave the chip."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from simulator.cost.matmul import MatrixUnit
from simulator.specs.calibration import KernelConstants
from simulator.workload.kernels import AttentionShape

QUERY_BLOCK = 128
"""Queries that one compute unit works on at a time (FlashAttention-2 and 3)."""

SMALLEST_BLOCK = 64
"""Queries of the smallest block, for problems with too few blocks to fill the accelerator."""

FORWARD_FLOPS = 4.0
"""Per score and element of a head: two products."""

BACKWARD_FLOPS = 10.0
"""Per score and element of a head: five products, the scores computed again."""


@lru_cache(maxsize=65536)
def attention_seconds(shape: AttentionShape, device: MatrixUnit, constants: KernelConstants) -> float:
    """Time that a fused attention kernel occupies the accelerator at the full clock.

    A block of 128 queries of one head meets its keys on one compute unit; a score costs
    4 head_dim FLOP (10 backward) on the matrix units and its exponential:
    ``block(keys) = latency + 128 keys (flops / rate per unit + score time)``. Blocks are spread over
    the units; no less than the last block takes, which libraries halve where there are few:
    ``max(batch heads blocks / units * block(mean keys), block(all keys) / 2)``.

    Args:
        shape: The problem.
        device: The accelerator.
        constants: Calibration.

    Returns:
        Seconds.

    Source: Dao, FlashAttention-2, arXiv:2307.08691; Shah et al., FlashAttention-3, arXiv:2407.08608.
    Valid: kernels of the FlashAttention family written for the accelerator's generation.
    """
    c = constants
    blocks = ceil(shape.query_length / QUERY_BLOCK)
    backward = shape.direction == "backward"
    flops = (BACKWARD_FLOPS if backward else FORWARD_FLOPS) * shape.head_dim
    rate = device.peak * c.attention_peak_fraction * (c.attention_backward_fraction if backward else 1.0)
    per_key = QUERY_BLOCK * (flops * device.units / rate + c.attention_score_time)
    items = shape.batch * shape.heads * blocks
    even = items / device.units * (c.attention_block_latency + per_key * _mean_keys(shape, blocks))
    longest = c.attention_block_latency + per_key * _most_keys(shape) * SMALLEST_BLOCK / QUERY_BLOCK
    return max(even, longest)


def _mean_keys(shape: AttentionShape, blocks: int) -> float:
    """Keys that a block of queries meets on average; the blocks on the diagonal are computed whole.

    With a window that spans n blocks of keys, the first n blocks of queries meet 1 to n, all others n.
    """
    if not shape.causal:
        return float(shape.key_length)
    queries = min(shape.key_length, blocks * QUERY_BLOCK)
    mean = shape.key_length - queries / 2.0 * (1.0 - 1.0 / blocks)
    spanned = min(blocks, _spanned_blocks(shape.window)) if shape.window else blocks
    within = QUERY_BLOCK * spanned * (blocks - (spanned - 1) / 2.0) / blocks
    return min(mean, within) if shape.window else mean


def _most_keys(shape: AttentionShape) -> int:
    """Keys that the last block of queries meets."""
    if not shape.window:
        return shape.key_length
    return min(shape.key_length, QUERY_BLOCK * _spanned_blocks(shape.window))


def _spanned_blocks(window: int) -> int:
    """Blocks of keys that a block of queries meets: its own, and as many before as the first query sees."""
    return 1 + ceil((window - 1) / QUERY_BLOCK)
