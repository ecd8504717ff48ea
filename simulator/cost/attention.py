"""Fused attention: matrix products and softmax over blocks of scores that never leave the chip."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from simulator.cost.device import MatrixUnit
from simulator.cost.matmul import sustained_seconds
from simulator.cost.roofline import blurred
from simulator.specs.calibration import KernelConstants
from simulator.workload.kernels import AttentionShape

QUERY_BLOCKS = (128, 64)
"""Queries that one compute unit works on at a time (FlashAttention-2 and 3); the smaller for problems with
too few blocks to fill the accelerator."""

FORWARD_FLOPS = 4.0
"""Per score and element of a head: two products."""

BACKWARD_FLOPS = 10.0
"""Per score and element of a head: five products, the scores computed again."""


@lru_cache(maxsize=65536)
def attention_seconds(
    shape: AttentionShape, flops: float, device: MatrixUnit, constants: KernelConstants
) -> float:
    """Time that a fused attention kernel occupies the accelerator, at the clock that its power sustains.

    A block of queries of one head meets its keys on one compute unit; a score costs 4 head_dim FLOP
    (10 backward) on the matrix units and its exponential, a part of which wide units hide:
    ``block(keys) = latency + queries * keys * (flops / rate per unit + score time)``. Blocks are spread over
    the units, and none ends before its longest block: with ``even = batch heads blocks / units *
    block(mean keys)``, the time is the norm of even and ``block(all keys)`` (`blurred`), the least over sizes
    of blocks. The smaller load keys and values twice as often.

    Args:
        shape: The problem.
        flops: Arithmetic that counts [FLOP].
        device: The accelerator, as the kernel uses it.
        constants: Calibration.

    Returns:
        Seconds.

    Source: Dao, FlashAttention-2, arXiv:2307.08691; Shah et al., FlashAttention-3, arXiv:2407.08608.
    Valid: kernels of the FlashAttention family.
    """
    c = constants
    backward = shape.direction == "backward"
    per_score = (BACKWARD_FLOPS if backward else FORWARD_FLOPS) * shape.head_dim
    matrix = per_score * device.units / (device.peak * c.attention_peak_fraction)
    softmax = c.attention_score_time * device.slower * (1.0 - c.attention_overlap * device.hidden)
    start = c.attention_block_latency * device.slower * (c.attention_backward_latency if backward else 1.0)
    best = float("inf")
    for queries in QUERY_BLOCKS:
        smaller = QUERY_BLOCKS[0] / queries
        per_key = queries * (matrix + softmax) * (1.0 + c.attention_block_overhead * (smaller - 1.0))
        blocks = ceil(shape.query_length / queries)
        items = shape.batch * shape.heads * blocks
        latency = start / smaller
        even = items / device.units * (latency + per_key * _mean_keys(shape, blocks, queries))
        longest = latency + per_key * _most_keys(shape, queries)
        best = min(best, blurred(even, longest, c.roofline_softness))
    return sustained_seconds(best, flops, device, c)


def _mean_keys(shape: AttentionShape, blocks: int, size: int) -> float:
    """Keys that a block of queries meets on average; the blocks on the diagonal are computed whole.

    With a window that spans n blocks of keys, the first n blocks of queries meet 1 to n, all others n.
    """
    if not shape.causal:
        return float(shape.key_length)
    queries = min(shape.key_length, blocks * size)
    mean = shape.key_length - queries / 2.0 * (1.0 - 1.0 / blocks)
    spanned = min(blocks, _spanned_blocks(shape.window, size)) if shape.window else blocks
    within = size * spanned * (blocks - (spanned - 1) / 2.0) / blocks
    return min(mean, within) if shape.window else mean


def _most_keys(shape: AttentionShape, size: int) -> int:
    """Keys that the last block of queries meets."""
    if not shape.window:
        return shape.key_length
    return min(shape.key_length, size * _spanned_blocks(shape.window, size))


def _spanned_blocks(window: int, size: int) -> int:
    """Blocks of keys that a block of queries meets: its own, and as many before as the first query sees."""
    return 1 + ceil((window - 1) / size)
