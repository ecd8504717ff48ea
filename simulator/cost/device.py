"""The figures of an accelerator that kernels depend on, put the way the cost models want them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Final, cast

from simulator.cost.demand import ELEMENT_BYTES, tensor_rate
from simulator.cost.remembered import by_identity
from simulator.errors import UnsupportedError
from simulator.specs import AcceleratorSpec, Precision

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

FALLBACK_UNITS: Final = 128
"""Compute units where the data sheet does not say, or names a few large cores that each work on many tiles at
once: as many as GPUs have."""

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
        tdp: Thermal design power [W]; unlimited if not known.
        energy: Energy of an operation, relative to one on 16-bit operands.
    """

    peak: float
    units: int
    clock: float
    width: float
    tdp: float | None
    energy: float

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
        tdp=accelerator.tdp,
        energy=sqrt(ELEMENT_BYTES[precision] / _REFERENCE_BYTES),
    )
