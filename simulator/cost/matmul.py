"""Matrix multiplication: tiles, waves over the compute units, pipeline fill, cache reuse, sustained clock."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, sqrt

from simulator.specs.calibration import KernelConstants

TILES: tuple[tuple[int, int], ...] = (
    (256, 128),
    (128, 256),
    (192, 128),
    (128, 192),
    (128, 128),
    (128, 64),
    (64, 128),
    (64, 64),
    (64, 32),
    (32, 64),
)
"""Output tiles that libraries ship, rows by columns."""

PARTIAL_SUM_BYTES = 8.0
"""A partial sum that is exchanged: written and read once in fp32 [B]."""

FALLBACK_UNITS = 128
"""Compute units where the data sheet does not say, or names a few large cores that each work on many tiles at
once: as many as GPUs have."""

FEW_UNITS = 16
"""Fewer compute units than this are large cores, not units that hold one tile each (TPU, Gaudi, Trainium)."""


@dataclass(frozen=True, slots=True)
class MatrixUnit:
    """The figures of an accelerator that matrix kernels depend on.

    Attributes:
        peak: Peak rate of the precision [FLOP/s].
        vector: Rate of the vector units [FLOP/s].
        bandwidth: Bandwidth of the device memory [B/s].
        units: Compute units.
        tdp: Thermal design power [W]; unlimited if not known.
    """

    peak: float
    vector: float
    bandwidth: float
    units: int
    tdp: float | None


@lru_cache(maxsize=65536)
def matmul_seconds(
    m: int, n: int, k: int, batch: int, device: MatrixUnit, constants: KernelConstants
) -> float:
    """Time that a matrix multiplication occupies the matrix units at the full clock.

    The best over tile sizes and over two ways to spread tiles over the compute units, with
    ``share = tiles / units``, ``loop = 2 tile_m tile_n k / (peak fraction * peak per unit)``
    (smaller tiles pay for their operand traffic) and ``once`` for the fill of the pipeline along k and
    the epilogue:

    - whole tiles: ``ceil(share) * (once + loop)``;
    - tiles split along k so that all units work alike:
      ``ceil(share) * once + share * loop + once + exchange of partial sums``.

    Each is a function that never falls as m, n, k or batch grow, and so is the least of them.

    Args:
        m: Rows of the output.
        n: Columns of the output.
        k: Length of the inner products.
        batch: Independent products.
        device: The accelerator.
        constants: Calibration.

    Returns:
        Seconds.

    Source: tiles and waves: NVIDIA, "Matrix Multiplication Background User's Guide"; even split along k:
        Osama et al., Stream-K, PPoPP 2023, arXiv:2301.03598.
    Valid: dense operands; shapes for which the library has tuned kernels.
    """
    c = constants
    per_flop = device.units / (device.peak * c.matmul_peak_fraction)
    per_element = c.matmul_epilogue_operations * device.units / device.vector
    exchange = c.matmul_exchange * PARTIAL_SUM_BYTES * device.units / device.bandwidth
    largest = 1.0 / TILES[0][0] + 1.0 / TILES[0][1]
    best = float("inf")
    for tile_m, tile_n in TILES:
        area = tile_m * tile_n
        share = -(-m // tile_m) * -(-n // tile_n) * batch / device.units
        traffic = 1.0 + c.matmul_tile_overhead * (1.0 / tile_m + 1.0 / tile_n - largest)
        loop = 2.0 * area * k * per_flop * traffic
        once = c.matmul_tile_latency + area * per_element
        waves = ceil(share)
        whole = waves * (once + loop)
        even = waves * once + share * loop + once + area * exchange
        best = min(best, whole, even)
    return best


@lru_cache(maxsize=65536)
def reloaded_elements(m: int, n: int, k: int, batch: int, units: int) -> float:
    """Operand elements that waves of tiles load from device memory beyond the first time.

    A wave of `units` tiles of 128 x 128 covers about a square of side ``128 sqrt(units)``; what it reads
    is shared inside the wave (by the last-level cache) and read again by the next.

    Args:
        m: Rows of the output.
        n: Columns of the output.
        k: Length of the inner products.
        batch: Independent products.
        units: Compute units.

    Returns:
        Elements.
    """
    side = 128.0 * sqrt(units)
    return batch * (max(0.0, n / side - 1.0) * m * k + max(0.0, m / side - 1.0) * n * k)


def sustained_seconds(seconds: float, flops: float, device: MatrixUnit, constants: KernelConstants) -> float:
    """The same time at the clock that the thermal design power sustains.

    At the data sheet's clock the chip would draw
    ``load * (matrix energy * peak + vector energy * vector rate)`` with ``load = flops / (peak * seconds)``.
    Above the design power the clock is lowered; power falls with the cube of clock and voltage together,
    so time grows with the cube root of the excess.

    Args:
        seconds: Time at the data sheet's clock [s].
        flops: Arithmetic done in it [FLOP].
        device: The accelerator.
        constants: Calibration.

    Returns:
        Seconds.

    Valid: kernels in steady state, milliseconds and more; GPUs of 4-7 nm, on which the energies rest.
    """
    if device.tdp is None or seconds <= 0.0:
        return seconds
    power = constants.matrix_energy * device.peak + constants.vector_energy * device.vector
    excess = flops / (device.peak * seconds) * power / device.tdp
    return float(seconds * excess ** (1.0 / 3.0)) if excess > 1.0 else seconds
