"""Laws that every record obeys, whoever played it; the tests of every room lean on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.engine.history import previous_on_lane
from simulator.engine.program import I64, Program
from simulator.engine.record import WAIT_DEPENDENCY, WAIT_LANE, WAIT_NONE, WAIT_POOL, Record
from simulator.engine.tables import ClassTable
from simulator.errors import SimulationError
from simulator.units import PICOSECONDS

F64 = NDArray[np.float64]

USE_TOLERANCE = 1e-6
"""Relative excess of use over a capacity's rate that rounding to picoseconds may feign."""


class ConservationError(SimulationError):
    """A record that breaks a law: time, bytes or pool contents came from nowhere or got lost."""


def check_conservation(
    program: Program, record: Record, rate_changes: Sequence[tuple[int, int, int]] = ()
) -> None:
    """Refuses a record that cannot be a history of a Program.

    Every activity ran once, 0 <= ready <= start <= end; lanes ran one at a time and in order; dependencies
    held; on each lane busy + waiting by cause = makespan, and each cause ended when the wait did; pools
    end at initial + takes - gives, never below zero and, where they block, never above their limit; all
    work was done, and no capacity was used beyond its rate less what was held.

    Raises:
        ConservationError: Names the first law that is broken.
    """
    _check_times(program, record)
    _check_causes(program, record)
    _check_lanes(program, record)
    _check_pools(program, record)
    _check_use(program, record, rate_changes)


def lane_times(program: Program, record: Record) -> I64:
    """Where the makespan of each lane went [ps].

    Returns:
        Shape [lanes, 6]: waiting for nothing (not yet submitted), a dependency, the lane, a pool (columns as
        the ``WAIT_`` constants), busy, and idle after the lane's last activity.
    """
    times = np.zeros((len(program.lanes.names), 6), np.int64)
    previous = previous_on_lane(program)
    free = np.where(previous >= 0, record.end[previous], 0) if record.end.size else record.end
    np.add.at(times, (program.lane, record.awaited_kind), record.start - free)
    np.add.at(times[:, 4], program.lane, record.end - record.start)
    last = np.zeros(len(times), np.int64)
    np.maximum.at(last, program.lane, record.end)
    times[:, 5] = record.makespan - last
    return times


def segments(program: Program, record: Record) -> dict[str, NDArray[Any]]:
    """The stretches of constant speed of all activities with a demand, in order of (activity, time).

    Returns:
        Columns ``activity``, ``start`` and ``end`` [ps], ``work`` (part of the activity's work done, 0 to 1)
        and ``limit`` (the capacity that bounds it).
    """
    having = np.flatnonzero(record.limit >= 0)
    activity = np.concatenate((having, record.segment_activity))
    order = np.argsort(activity, kind="stable")
    activity = activity[order]
    begin = record.start[having] + program.classes.delay[program.cls[having]]
    start = np.concatenate((begin, record.segment_start))[order]
    left = np.concatenate((np.ones(having.size), record.segment_left))[order]
    limit = np.concatenate((record.limit[having], record.segment_limit))[order]
    last = np.append(activity[1:] != activity[:-1], True) if activity.size else np.zeros(0, np.bool_)
    end = np.where(last, record.end[activity], np.append(start[1:], 0)[: start.size])
    work = left - np.where(last, 0.0, np.append(left[1:], 0.0)[: left.size])
    return {"activity": activity, "start": start, "end": end, "work": work, "limit": limit}


def _require(holds: Any, law: str) -> None:
    wrong = np.flatnonzero(~np.asarray(holds))
    if wrong.size:
        raise ConservationError(f"{law}: broken by {wrong.size}, the first is {wrong[0]}")


def _check_times(program: Program, record: Record) -> None:
    count = program.num_activities
    for name in ("ready", "start", "end", "awaited", "awaited_kind", "limit"):
        if getattr(record, name).shape != (count,):
            raise ConservationError(f"{name} does not have one entry an activity")
    _require((record.ready >= 0) & (record.ready <= record.start), "0 <= ready <= start")
    least = program.classes.delay[program.cls] + (record.limit >= 0)
    _require(record.start + least <= record.end, "start + delay <= end, and work takes time")
    _require((record.limit >= 0) == (np.diff(program.classes.demand_ptr)[program.cls] > 0), "limit if demand")
    owner = np.repeat(np.arange(count), np.diff(program.dep_ptr))
    _require(record.end[program.dep] <= record.ready[owner], "dependencies ended before")
    if record.makespan != record.end.max(initial=0):
        raise ConservationError("the makespan is the end of the last activity")


def _check_causes(program: Program, record: Record) -> None:
    kind, whom = record.awaited_kind, record.awaited
    _require((kind == WAIT_NONE) == (whom < 0), "who awaits names whom")
    _require((kind == WAIT_NONE) | (record.end[whom] == record.start), "the cause ended when the wait did")
    _require((kind != WAIT_LANE) | (whom == previous_on_lane(program)), "the lane's cause is the one before")
    owner = np.repeat(np.arange(whom.size), np.diff(program.dep_ptr))
    among = np.zeros(whom.size, np.bool_)
    among[owner[program.dep == whom[owner]]] = True
    _require((kind != WAIT_DEPENDENCY) | among, "a dependency awaited is one")
    classes = program.classes
    for activity in np.flatnonzero(kind == WAIT_POOL):
        took = _pools_of(program, int(activity), classes.pool_take)
        gave = _pools_of(program, int(whom[activity]), classes.pool_give)
        if not any(program.pools.blocking[pool] for pool in took & gave):
            raise ConservationError(
                f"activity {activity} awaited a pool that {whom[activity]} gave nothing to"
            )


def _pools_of(program: Program, activity: int, amounts: I64) -> set[int]:
    cls = program.cls[activity]
    rows = np.arange(program.classes.pool_ptr[cls], program.classes.pool_ptr[cls + 1])
    return set(program.classes.pool_id[rows[amounts[rows] > 0]].tolist())


def _check_lanes(program: Program, record: Record) -> None:
    previous = previous_on_lane(program)
    following = previous >= 0
    _require(~following | (record.end[previous] <= record.start), "lanes run one activity at a time")
    times = lane_times(program, record)
    _require(times.sum(axis=1) == record.makespan, "busy + waiting by cause = makespan")
    _require((times >= 0).all(axis=1), "no time is negative")


def _check_pools(program: Program, record: Record) -> None:
    classes, pools = program.classes, program.pools
    rows, owners = _spread(classes.pool_ptr, program.cls)
    pool = np.concatenate((classes.pool_id[rows], classes.pool_id[rows]))
    times = np.concatenate((record.start[owners], record.end[owners]))
    change = np.concatenate((classes.pool_take[rows], -classes.pool_give[rows]))
    pool, times, level, final = _running_totals(pool, times, change)
    level = level + pools.initial[pool]
    totals = pools.initial.copy()
    np.add.at(totals, pool[final], level[final] - pools.initial[pool[final]])
    _require(record.pool_final == totals, "pools end at initial + takes - gives")
    _require(level >= 0, "no pool holds less than nothing")
    _require(~pools.blocking[pool] | (level <= pools.limits[pool]), "a blocking pool is never overdrawn")
    _require(level <= record.pool_peak[pool], "no pool is above its peak")


def _check_use(program: Program, record: Record, rate_changes: Sequence[tuple[int, int, int]]) -> None:
    classes = program.classes
    table = ClassTable(classes, program.capacities.rates)
    parts = segments(program, record)
    cls = program.cls[parts["activity"]]
    nominal = table.nominal[cls]
    for at_ps, capacity, rate in sorted(rate_changes, key=lambda change: change[0]):
        table.change_rate(capacity, rate)
        nominal = np.where(parts["start"] >= at_ps, table.nominal[cls], nominal)
    _require(parts["work"] >= 0, "work is not undone")
    lasting = parts["end"] - parts["start"]
    _require(lasting > 0, "every segment lasts")
    share = parts["work"] * nominal / lasting
    noise = 4e-16 * nominal / lasting
    _require(share <= 1 + USE_TOLERANCE + noise, "nobody is faster than alone")
    rows, owners = _spread(classes.demand_ptr, cls)
    amounts = classes.demand_amount[rows] / lasting[owners] * float(PICOSECONDS)
    use = amounts * np.maximum(parts["work"][owners] - 4e-16, 0.0)
    held_rows, holders = _spread(classes.hold_ptr, program.cls)
    held = classes.hold_amount[held_rows].astype(np.float64)
    drops = _rate_drops(program, rate_changes)
    drawn, holding = classes.demand_capacity[rows], classes.hold_capacity[held_rows]
    begins, ends = parts["start"][owners], parts["end"][owners]
    where, _, total, _ = _running_totals(
        np.concatenate((drawn, drawn, holding, holding, drops[0])),
        np.concatenate((begins, ends, record.start[holders], record.end[holders], drops[1])),
        np.concatenate((use, -use, held, -held, drops[2])),
    )
    rates = program.capacities.rates[where].astype(np.float64)
    scale = max([1.0, *(change[2] / float(program.capacities.rates[change[1]]) for change in rate_changes)])
    _require(total <= rates * (1 + USE_TOLERANCE * scale), "no capacity is used beyond its rate")


def _rate_drops(program: Program, rate_changes: Sequence[tuple[int, int, int]]) -> tuple[I64, I64, F64]:
    """Timed changes of rates as (capacity, time, what the rate falls by)."""
    rates = program.capacities.rates.tolist()
    rows = []
    for at_ps, capacity, rate in sorted(rate_changes, key=lambda change: change[0]):
        rows.append((capacity, at_ps, rates[capacity] - rate))
        rates[capacity] = rate
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2].astype(np.float64)


def _spread(pointers: NDArray[Any], cls: NDArray[Any]) -> tuple[I64, I64]:
    """Rows of the classes given, one after another, and the position of the class that each belongs to."""
    sizes = np.diff(pointers)[cls].astype(np.int64)
    owners = np.repeat(np.arange(sizes.size), sizes)
    firsts = np.cumsum(sizes) - sizes
    return np.arange(owners.size) - firsts[owners] + pointers[cls][owners], owners


def _running_totals(
    keys: NDArray[Any], times: I64, changes: NDArray[Any]
) -> tuple[NDArray[Any], I64, NDArray[Any], NDArray[np.bool_]]:
    """Totals by key after each instant: keys, times, totals, and whether it is the key's last."""
    order = np.lexsort((times, keys))
    keys, times, totals = keys[order], times[order], np.cumsum(changes[order])
    if not keys.size:
        return keys, times, totals, np.zeros(0, np.bool_)
    last_of_key = np.append(keys[1:] != keys[:-1], True)
    before = np.concatenate(([0], totals[last_of_key][:-1]))
    totals = totals - before[np.cumsum(last_of_key) - last_of_key]
    closing = last_of_key | np.append(times[1:] != times[:-1], True)
    return keys[closing], times[closing], totals[closing], last_of_key[closing]
