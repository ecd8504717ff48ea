"""How the compiled player lays its state out: one structured array a kind of thing, all of it flat.

A lane runs one activity at a time, so what changes while an activity runs is kept once a lane.
An activity itself costs sixteen bytes beside the Program and the Record: who follows on its lane,
the first lane that waits for it, and how much comes after it on its lane.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.engine.program import I32, I64, Program, read_only
from simulator.engine.tables import ClassTable, room

Table = NDArray[Any]

WAITING: Final = 0
DELAYED: Final = 1
DRAWING: Final = 2
QUEUED: Final = 3
FINISHED: Final = 4
"""States of a lane: for dependencies, through its delay, at work, for room in a pool, through with all."""

NOBODY: Final = -2
"""Instead of the first lane that waits for an activity: none ever will."""

LONGEST_WAIT: Final = 1 << 58
"""Work ahead on a lane is counted no further than that [ps]: three days, and no sum of times overflows."""

MOST_NEAR: Final = 16
"""Lanes with which a lane may share capacities or pools and still be played in runs."""

NOW: Final = 0
HEAP: Final = 1
SEGMENTS: Final = 2
EVENTS: Final = 3
EPOCH: Final = 4
TOUCHED: Final = 5
FORCED: Final = 6
ELIGIBLE: Final = 7
INSTANT: Final = 8
PENDING: Final = 9
CULPRIT: Final = 10
WIDTH: Final = 11
BEGUN: Final = 12
COUNTERS: Final = 13
"""Fields of the array of counters: the clock, lengths of lists, whom an error names, slots a lane, and the
lane that began to draw last."""

GOING: Final = 0
ENDED: Final = 1
STOPPED: Final = 2
FULL: Final = 3
BEYOND: Final = 4
HELD: Final = 5
"""What the kernel says when it returns: go on, no events left, time to stop, no room for segments, errors."""

LANE: Final = np.dtype(
    [
        ("key", "i8"),  # time of its next event
        ("since", "i8"),  # beginning of the segment
        ("eligible", "i8"),  # when its turn came
        ("cursor", "i8"),  # next dependency to look at
        ("left", "f8"),
        ("span", "f8"),
        ("share", "f8"),
        ("next_share", "f8"),  # negative while a solution is sought
        ("weight", "f8"),
        ("activity", "i4"),
        ("cls", "i4"),
        ("place", "i4"),  # in the heap, -1 outside
        ("next_waiter", "i4"),
        ("previous_waiter", "i4"),
        ("mark", "i4"),  # epoch of the last solution that reached it
        ("next_limit", "i4"),
        ("state", "i4"),
        ("forced", "i4"),
        ("near", "i4"),  # lanes with which it shares something
        ("near_end", "i4"),  # before the first of them where they are too many
    ],
    align=True,
)
SLOT: Final = np.dtype(
    [("usage", "f8"), ("next", "i4"), ("previous", "i4"), ("activity", "i4"), ("lane", "i4")], align=True
)
LINK: Final = np.dtype([("ahead", "i8"), ("follower", "i4"), ("waiter", "i4")])
SEGMENT: Final = np.dtype([("start", "i8"), ("left", "f8"), ("activity", "i4"), ("limit", "i4")], align=True)
LISTS: Final = np.dtype(
    [
        ("key", "i8"),
        ("heap", "i4"),
        ("eligible", "i4"),
        ("instant", "i4"),
        ("component", "i4"),
        ("forced", "i4"),
    ],
    align=True,
)
CAPACITY: Final = np.dtype(
    [
        ("rate", "i8"),
        ("held", "i8"),
        ("load", "i8"),
        ("room", "i8"),
        ("level", "f8"),  # negative when everyone on it is frozen
        ("head", "i4"),
        ("tail", "i4"),
        ("mark", "i4"),
        ("hot", "i4"),
        ("was_hot", "i4"),
        ("touched", "i4"),
        ("stale", "i4"),
        ("touched_list", "i4"),  # the first few rows list the touched capacities
        ("hot_list", "i4"),  # and the hot ones of a component
    ],
    align=True,
)
CLASS: Final = np.dtype(
    [
        ("delay", "i8"),
        ("nominal", "i8"),
        ("weight", "f8"),
        ("demand", "i4"),
        ("demand_end", "i4"),
        ("hold", "i4"),
        ("hold_end", "i4"),
        ("pool", "i4"),
        ("pool_end", "i4"),
        ("limit", "i4"),
        ("queue", "i4"),  # pool whose queue it joins, -1 if it takes from no blocking pool
        ("plain", "i4"),  # nothing but a delay, demands and pools that do not block
    ],
    align=True,
)
DEMAND: Final = np.dtype([("load", "i8"), ("usage", "f8"), ("capacity", "i4")], align=True)
HOLD: Final = np.dtype([("amount", "i8"), ("capacity", "i4")], align=True)
DELTA: Final = np.dtype([("take", "i8"), ("give", "i8"), ("pool", "i4")], align=True)
POOL: Final = np.dtype(
    [
        ("level", "i8"),
        ("limit", "i8"),
        ("peak", "i8"),
        ("peak_time", "i8"),
        ("giver_time", "i8"),
        ("giver", "i4"),
        ("first", "i4"),
        ("last", "i4"),
        ("pending", "i4"),
        ("blocking", "i4"),
        ("pending_list", "i4"),  # the first few rows list the pools to serve
    ],
    align=True,
)


class State(NamedTuple):
    """Everything that the kernel works on; it can stop at any instant and go on from there."""

    lane: I32
    cls: I32
    dep_ptr: I64
    dep: I32
    start: I64
    end: I64
    limit: I32
    awaited: I32
    links: Table
    classes: Table
    demands: Table
    holds: Table
    deltas: Table
    lanes: Table
    slots: Table
    capacities: Table
    pools: Table
    segments: Table
    lists: Table
    near: I32
    counters: I64


def lay_out(program: Program, table: ClassTable, pairs: I64 | None = None) -> State:
    """The state before anything has happened.

    Args:
        program: What is to be played.
        table: Its figures.
        pairs: Which classes stand on which lanes (lane * classes + class), in order; without them
            nothing is played in runs.
    """
    count, num_lanes = program.num_activities, len(program.lanes.names)
    classes, demands, holds, deltas = _lay_out_classes(program, table)
    pools = _lay_out_pools(program)
    pools["blocking"][-1] = (classes["queue"] == len(pools) - 1).any()
    counters = np.zeros(COUNTERS, np.int64)
    counters[WIDTH] = (classes["demand_end"] - classes["demand"]).max(initial=0)
    counters[BEGUN] = -1
    lanes, slots = _lay_out_lanes(program, int(counters[WIDTH]))
    return State(
        lane=read_only(program.lane),
        cls=read_only(program.cls),
        dep_ptr=read_only(program.dep_ptr),
        dep=read_only(program.dep),
        start=np.full(count, -1, np.int64),
        end=np.full(count, -1, np.int64),
        limit=np.full(count, -1, np.int32),
        awaited=np.full(count, -1, np.int32),
        links=np.empty(count, LINK),
        classes=classes,
        demands=demands,
        holds=holds,
        deltas=deltas,
        lanes=lanes,
        slots=slots,
        capacities=_lay_out_capacities(program),
        pools=pools,
        segments=np.zeros(max(num_lanes, 1024), SEGMENT),
        lists=np.zeros(num_lanes, LISTS),
        near=_find_near(program, lanes, pairs),
        counters=counters,
    )


def _lay_out_classes(program: Program, table: ClassTable) -> tuple[Table, Table, Table, Table]:
    """Classes, demands, holds and pool deltas of a Program."""
    source = program.classes
    used = source.weight, source.demand_ptr, source.demand_capacity, source.hold_ptr, source.hold_capacity
    blank = program.structure.latest(_blank, (*used, program.pools.blocking), lambda: _blank(program))
    classes, demands, holds = (array.copy() for array in blank[:3])
    classes["delay"], holds["amount"] = source.delay, source.hold_amount
    refresh_classes(classes, demands, table)
    return classes, demands, holds, blank[3]


def _blank(program: Program) -> tuple[Table, Table, Table, Table]:
    """The same without prices."""
    source = program.classes
    classes = np.zeros(len(source.labels), CLASS)
    classes["weight"] = source.weight
    for name, pointers in (
        ("demand", source.demand_ptr),
        ("hold", source.hold_ptr),
        ("pool", source.pool_ptr),
    ):
        classes[name], classes[f"{name}_end"] = pointers[:-1], pointers[1:]
    takers, taken = _waits(program)
    classes["queue"] = -1
    classes["queue"][takers] = taken
    if (np.bincount(takers, minlength=1) > 1).any():
        classes["queue"][takers] = len(program.pools.names)
    demands = np.zeros(source.demand_amount.shape[0], DEMAND)
    demands["capacity"] = source.demand_capacity
    holds = np.zeros(source.hold_amount.shape[0], HOLD)
    holds["capacity"] = source.hold_capacity
    deltas = np.zeros(source.pool_id.shape[0], DELTA)
    deltas["pool"], deltas["take"], deltas["give"] = source.pool_id, source.pool_take, source.pool_give
    blocking = np.zeros(len(classes), np.bool_)
    owners = np.repeat(np.arange(len(classes)), np.diff(source.pool_ptr))
    blocking[owners[program.pools.blocking[source.pool_id]]] = True
    drawing = np.diff(source.demand_ptr) > 0
    classes["plain"] = drawing & (np.diff(source.hold_ptr) == 0) & ~blocking
    return classes, demands, holds, deltas


def refresh_classes(classes: Table, demands: Table, table: ClassTable) -> None:
    """Takes over what depends on the base rates."""
    classes["nominal"], classes["limit"] = table.nominal, table.limit
    demands["load"], demands["usage"] = table.load, table.usage


def _waits(program: Program) -> tuple[NDArray[np.int64], I32]:
    """Classes that take from blocking pools, and which."""
    classes = program.classes
    rows = np.flatnonzero(program.pools.blocking[classes.pool_id] & (classes.pool_take > 0))
    return np.searchsorted(classes.pool_ptr, rows, side="right") - 1, classes.pool_id[rows]


def _lay_out_capacities(program: Program) -> Table:
    """Capacities on which nobody draws yet."""
    capacities = np.zeros(len(program.capacities.names), CAPACITY)
    capacities["rate"] = program.capacities.rates
    capacities["room"] = room(1, 0)
    capacities["head"] = capacities["tail"] = -1
    return capacities


def _lay_out_pools(program: Program) -> Table:
    """Pools at their initial level, and behind them a queue for all.

    It is used where a class takes from several blocking pools: then who is granted first in one
    may decide who waits in another.
    """
    pools = np.zeros(len(program.pools.names) + 1, POOL)
    pools["limit"][:-1], pools["blocking"][:-1] = program.pools.limits, program.pools.blocking
    for name in ("level", "peak"):
        pools[name][:-1] = program.pools.initial
    pools["first"] = pools["last"] = pools["giver"] = pools["giver_time"] = -1
    return pools


def _lay_out_lanes(program: Program, width: int) -> tuple[Table, Table]:
    """Lanes without an activity, and the slots by which they stand in the lists of capacities."""
    lanes = np.zeros(len(program.lanes.names), LANE)
    for name in ("activity", "place", "next_waiter"):
        lanes[name] = -1
    return lanes, np.zeros(len(lanes) * width, SLOT)


def _find_near(program: Program, lanes: Table, pairs: I64 | None) -> I32:
    """For each lane those that draw on, hold or take from anything that it does; lanes learn where they are.

    A lane with more than `MOST_NEAR` of them, or one of many on the same thing, gets a negative end.
    """
    if pairs is None:
        lanes["near_end"] = -1
        return np.zeros(0, np.int32)
    classes = program.classes
    used = (classes.demand_ptr, classes.demand_capacity, classes.hold_ptr, classes.hold_capacity)
    near, lanes["near"], lanes["near_end"] = program.structure.latest(
        _near, used, lambda: _near(program, pairs)
    )
    return near


def _near(program: Program, pairs: I64) -> tuple[I32, I32, I32]:
    """Near lanes of all lanes behind one another, and where those of each begin and end."""
    count = len(program.lanes.names)
    on, what = _uses(program, pairs)
    crowded = np.zeros(count, np.bool_)
    crowded[on[np.bincount(what)[what] > MOST_NEAR + 1]] = True
    few = ~crowded[on]
    on, what = on[few], what[few]
    # Everybody on a thing beside everybody on it: rows of a thing are as many as each of them has couples.
    sizes = np.bincount(what)
    couples = sizes[what]
    first = np.repeat((np.cumsum(sizes) - sizes)[what] - np.cumsum(couples) + couples, couples)
    one, other = np.repeat(on, couples), on[first + np.arange(len(first))]
    apart = one != other
    lane, near = np.divmod(_distinct(one[apart] * count + other[apart]), count)
    ends = np.searchsorted(lane, np.arange(count), side="right").astype(np.int32)
    begins = np.concatenate(([np.int32(0)], ends[:-1]))
    few = ~crowded & (ends - begins <= MOST_NEAR)
    return near.astype(np.int32), begins, np.where(few, ends, np.int32(-1))


def _uses(program: Program, pairs: I64) -> tuple[I64, I64]:
    """Lanes and what they use, each once, in order of what: capacities, behind them pools."""
    classes, count = program.classes, len(program.lanes.names)
    on, cls = np.divmod(pairs, max(len(classes.labels), 1))
    found = []
    for pointers, things, first in (
        (classes.demand_ptr, classes.demand_capacity, 0),
        (classes.hold_ptr, classes.hold_capacity, 0),
        (classes.pool_ptr, classes.pool_id, len(program.capacities.names)),
    ):
        sizes = np.diff(pointers)[cls].astype(np.int64)
        rows = np.repeat(pointers[cls] - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
        found.append((first + things[rows].astype(np.int64)) * count + np.repeat(on, sizes))
    what, lane = np.divmod(_distinct(np.concatenate(found)), count)
    return lane, what


def _distinct(numbers: I64) -> I64:
    """Each number once, in order; faster than `np.unique` where there are few."""
    numbers.sort()
    new = np.ones(len(numbers), np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=new[1:])
    return numbers[new]
