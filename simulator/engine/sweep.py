"""The compiled player's short way: where nothing can be contended, ends follow in order of id.

The order of a Program is fixed when no class takes from a blocking pool, no rate changes, nothing
that is held is demanded, and on every capacity the greatest loads of all lanes fit together. Then
an activity starts when the one before it on its lane and its dependencies have ended, and runs
at full speed. Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.engine.jit import entry
from simulator.engine.program import I32, I64, Program, read_only
from simulator.engine.record import WAIT_DEPENDENCY, WAIT_LANE, WAIT_NONE, Record
from simulator.engine.tables import ClassTable, horizon_error, room
from simulator.units import MAX_PICOSECONDS

_LARGEST_BITMAP = 1 << 30
"""Pairs of lane and class up to which it is found out which occur (128 MiB of bits)."""


def occurring_pairs(program: Program) -> I64 | None:
    """The pairs (lane * classes + class) that occur, in order; None where they would be too many to look."""
    return program.structure.once(occurring_pairs, lambda: _find_pairs(program))


def _find_pairs(program: Program) -> I64 | None:
    lanes, count = len(program.lanes.names), len(program.classes.labels)
    if lanes * count > _LARGEST_BITMAP:
        return None
    bits = np.zeros((lanes * count + 7) // 8, np.uint8)
    _mark_pairs(read_only(program.lane), read_only(program.cls), count, bits)
    return np.flatnonzero(np.unpackbits(bits, bitorder="little"))


def is_order_fixed(program: Program, table: ClassTable, pairs: I64) -> bool:
    """Whether ends follow in order of id: nothing is ever contended, waited for in a pool, or held."""
    classes, blocking = program.classes, program.pools.blocking
    uses = classes.demand_capacity, classes.hold_capacity, blocking
    if program.structure.latest(_waits_or_holds, uses, lambda: _waits_or_holds(program)):
        return False
    workless = (np.diff(classes.demand_ptr) == 0) & (classes.delay == 0)
    if (np.repeat(workless, np.diff(classes.pool_ptr)) & (classes.pool_give > 0)).any():
        return False
    return _always_fits(program, table, pairs)


def _waits_or_holds(program: Program) -> bool:
    """Whether any class takes from a blocking pool, or holds what any demands."""
    classes = program.classes
    waits = program.pools.blocking[classes.pool_id] & (classes.pool_take > 0)
    demanded = np.zeros(len(program.capacities.names), np.bool_)
    demanded[classes.demand_capacity] = True
    return bool(waits.any() or demanded[classes.hold_capacity].any())


def play_in_order(program: Program, table: ClassTable, pairs: I64) -> Record:
    """Plays a Program whose order is fixed.

    Raises:
        SimulationError: An activity would end beyond the horizon.
    """
    count = program.num_activities
    start, end, ready = (np.empty(count, np.int64) for _ in range(3))
    limit, awaited, kind = (np.empty(count, np.int32) for _ in range(3))
    lengths = np.minimum(program.classes.delay + table.nominal, MAX_PICOSECONDS + 1)
    free, last = np.zeros(len(program.lanes.names), np.int64), np.full(len(program.lanes.names), -1, np.int32)
    culprit = _sweep(
        read_only(program.lane),
        read_only(program.cls),
        read_only(program.dep_ptr),
        read_only(program.dep),
        *(lengths, table.limit, free, last, ready, start, end, limit, awaited, kind),
    )
    if culprit >= 0:
        raise horizon_error(program, culprit, int(start[culprit]))
    peak, peak_time, final = _levels(program, start, end, pairs)
    empty = np.zeros(0, np.int64)
    return Record(
        ready=ready,
        start=start,
        end=end,
        awaited=awaited,
        awaited_kind=kind,
        limit=limit,
        segment_activity=empty.astype(np.int32),
        segment_start=empty,
        segment_limit=empty.astype(np.int32),
        segment_left=np.zeros(0),
        pool_peak=peak,
        pool_peak_time=peak_time,
        pool_final=final,
        makespan=int(end.max(initial=0)),
        num_events=count,
        player="compiled",
    )


def _always_fits(program: Program, table: ClassTable, pairs: I64) -> bool:
    """Whether on every capacity the greatest loads of the lanes add up to no more than its rate."""
    classes = program.classes
    lanes, cls = np.divmod(pairs, max(len(classes.labels), 1))
    sizes = np.diff(classes.demand_ptr)[cls].astype(np.int64)
    rows = np.repeat(classes.demand_ptr[cls] - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
    capacities = len(program.capacities.names)
    keys = np.repeat(lanes, sizes) * capacities + classes.demand_capacity[rows]
    if not keys.size:
        return True
    order = np.argsort(keys, kind="stable")
    firsts = np.flatnonzero(np.concatenate(([True], np.diff(keys[order]) > 0)))
    greatest = np.maximum.reduceat(table.load[rows][order], firsts)
    totals = np.zeros(capacities, np.int64)
    np.add.at(totals, keys[order][firsts] % capacities, greatest)
    return bool((totals <= room(1, 0)).all())


def _levels(program: Program, start: I64, end: I64, pairs: I64) -> tuple[I64, I64, I64]:
    """Peak, time of the peak and final level of each pool: at an instant, gifts before takes."""
    classes, pools = program.classes, program.pools
    level, peak, peak_time = pools.initial.copy(), pools.initial.copy(), np.zeros(len(pools.names), np.int64)
    if not classes.pool_id.size:
        return peak, peak_time, level
    lanes, cls = np.divmod(pairs, len(classes.labels))
    sizes = np.diff(classes.pool_ptr)[cls]
    rows = np.repeat(classes.pool_ptr[cls] - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
    users = np.zeros(len(pools.names), np.int64)
    used = np.unique(
        classes.pool_id[rows].astype(np.int64) * len(program.lanes.names) + np.repeat(lanes, sizes)
    )
    np.add.at(users, used // len(program.lanes.names), 1)
    alone = users <= 1
    _account(
        read_only(program.cls),
        start,
        read_only(classes.pool_ptr),
        read_only(classes.pool_id),
        read_only(classes.pool_take),
        read_only(classes.pool_give),
        *(alone, level, peak, peak_time),
    )
    for pool in np.flatnonzero(~alone):
        chosen = np.flatnonzero(classes.pool_id == pool)
        take, give = np.zeros(len(classes.labels), np.int64), np.zeros(len(classes.labels), np.int64)
        owners = np.searchsorted(classes.pool_ptr, chosen, side="right") - 1
        take[owners], give[owners] = classes.pool_take[chosen], classes.pool_give[chosen]
        takers, givers = np.flatnonzero(take[program.cls] > 0), np.flatnonzero(give[program.cls] > 0)
        times = np.concatenate((end[givers], start[takers]))
        changes = np.concatenate((-give[program.cls[givers]], take[program.cls[takers]]))
        order = np.argsort(times, kind="stable")
        levels = level[pool] + np.cumsum(changes[order])
        if levels.size:
            level[pool] = levels[-1]
            top = int(np.argmax(levels))
            if levels[top] > peak[pool]:
                peak[pool], peak_time[pool] = levels[top], times[order][top]
    return peak, peak_time, level


@entry
def _mark_pairs(lane: I32, cls: I32, count: int, bits: NDArray[np.uint8]) -> None:
    for activity in range(lane.shape[0]):
        pair = np.int64(lane[activity]) * count + cls[activity]
        bits[pair >> 3] |= np.uint8(1 << (pair & 7))


@entry
def _sweep(
    lane: I32,
    cls: I32,
    dep_ptr: I64,
    dep: I32,
    lengths: I64,
    limits: I32,
    free: I64,
    last: I32,
    ready: I64,
    start: I64,
    end: I64,
    limit: I32,
    awaited: I32,
    kind: I32,
) -> int:
    """Starts and ends of all activities in order of id; the first that ends beyond the horizon, or -1."""
    for activity in range(lane.shape[0]):
        latest, whom = np.int64(0), -1
        for row in range(dep_ptr[activity], dep_ptr[activity + 1]):
            other = dep[row]
            if end[other] > latest or (end[other] == latest and (whom < 0 or other < whom)):
                latest, whom = end[other], other
        mine, k = lane[activity], cls[activity]
        begun, reason = latest, WAIT_DEPENDENCY if whom >= 0 else WAIT_NONE
        if free[mine] > latest or (whom < 0 and last[mine] >= 0):
            begun, reason, whom = free[mine], WAIT_LANE, last[mine]
        ready[activity] = latest
        start[activity] = begun
        limit[activity] = limits[k]
        awaited[activity], kind[activity] = whom, reason
        if lengths[k] > MAX_PICOSECONDS - begun:
            return activity
        end[activity] = begun + lengths[k]
        free[mine] = begun + lengths[k]
        last[mine] = activity
    return -1


@entry
def _account(
    cls: I32,
    start: I64,
    pool_ptr: I32,
    pool_id: I32,
    pool_take: I64,
    pool_give: I64,
    alone: Any,
    level: I64,
    peak: I64,
    peak_time: I64,
) -> None:
    """Levels of pools that a single lane uses: there, order of id is order of time."""
    for activity in range(cls.shape[0]):
        for row in range(pool_ptr[cls[activity]], pool_ptr[cls[activity] + 1]):
            pool = pool_id[row]
            if alone[pool]:
                level[pool] += pool_take[row]
                if level[pool] > peak[pool]:
                    peak[pool], peak_time[pool] = level[pool], start[activity]
                level[pool] -= pool_give[row]
