"""What both players reckon with, computed once and in one place so that they get the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.engine.program import I64, Classes, Program
from simulator.errors import SimulationError
from simulator.units import MAX_PICOSECONDS, PICOSECONDS

F64 = NDArray[np.float64]

WHOLE = 1 << 40
"""Parts into which a capacity's rate is divided to add up loads: sums are integers, in any order the same."""

TOLERANCE = 1e-9
"""By how much loads may exceed what is available before sharing is solved, relative."""

SAME_SHARE = 1e-12
"""Two shares that differ by less are the same, relative: sums of other terms round in other ways."""

LEAST_LEVEL = 1e-15
"""Least water level of a max-min solution: rounding must not leave a share of zero or below."""


class ClassTable:
    """Alone time and full-speed use of each class; brought up to date when a rate changes.

    Attributes:
        nominal: Alone time of each class [ps]: max over demands of ceil(amount * 10^12 / rate); 0
            without a demand; one above the horizon where it lies beyond. Shape [K].
        limit: Capacity that defines the alone time, the lowest on ties; -1 without a demand. Shape [K].
        usage: Units per picosecond that each demand draws at full speed: amount / nominal. Shape [D].
        load: The same in `WHOLE` parts of the capacity's rate, rounded down. Shape [D].
    """

    def __init__(self, classes: Classes, rates: I64) -> None:
        self._classes = classes
        count = len(classes.labels)
        self.rates = rates.copy()
        self.nominal: I64 = np.zeros(count, np.int64)
        self.limit: NDArray[np.int32] = np.full(count, -1, np.int32)
        self.usage: F64 = np.zeros(classes.demand_amount.shape[0])
        self.load: I64 = np.zeros(classes.demand_amount.shape[0], np.int64)
        sizes = np.diff(classes.demand_ptr)
        concerned = np.flatnonzero(sizes)
        self._work_out(concerned, sizes[concerned], classes.demand_ptr[concerned], slice(None))

    def change_rate(self, capacity: int, rate: int) -> I64:
        """Sets a base rate and returns the classes whose figures were computed anew."""
        self.rates[capacity] = rate
        rows = np.flatnonzero(self._classes.demand_capacity == capacity)
        concerned = np.unique(np.searchsorted(self._classes.demand_ptr, rows, side="right") - 1)
        firsts = self._classes.demand_ptr[concerned]
        sizes = self._classes.demand_ptr[concerned + 1] - firsts
        begins = np.cumsum(sizes) - sizes
        self._work_out(
            concerned, sizes, begins, np.repeat(firsts - begins, sizes) + np.arange(int(sizes.sum()))
        )
        return concerned

    def _work_out(self, concerned: I64, sizes: NDArray[Any], begins: NDArray[Any], rows: I64 | slice) -> None:
        """Computes the figures of classes with so many demands each, which begin there in `rows`."""
        if not concerned.size:
            return
        capacity, amounts = self._classes.demand_capacity[rows], self._classes.demand_amount[rows]
        rates = self.rates[capacity]
        times = alone_times(amounts, rates)
        nominal = np.maximum.reduceat(times, begins)
        spread = np.repeat(nominal, sizes)
        bound = np.where(times == spread, capacity, np.iinfo(np.int32).max)
        self.nominal[concerned] = nominal
        self.limit[concerned] = np.minimum.reduceat(bound, begins)
        usage = amounts / spread
        self.usage[rows] = usage
        parts = usage * PICOSECONDS / rates * WHOLE
        self.load[rows] = np.floor(np.minimum(parts, WHOLE))  # more only where the alone time was cut short


def alone_times(amounts: I64, rates: I64) -> I64:
    """ceil(amount * 10^12 / rate) [ps], exactly, for rates up to 10^18; one above the horizon beyond it.

    What is left of a second is estimated in floats, off by one picosecond at most; by how much is told by
    ``rest * 10^12 - picoseconds * rate``, which fits where its two terms do not: integers wrap around.
    """
    seconds, rest = np.divmod(amounts, rates)
    parts = (rest / rates * PICOSECONDS).astype(np.int64)
    beyond = seconds > MAX_PICOSECONDS // PICOSECONDS
    rest *= PICOSECONDS
    rest -= parts * rates
    parts += (rest > 0).astype(np.int64) + (rest > rates) - (rest <= -rates)
    times = np.where(beyond, 0, seconds) * PICOSECONDS + parts
    times[beyond | (times > MAX_PICOSECONDS)] = MAX_PICOSECONDS + 1
    return times


def room(rate: int, held: int) -> int:
    """What holds leave of a capacity in `WHOLE` parts, tolerance included."""
    return int(float(rate - held) / float(rate) * WHOLE * (1.0 + TOLERANCE))


def describe(program: Program, activity: int) -> str:
    """An activity in words: number, label and lane."""
    label = program.classes.labels[program.cls[activity]]
    lane = program.lanes.names[program.lane[activity]]
    phase = f" ({label.phase})" if label.phase else ""
    return f'activity {activity} "{label.name}"{phase} on lane "{lane}"'


def horizon_error(program: Program, activity: int, now: int) -> SimulationError:
    """The complaint about an activity that would end after the last day that the clock can tell."""
    return SimulationError(
        f"at {now / PICOSECONDS:g} s: {describe(program, activity)} would end beyond the horizon of 100 days"
    )


def hold_error(program: Program, capacity: int, now: int) -> SimulationError:
    """The complaint about holds that leave nothing of a capacity."""
    name = program.capacities.names[capacity]
    return SimulationError(
        f'at {now / PICOSECONDS:g} s: the activities that run at once hold all of capacity "{name}"'
    )
