"""Fused attention: matrix products and softmax over blocks of scores that never leave the chip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Final

from simulator.cost.device import MatrixUnit
from simulator.cost.matmul import sustained_seconds
from simulator.cost.roofline import blurred
from simulator.specs.calibration import KernelConstants
from simulator.workload.kernels import AttentionShape

KEY_BLOCK: Final = 64
"""Keys that meet a block of queries at a time."""

FORWARD_FLOPS: Final = 4.0
"""Per score and element of a head: two products."""

BACKWARD_FLOPS: Final = 10.0
"""Per score and element of a head: five products, the scores computed again."""

_SHARED_MEMORY_WIDTH: Final = 128.0
"""What a compute unit reads of its shared memory (local data share) in a cycle [B]."""

_LARGEST_IN_REGISTERS: Final = 128
"""Head size up to which 4 warps hold 32 queries each; the sums of larger heads take 8 warps of 16."""


@dataclass(frozen=True, slots=True)
class AttentionKernel:
    """How a kernel lays attention out on the compute units.

    Attributes:
        queries: Queries that one compute unit works on at a time.
        interleaved: Whether products of one part of a block run beside the softmax of another: two groups of
            warps, or two blocks on one unit. One block of four warps has nobody to fill the gaps.
        scheduled: Whether a kernel before it spreads the work: queries of the heads that share keys stand in
            one block, and where there are fewer blocks than compute units, keys are divided as well.
        portable: Whether it is written in the instructions of 2020.
    """

    queries: int = 128
    interleaved: bool = True
    scheduled: bool = False
    portable: bool = False


FLASH: Final = AttentionKernel()
"""Written for the accelerator: FlashAttention-3 on Hopper, FlashAttention-2 before."""

PORTABLE: Final = AttentionKernel(portable=True)
"""FlashAttention-2 on whatever accelerator."""


@lru_cache(maxsize=65536)
def attention_seconds(
    shape: AttentionShape,
    flops: float,
    device: MatrixUnit,
    constants: KernelConstants,
    kernel: AttentionKernel = FLASH,
) -> float:
    """Time that a fused attention kernel occupies the accelerator, at the clock that its power sustains.

    A block of queries of one head meets its keys on one compute unit:
    ``block(keys) = latency + queries * (keys + fill) * score``. A score costs 4 head_dim FLOP (10 backward)
    on the matrix units, its exponential, and, where warps feed the matrix units themselves, operands out of
    shared memory, once for each warp; `attention_overlap` of both is hidden if the kernel is interleaved.
    Blocks are spread over the units, and none ends before its longest: with
    ``even = batch heads blocks / units * block(mean keys)``, the time is the norm of even and
    ``block(all keys)`` (`blurred`).

    Args:
        shape: The problem.
        flops: Arithmetic that counts [FLOP].
        device: The accelerator.
        constants: Calibration.
        kernel: How the kernel lays it out.

    Returns:
        Seconds.

    Source: Dao, FlashAttention-2, arXiv:2307.08691; Shah et al., FlashAttention-3, arXiv:2407.08608.
    Valid: kernels of the FlashAttention family.
    """
    c = constants
    if kernel.portable:
        device = device.narrowed(c.portable_unit_width)
    backward = shape.direction == "backward"
    per_key = kernel.queries * _score_seconds(shape, device, c, kernel)
    latency = c.attention_block_latency * device.slower * (c.attention_backward_latency if backward else 1.0)
    latency *= kernel.queries / FLASH.queries
    latency += per_key * c.attention_fill_keys
    together = shape.heads // shape.kv_heads if kernel.scheduled else 1
    blocks = ceil(shape.query_length * together / kernel.queries)
    items = shape.batch * (shape.heads // together) * blocks
    most = _most_keys(shape)
    even = items / device.units * (latency + per_key * _mean_keys(shape, kernel.queries // together))
    best = blurred(even, latency + per_key * most, c.attention_unevenness)
    parts = min(device.units / items, most / KEY_BLOCK)
    if kernel.scheduled and parts > 1.0:
        divided = blurred(even, latency + per_key * most / parts, c.attention_unevenness)
        best = min(best, divided + c.kernel_latency * device.slower)
    return sustained_seconds(best, flops, device, c)


def _score_seconds(
    shape: AttentionShape, device: MatrixUnit, constants: KernelConstants, kernel: AttentionKernel
) -> float:
    """Time of a compute unit for one query and one key of one head [s]."""
    c = constants
    per_score = (BACKWARD_FLOPS if shape.direction == "backward" else FORWARD_FLOPS) * shape.head_dim
    matrix = per_score * device.units / (device.peak * c.attention_peak_fraction)
    softmax = c.attention_score_time * device.slower / device.exponentials
    wide_warps = kernel.queries >= FLASH.queries and shape.head_dim <= _LARGEST_IN_REGISTERS
    read = per_score / (_SHARED_MEMORY_WIDTH * (32.0 if wide_warps else 16.0) * device.clock)
    read *= c.attention_operand_share * (1.0 - device.hidden)
    return matrix + (softmax + read) * (1.0 - c.attention_overlap * kernel.interleaved)


def _mean_keys(shape: AttentionShape, queries: int) -> float:
    """Keys that a block of queries meets on average; the blocks on the diagonal are computed whole.

    With a window that spans n blocks of keys, the first n blocks of queries meet 1 to n, all others n.
    """
    if not shape.causal:
        return float(shape.key_length)
    size = max(queries, KEY_BLOCK)
    blocks = ceil(shape.query_length / size)
    queries = min(shape.key_length, blocks * size)
    mean = shape.key_length - queries / 2.0 * (1.0 - 1.0 / blocks)
    spanned = min(blocks, _spanned_blocks(shape.window, size)) if shape.window else blocks
    within = size * spanned * (blocks - (spanned - 1) / 2.0) / blocks
    return min(mean, within) if shape.window else mean


def _most_keys(shape: AttentionShape) -> int:
    """Keys that the last block of queries meets."""
    if not shape.window:
        return shape.key_length
    return min(shape.key_length, FLASH.queries * _spanned_blocks(shape.window, FLASH.queries))


def _spanned_blocks(window: int, size: int) -> int:
    """Blocks of keys that a block of queries meets: its own, and as many before as the first query sees."""
    return 1 + ceil((window - 1) / size)
