"""A Program in which factors stretch activities: the definition of what jitter does.

An activity of delay d and alone time a that is stretched by f takes ceil(f (d + a)) when nothing else
holds it up, of it ceil(f d) delay. To say so to the picosecond, its lane gets a *clock*, a capacity of one
picosecond a picosecond on which it draws its stretched alone time; its other amounts are scaled by as much,
rounded down, so that it draws what it drew and the clock alone defines its length.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simulator.engine import Capacities, Classes, Program
from simulator.engine.tables import ClassTable
from simulator.units import PICOSECONDS

F64 = NDArray[np.float64]

_DOWN = 1 - 4 * np.finfo(np.float64).eps
"""A product of doubles times this is below the real product."""


def disturbed(program: Program, factor: F64) -> Program:
    """The Program with every activity stretched by its factor.

    Args:
        program: Any Program.
        factor: Factor of each activity, shape [N]; what has factor 1 stays as it is.
    """
    lanes, count = len(program.lanes.names), len(program.classes.labels)
    stretched = np.flatnonzero(factor != 1.0)
    values, number = np.unique(factor[stretched], return_inverse=True)
    key = (program.cls[stretched].astype(np.int64) * len(values) + number) * lanes + program.lane[stretched]
    kinds, kind = np.unique(key, return_inverse=True)
    source, lane = kinds // lanes // max(len(values), 1), kinds % lanes
    by = values[kinds // lanes % max(len(values), 1)]
    cls = program.cls.astype(np.int64)
    cls[stretched] = count + kind
    clocks = np.flatnonzero(np.bincount(lane, minlength=lanes))
    clock_of_lane = np.zeros(lanes, np.int64)
    clock_of_lane[clocks] = len(program.capacities.names) + np.arange(len(clocks))
    return replace(
        program,
        capacities=_with_clocks(program, clocks),
        classes=_with_stretched(program, source, by, clock_of_lane[lane]),
        cls=cls.astype(np.int32),
    )


def _with_clocks(program: Program, lanes: NDArray[np.int64]) -> Capacities:
    old = program.capacities
    names = tuple(f"{program.lanes.names[lane]}.clock" for lane in lanes)
    owners = tuple(program.lanes.owners[lane] for lane in lanes)
    return Capacities(
        (*old.names, *names),
        (*old.kinds, *("clock",) * len(lanes)),
        (*old.owners, *owners),
        np.append(old.rates, np.full(len(lanes), PICOSECONDS, np.int64)),
        (*old.units, *("ps",) * len(lanes)),
    )


def _with_stretched(
    program: Program, source: NDArray[np.int64], factor: F64, clock: NDArray[np.int64]
) -> Classes:
    old = program.classes
    alone = ClassTable(old, program.capacities.rates).nominal[source]
    delay = np.ceil(factor * old.delay[source]).astype(np.int64)
    work = np.ceil(factor * (old.delay[source] + alone)).astype(np.int64) - delay
    counts = np.diff(old.demand_ptr)[source].astype(np.int64)
    rows = _rows(old.demand_ptr, source)
    of = np.repeat(np.arange(len(source)), counts)
    amount = np.floor(old.demand_amount[rows] * (work[of] / np.maximum(alone[of], 1)) * _DOWN)
    whole = (amount > 0) & (work[of] > 0)
    clocked = np.flatnonzero((work > 0) & (alone > 0))
    owner = np.concatenate((of[whole], clocked))
    order = np.argsort(owner, kind="stable")
    capacity = np.concatenate((old.demand_capacity[rows][whole], clock[clocked]))[order]
    amounts = np.concatenate((amount[whole].astype(np.int64), work[clocked]))[order]
    holds, pools = _rows(old.hold_ptr, source), _rows(old.pool_ptr, source)
    return Classes(
        labels=old.labels + tuple(old.labels[k] for k in source),
        delay=np.concatenate((old.delay, delay)),
        weight=np.concatenate((old.weight, old.weight[source])),
        demand_ptr=_longer(old.demand_ptr, np.bincount(owner, minlength=len(source))),
        demand_capacity=np.concatenate((old.demand_capacity, capacity)).astype(np.int32),
        demand_amount=np.concatenate((old.demand_amount, amounts)),
        hold_ptr=_longer(old.hold_ptr, np.diff(old.hold_ptr)[source]),
        hold_capacity=np.concatenate((old.hold_capacity, old.hold_capacity[holds])),
        hold_amount=np.concatenate((old.hold_amount, old.hold_amount[holds])),
        pool_ptr=_longer(old.pool_ptr, np.diff(old.pool_ptr)[source]),
        pool_id=np.concatenate((old.pool_id, old.pool_id[pools])),
        pool_take=np.concatenate((old.pool_take, old.pool_take[pools])),
        pool_give=np.concatenate((old.pool_give, old.pool_give[pools])),
    )


def _rows(pointers: NDArray[np.int32], source: NDArray[np.int64]) -> NDArray[np.int64]:
    """Entries of some rows of a compressed table, one row behind the other."""
    counts = np.diff(pointers)[source].astype(np.int64)
    starts = np.cumsum(counts) - counts
    return np.repeat(pointers[source] - starts, counts) + np.arange(int(counts.sum()))


def _longer(pointers: NDArray[np.int32], counts: NDArray[np.int64]) -> NDArray[np.int32]:
    return np.concatenate((pointers, pointers[-1] + np.cumsum(counts))).astype(np.int32)
