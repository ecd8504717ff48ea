"""Matrix multiplication: tiles, waves over the compute units, pipeline fill and cache reuse."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, sqrt

from simulator.specs.calibration import KernelConstants

TILES: tuple[tuple[int, int], ...] = (
    (256, 128),
    (128, 256),
    (128, 128),
    (128, 64),
    (64, 128),
    (64, 64),
    (64, 32),
    (32, 64),
)
"""Output tiles that libraries ship, rows by columns."""

SPLITS: tuple[int, ...] = (1, 2, 4, 8, 16)
"""Slices of k that work on one output tile at once."""

K_STEP = 64
"""Length along k that one stage of the pipeline loads, in bytes of an operand row."""

FALLBACK_UNITS = 128
"""Compute units where the data sheet does not say."""


@lru_cache(maxsize=65536)
def matmul_seconds(
    m: int, n: int, k: int, batch: int, peak: float, units: int, constants: KernelConstants
) -> tuple[float, float]:
    """Time that the matrix units are occupied, and the operand elements read from memory again.

    The best over tiles and slices of
    ``waves * (tile latency + 2 tile_m tile_n ceil(k / slices) / (peak per unit * efficiency))``
    with ``efficiency = peak fraction / (1 + overhead (1/tile_m + 1/tile_n))``; as the least of
    functions that grow with m, n, k and batch it grows with them.

    Args:
        m: Rows of the output.
        n: Columns of the output.
        k: Length of the inner products.
        batch: Independent products.
        peak: Peak rate of the precision [FLOP/s].
        units: Compute units.
        constants: Calibration.

    Returns:
        Seconds on the matrix units, and elements of operands loaded more than once.

    Source: tiling and wave quantisation as in NVIDIA's "Matrix multiplication background" guide.
    Valid: dense operands; shapes that the library has tuned kernels for.
    """
    per_unit = peak / units * constants.matmul_peak_fraction
    overhead = constants.matmul_tile_overhead
    latency = constants.matmul_tile_latency
    best = float("inf")
    for tile_m, tile_n in TILES:
        tiles = ceil(m / tile_m) * ceil(n / tile_n) * batch
        rate = per_unit / (1.0 + overhead * (1.0 / tile_m + 1.0 / tile_n))
        area = 2.0 * tile_m * tile_n / rate
        for slices in SPLITS:
            if slices > 1 and (tiles * slices > 4 * units or k < 256 * slices):
                break
            seconds = ceil(tiles * slices / units) * (latency * (1 + (slices > 1)) + area * (k / slices))
            best = min(best, seconds)
    return best, _reloaded(m, n, k, batch, units)


def _reloaded(m: int, n: int, k: int, batch: int, units: int) -> float:
    """Operand elements that a wave of tiles loads beyond the first time."""
    side = 128 * sqrt(units)
    again_a = max(0.0, n / side - 1.0) * m * k
    again_b = max(0.0, m / side - 1.0) * n * k
    return batch * (again_a + again_b)
