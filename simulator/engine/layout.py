"""How the compiled player lays its state out: one structured array a kind of thing, all of it flat.

A lane runs one activity at a time, so what changes while an activity runs is kept once a lane.
An activity itself costs eight bytes beside the Program and the Record: who follows on its lane,
and the first lane that waits for it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.engine.program import I32, I64, Program
from simulator.engine.tables import ClassTable, room

Table = NDArray[Any]

WAITING: Final = 0
DELAYED: Final = 1
DRAWING: Final = 2

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
COUNTERS: Final = 12
"""Fields of the array of counters: the clock, lengths of lists, whom an error names, slots a lane."""

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
    ],
    align=True,
)
SLOT: Final = np.dtype(
    [("usage", "f8"), ("next", "i4"), ("previous", "i4"), ("activity", "i4"), ("lane", "i4")], align=True
)
LINK: Final = np.dtype([("follower", "i4"), ("waiter", "i4")])
SEGMENT: Final = np.dtype([("start", "i8"), ("left", "f8"), ("activity", "i4"), ("limit", "i4")], align=True)
LISTS: Final = np.dtype(
    [("heap", "i4"), ("eligible", "i4"), ("instant", "i4"), ("component", "i4"), ("forced", "i4")], align=True
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
    counters: I64


def lay_out(program: Program, table: ClassTable) -> State:
    """The state before anything has happened."""
    count, num_lanes = program.num_activities, len(program.lanes.names)
    classes, demands, holds, deltas = _lay_out_classes(program, table)
    pools = _lay_out_pools(program)
    if (np.bincount(_waits(program)[0], minlength=1) > 1).any():
        pools["blocking"][-1] = 1
        classes["queue"][classes["queue"] >= 0] = len(pools) - 1
    counters = np.zeros(COUNTERS, np.int64)
    counters[WIDTH] = (classes["demand_end"] - classes["demand"]).max(initial=0)
    lanes, slots = _lay_out_lanes(program, int(counters[WIDTH]))
    links = np.empty(count, LINK)
    links["follower"] = links["waiter"] = -1
    return State(
        cls=program.cls,
        dep_ptr=program.dep_ptr,
        dep=program.dep,
        start=np.full(count, -1, np.int64),
        end=np.full(count, -1, np.int64),
        limit=np.full(count, -1, np.int32),
        awaited=np.full(count, -1, np.int32),
        links=links,
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
        counters=counters,
    )


def _lay_out_classes(program: Program, table: ClassTable) -> tuple[Table, Table, Table, Table]:
    """Classes, demands, holds and pool deltas of a Program."""
    source = program.classes
    classes = np.zeros(len(source.labels), CLASS)
    classes["delay"], classes["weight"] = source.delay, source.weight
    for name, pointers in (
        ("demand", source.demand_ptr),
        ("hold", source.hold_ptr),
        ("pool", source.pool_ptr),
    ):
        classes[name], classes[f"{name}_end"] = pointers[:-1], pointers[1:]
    takers, taken = _waits(program)
    classes["queue"] = -1
    classes["queue"][takers] = taken
    demands = np.zeros(source.demand_amount.shape[0], DEMAND)
    demands["capacity"] = source.demand_capacity
    holds = np.zeros(source.hold_amount.shape[0], HOLD)
    holds["capacity"], holds["amount"] = source.hold_capacity, source.hold_amount
    deltas = np.zeros(source.pool_id.shape[0], DELTA)
    deltas["pool"], deltas["take"], deltas["give"] = source.pool_id, source.pool_take, source.pool_give
    refresh_classes(classes, demands, table)
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
