"""Matrix multiplication: tiles, waves over the compute units, pipeline fill, cache reuse, sustained clock."""

from __future__ import annotations

from functools import lru_cache
from math import cbrt, sqrt
from typing import NamedTuple

from simulator.cost.device import REFERENCE_WIDTH, MatrixUnit
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


def matmul_seconds(
    m: int, n: int, k: int, batch: int, device: MatrixUnit, bandwidth: float, constants: KernelConstants
) -> float:
    """Time that a matrix multiplication occupies the matrix units.

    The best over tile sizes and over two ways to spread tiles over the compute units, with
    ``share = tiles / units``, ``loop = 2 tile_m tile_n k / (peak fraction * peak per unit)``
    (smaller tiles pay for their operand traffic) and ``once`` for the fill of the pipeline along k and
    the epilogue, of which wide units hide a part (`MatrixUnit.hidden`):

    - whole tiles: ``ceil(share) * (once + loop)``;
    - tiles split along k so that all units work alike:
      ``ceil(share) * once + share * loop + once + exchange of partial sums``.

    Cycles count at the clock that the design power sustains (`sustained_seconds`); the exchange goes at the
    memory's rate. Each is a function that never falls as m, n, k or batch grow, and so is the least of them.

    Args:
        m: Rows of the output.
        n: Columns of the output.
        k: Length of the inner products.
        batch: Independent products.
        device: The accelerator.
        bandwidth: That of its memory [B/s].
        constants: Calibration.

    Returns:
        Seconds.

    Source: tiles and waves: NVIDIA, "Matrix Multiplication Background User's Guide"; even split along k:
        Osama et al., Stream-K, PPoPP 2023, arXiv:2301.03598.
    Valid: dense operands; shapes for which the library has tuned kernels.
    """
    best, evenly = _spread(m, n, k, batch, device, constants)
    exchange = PARTIAL_SUM_BYTES * device.units / bandwidth
    for cycles, sustained, elements in evenly:
        if cycles + elements * exchange < best:
            best = min(best, sustained + elements * exchange)
    return best


@lru_cache(maxsize=65536)
def _spread(
    m: int, n: int, k: int, batch: int, device: MatrixUnit, constants: KernelConstants
) -> tuple[float, list[tuple[float, float, int]]]:
    """Seconds of the best whole tiles, and the tiles split along k that may be quicker, whatever the memory.

    Of these seconds at the highest clock and at the sustained one, and the partial sums that units exchange.
    """
    units = device.units
    limit = power_limit(2.0 * m * n * k * batch, device, constants)
    whole, evenly = float("inf"), []
    for tile_m, tile_n, once, per_k in _tiles(device, constants):
        tiles = -(-m // tile_m) * -(-n // tile_n) * batch
        waves, loop = -(-tiles // units), per_k * k
        whole = min(whole, waves * (once + loop))
        evenly.append(((waves + 1) * once + tiles / units * loop, tile_m * tile_n))
    best = max(whole, limit * cbrt(whole) ** 2)
    return best, [
        (cycles, max(cycles, limit * cbrt(cycles) ** 2), elements)
        for cycles, elements in evenly
        if cycles < best
    ]


class _Tile(NamedTuple):
    """Tiles of one size on an accelerator: seconds once, and for each element of k."""

    rows: int
    columns: int
    once: float
    per_k: float


@lru_cache(maxsize=1024)
def _tiles(device: MatrixUnit, constants: KernelConstants) -> tuple[_Tile, ...]:
    c = constants
    per_flop = device.units / (device.peak * c.matmul_peak_fraction)
    latency = c.matmul_tile_latency * device.slower
    per_element = c.matmul_epilogue_time * device.slower * (1.0 - device.hidden)
    largest = 1.0 / TILES[0][0] + 1.0 / TILES[0][1]
    found = []
    for m, n in TILES:
        traffic = 1.0 + c.matmul_tile_overhead * (1.0 / m + 1.0 / n - largest)
        once = latency + m * n * per_element
        found.append(_Tile(m, n, once, 2.0 * m * n * per_flop * traffic))
    return tuple(found)


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

    Work draws ``flops / seconds * energy``, with an energy that grows with the square of the clock (voltage
    follows the clock), falls with the width of the matrix units, which read operands once for more
    arithmetic, and with narrower operands, and is that of the die's process (`PROCESS_ENERGY`):
    ``energy = (matrix energy + operand energy * 1024 / width) * sqrt(bits / 16) * process
    * (clock / reference)^2``.
    Above the design power the clock is lowered; power falls with the cube of clock and voltage together,
    so time grows with the cube root of the excess. What remains does not depend on the highest clock.

    Args:
        seconds: Time at the highest clock [s].
        flops: Arithmetic done in it [FLOP].
        device: The accelerator.
        constants: Calibration.

    Returns:
        Seconds.

    Valid: kernels in steady state, milliseconds and more; energies rest on GPUs in TSMC's 4N, those in other
        processes on what foundries say of them.
    """
    return max(seconds, power_limit(flops, device, constants) * cbrt(seconds) ** 2)


def power_limit(flops: float, device: MatrixUnit, constants: KernelConstants) -> float:
    """Cube root of the time that so much arithmetic takes at the design power and the highest clock's energy.

    With it, time at the sustained clock is ``max(t, limit * t^(2/3))`` [s^(1/3)].
    """
    if device.tdp is None:
        return 0.0
    energy = constants.matrix_energy + constants.operand_energy * REFERENCE_WIDTH / device.width
    return cbrt(flops * energy * device.energy / device.slower**2 / device.tdp)
