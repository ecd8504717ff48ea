"""Fused attention: matrix products and softmax over blocks of scores that never leave the chip."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from simulator.specs.calibration import KernelConstants
from simulator.workload.kernels import AttentionShape

QUERY_BLOCK = 128
"""Queries that one compute unit works on at a time (FlashAttention-2 and 3)."""


@lru_cache(maxsize=65536)
def attention_seconds(
    shape: AttentionShape, peak: float, vector: float, units: int, constants: KernelConstants
) -> float:
    """Time that a fused attention kernel occupies the accelerator.

    Each score costs 4 head_dim FLOP (10 head_dim backward) on the matrix units and some operations of
    the softmax on the vector units; blocks of queries are spread over the compute units in waves.

    Args:
        shape: The problem.
        peak: Peak rate of the precision [FLOP/s].
        vector: Rate of the vector units [FLOP/s].
        units: Compute units.
        constants: Calibration.

    Returns:
        Seconds.

    Source: Dao, FlashAttention-2, arXiv:2307.08691; Shah et al., FlashAttention-3, arXiv:2407.08608.
    Valid: kernels of the FlashAttention family.
    """
    blocks = ceil(shape.query_length / QUERY_BLOCK)
    scores = QUERY_BLOCK * _mean_keys(shape, blocks)
    backward = shape.direction == "backward"
    flops = (10.0 if backward else 4.0) * shape.head_dim
    rate = (
        peak
        * constants.attention_peak_fraction
        * (constants.attention_backward_fraction if backward else 1.0)
    )
    per_score = (flops / rate + constants.attention_softmax_operations / vector) * units
    items = shape.batch * shape.heads * blocks
    return max(items / units, 1.0) * scores * per_score


def _mean_keys(shape: AttentionShape, blocks: int) -> float:
    """Keys that a block of queries meets on average, the diagonal blocks whole."""
    if not shape.causal:
        return float(shape.key_length)
    reach = min(shape.key_length, blocks * QUERY_BLOCK)
    before = max(shape.key_length - reach, 0)
    return before + (reach + QUERY_BLOCK) / 2.0 if blocks > 1 else float(shape.key_length)
