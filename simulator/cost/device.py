"""The figures of an accelerator that kernels depend on, put the way the cost models want them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log, sqrt
from statistics import NormalDist
from typing import Final, cast

from simulator.cost.demand import ELEMENT_BYTES, tensor_rate
from simulator.cost.remembered import by_identity
from simulator.errors import UnsupportedError
from simulator.specs import AcceleratorSpec, Precision
from simulator.specs.hardware import Process

REFERENCE_CLOCK: Final = 1.83e9
"""Clock that the calibration's times and energies hold at, H100's, and what stands in for one that the data
sheet does not say [Hz]."""

REFERENCE_WIDTH: Final = 1024.0
"""Width of matrix units that the energy of operands holds at: that of Volta and Ada [FLOP/cycle]."""

ASYNCHRONOUS_WIDTH: Final = 4096.0
"""Width from which matrix units are fed by copies that no thread waits for, so that what threads do meanwhile
is hidden: Hopper's; at half of it (Ampere's) nothing is [FLOP/cycle]."""

_REFERENCE_BYTES: Final = 2
"""Bytes of an operand for which energies hold.

Half the bits draw sqrt(1/2) of the energy: the multiplier shrinks with their square and the operands in
proportion, while the sum in 32 bits and the clock remain. In 45 nm a product and a 32-bit sum take 0.55 as
much for bytes as for 16-bit floats; what remains comes on top of both.

Source: Horowitz, Computing's energy problem, ISSCC 2014, figure 1.1.9.
"""

_N4P_EFFICIENCY: Final = 1.22
_N4_SHARE: Final = 1.0 - log(1.06) / log(1.11)
_N5: Final = _N4P_EFFICIENCY**_N4_SHARE
_N7: Final = _N5 / 0.70
_16FF: Final = _N7 / 0.40
_N3E: Final = _N5 * 0.66

PROCESS_ENERGY: Final[dict[Process, float]] = {
    "16FF": _16FF,
    "12FFN": _16FF,
    "8N": _16FF * 0.60 * 0.85 * 0.90,
    "N7": _N7,
    "N6": _N7,
    "N5": _N5,
    "4N": 1.0,
    "4NP": _N5 / _N4P_EFFICIENCY,
    "N3P": _N3E * 0.925,
    "N2": _N3E * 0.725,
}
"""Energy of an operation at one clock by the process of the die, relative to that of the fits' energies.

As the foundries say of one process against the one before, at the same speed: N7 takes 60 % less power than
16FF+, N5 30 % less than N7; N4P gives 22 % more for a watt than N5 (and 11 % more speed, of which 6 % are
since N4); N3E takes 34 % less than N5, N3P 5 to 10 % less than that, N2 25 to 30 %. Samsung's 10 nm take 40 %
less than its 14 nm (here: 16FF), the second version 15 % less than the first, 8 nm 10 % less. 4N is taken for
N4 and 4NP for N4P, of which NVIDIA tells no more; 12FFN is a smaller 16FF.

Source: TSMC on N7 (techgage.com, 2018), on N5 (tsmc.com, 5nm Technology), on N4P (press release of 26 October
    2021), on N3E, N3P and N2 (table compiled by AnandTech, May 2024); Samsung's press releases of 17 October
    2016 (10LPE), April 2017 (10LPP) and 18 October 2017 (8LPP).
"""

FALLBACK_UNITS: Final = 128
"""Compute units where the data sheet does not say, or names a few large cores that each work on many tiles at
once: as many as GPUs have."""

_EXPONENTIALS: Final = 16
"""Exponentials that a compute unit of Hopper does in a cycle.

Source: NVIDIA, CUDA C++ Programming Guide, throughput of native arithmetic instructions (base-2 exponential).
"""

FEW_UNITS: Final = 16
"""Fewer compute units than this are large cores, not units that hold one tile each (TPU, Gaudi, Trainium)."""


@dataclass(frozen=True, slots=True)
class MatrixUnit:
    """The figures of an accelerator that arithmetic on its matrix units depends on; its memory is apart.

    Attributes:
        peak: Peak rate of the precision at `clock` [FLOP/s].
        units: Compute units.
        clock: Highest clock [Hz].
        width: Work of one compute unit in 16 bit [FLOP/cycle].
        tdp: Thermal design power [W]; unlimited if not known, and of a few large cores, whose systolic arrays
            pass operands on between neighbours: the energies are those of units that read registers.
        energy: Energy of an operation, relative to one on 16-bit operands in Hopper's process.
        exponentials: Exponentials of a compute unit a cycle, relative to Hopper's.
    """

    peak: float
    units: int
    clock: float
    width: float
    tdp: float | None
    energy: float
    exponentials: float = 1.0

    @property
    def slower(self) -> float:
        """How much longer a number of cycles takes than at the reference clock."""
        return REFERENCE_CLOCK / self.clock

    @property
    def hidden(self) -> float:
        """Share of the threads' own work that is hidden behind the matrix units: 0 to 1, by their width."""
        half = ASYNCHRONOUS_WIDTH / 2.0
        return min(1.0, max(0.0, (self.width - half) / half))

    def narrowed(self, width: float) -> MatrixUnit:
        """The same as kernels see it that feed a compute unit with no more than `width` [FLOP/cycle]."""
        if width >= self.width:
            return self
        return replace(self, width=width, peak=self.peak * width / self.width)


def highest_clock(accelerator: AcceleratorSpec) -> float:
    """Highest clock of the compute units, where power allows [Hz]."""
    boost = accelerator.boost_clock or REFERENCE_CLOCK
    return max(boost, accelerator.highest_clock or boost)


@by_identity
def slowest_of(accelerator: AcceleratorSpec, chips: int, spread: float) -> AcceleratorSpec:
    """The accelerator that `chips` of a kind which wait for one another are as quick as.

    Chips differ in the energy of an operation, and so in the clock that their power sustains. The least
    efficient of n draws ``1 + spread * E[largest of n normal deviates]`` times the mean, which is here taken
    off the design power: where power does not limit, nothing changes.

    Args:
        accelerator: The mean of its kind.
        chips: How many there are.
        spread: Standard deviation of the energy of an operation, relative to its mean.

    Source: Blom, Statistical Estimates and Transformed Beta-Variables, 1958, of the expected largest deviate.
    Valid: chips of one kind, none of them broken or badly cooled.
    """
    if accelerator.tdp is None or chips == 1:
        return accelerator
    largest = NormalDist().inv_cdf((chips - 0.375) / (chips + 0.25))
    return accelerator.model_copy(update={"tdp": accelerator.tdp / (1.0 + spread * largest)})


@by_identity
def matrix_unit(accelerator: AcceleratorSpec, precision: str) -> MatrixUnit:
    """What matrix kernels of a precision find on an accelerator.

    Data sheets quote their peaks at the boost clock; the width of a compute unit follows from peak, units and
    clock, and the peak at the highest clock is larger in proportion.

    Raises:
        UnsupportedError: The accelerator has no figure for the precision.
    """
    peak = accelerator.peak_flops.get(cast(Precision, precision))
    if peak is None:
        raise UnsupportedError(
            ("training", "precision"),
            f'{accelerator.name} has no matrix rate for "{precision}"; '
            f"it has: {', '.join(accelerator.peak_flops)}",
        )
    boost, highest = accelerator.boost_clock or REFERENCE_CLOCK, highest_clock(accelerator)
    units = accelerator.num_compute_units or FALLBACK_UNITS
    return MatrixUnit(
        peak=peak * highest / boost,
        units=units if units >= FEW_UNITS else FALLBACK_UNITS,
        clock=highest,
        width=tensor_rate(accelerator) / units / boost,
        tdp=accelerator.tdp if units >= FEW_UNITS else None,
        energy=sqrt(ELEMENT_BYTES[precision] / _REFERENCE_BYTES)
        * PROCESS_ENERGY[accelerator.process or "4N"],
        exponentials=(accelerator.exponentials_per_cycle or _EXPONENTIALS) / _EXPONENTIALS,
    )
