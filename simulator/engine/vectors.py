"""Many copies of one Program at once: a vector of times for every activity.

Copies (replicas, draws) differ in how long their activities take, and wait for one another where they *meet*.
Where in every copy nothing is ever contended, an activity starts when the one before it on its lane and its
dependencies have ended, and a sweep in order of id finds all ends. Times are whole picoseconds held in
doubles, exact up to 2^53 ps (2.5 hours). Importing this module imports numba.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.engine.jit import entry, inner
from simulator.engine.program import I32, I64, Program
from simulator.engine.tables import ClassTable, room

F64 = NDArray[np.float64]

LAST_EXACT: Final = float(2**53)
"""Picoseconds up to which a double holds every whole number."""


def contention(program: Program, shared: I64) -> str:
    """Why copies of a Program cannot be swept as vectors; empty where they can.

    They can where the order of all that could contend is proven: whenever two lanes draw on a capacity
    that cannot serve the greatest loads of all its lanes at once, or one holds what the other draws,
    each activity of the one has, by dependencies and order on lanes, the last of the other before it
    among its ancestors. What copies share must serve all of them at full speed.

    Args:
        program: The folded Program, whose amounts on shared capacities are those of all copies.
        shared: Ids of the capacities that all copies share.
    """
    table = ClassTable(program.classes, program.capacities.rates)
    classes, lanes, capacities = program.classes, len(program.lanes.names), len(program.capacities.names)
    if (program.pools.blocking[classes.pool_id] & (classes.pool_take > 0)).any():
        return "activities wait for room in pools"
    used = np.unique(program.lane.astype(np.int64) * len(classes.labels) + program.cls)
    lane, cls = np.divmod(used, max(len(classes.labels), 1))
    load = np.zeros((capacities, lanes), np.int64)
    held = np.zeros((capacities, lanes), np.bool_)
    for on, kind in zip(lane.tolist(), cls.tolist(), strict=True):
        rows = slice(classes.demand_ptr[kind], classes.demand_ptr[kind + 1])
        np.maximum.at(load, (classes.demand_capacity[rows], on), table.load[rows])
        held[classes.hold_capacity[classes.hold_ptr[kind] : classes.hold_ptr[kind + 1]], on] = True
    crowded = load.sum(axis=1) > room(1, 0)
    limited = np.zeros(capacities, np.bool_)
    limited[table.limit[cls][table.limit[cls] >= 0]] = True
    for capacity in shared:
        if crowded[capacity] or limited[capacity] or held[capacity].any():
            return f"copies contend for {program.capacities.names[capacity]}"
    users = (load > 0) | held
    users[~(crowded | held.any(axis=1))] = False
    user_ptr = np.concatenate(([0], np.cumsum(users.sum(axis=1)))).astype(np.int64)
    known = np.full((program.num_activities, lanes), -1, np.int32)
    drew, holding = (np.full((capacities, lanes), -1, np.int32) for _ in range(2))
    last = np.full(lanes, -1, np.int32)
    user: I32 = np.nonzero(users)[1].astype(np.int32)
    columns = (program.lane, program.cls, program.dep_ptr, program.dep)
    draws, holds = (classes.demand_ptr, classes.demand_capacity), (classes.hold_ptr, classes.hold_capacity)
    culprit, other, capacity = _first_unordered(
        *columns, *draws, *holds, user_ptr, user, crowded, known, drew, holding, last
    )
    if culprit < 0:
        return ""
    names, what = program.lanes.names, program.capacities.names[capacity]
    return f"{names[program.lane[culprit]]} and {names[other]} contend for {what}"


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """How a Program is swept: whose ends each activity waits for, and where vectors are kept.

    Attributes:
        pred_ptr: Shape [N+1].
        pred: Slots to wait for, in compressed rows.
        slot: Slot that the ends of each activity are kept in while anything waits for them, shape [N].
        slots: Slots in all.
    """

    pred_ptr: I64
    pred: I32
    slot: I32
    slots: int


def plan_vectors(program: Program) -> VectorPlan:
    """Lays out the vectors of a Program; done once for all draws."""
    count = program.num_activities
    pred_ptr = np.zeros(count + 1, np.int64)
    pred = np.empty(len(program.dep) + count, np.int32)
    slot = np.empty(count, np.int32)
    last_use, free = np.full(count, -1, np.int64), np.empty(count, np.int32)
    before = np.full(len(program.lanes.names), -1, np.int32)
    slots = _allocate(
        *(program.lane, program.dep_ptr, program.dep, before.copy(), before, last_use, free),
        *(pred_ptr, pred, slot),
    )
    return VectorPlan(pred_ptr, pred[: pred_ptr[-1]], slot, slots)


def sweep_vectors(
    plan: VectorPlan,
    lengths: F64,
    factors: F64,
    *,
    row: I32,
    meet: I32,
    groups: I32,
    mark: I32,
    marks: int,
    ends: F64 | None = None,
) -> F64:
    """Plays all copies; an activity takes ceil(factor * length) picoseconds.

    Args:
        plan: From `plan_vectors`.
        lengths: Picoseconds of each activity in an undisturbed copy, shape [N].
        factors: Shape [rows, V]; V is a multiple of the copies that may meet.
        row: Row of `factors` that stretches each activity, -1 for none, shape [N].
        meet: Which row of `groups` says what copies of an activity start together, when all of them
            could; -1 for none, shape [N].
        groups: Group of each copy, from 0, shape [rows, copies]; elements 0 to copies - 1 of a vector
            may meet, the next ones, and so on.
        mark: Which mark notes the end of each activity, -1 for none, shape [N].
        marks: Number of marks.
        ends: If given, takes the end of every activity, shape [N, V].

    Returns:
        The latest end of each mark's activities in each copy [ps], shape [marks, V].
    """
    width = factors.shape[1]
    kept = np.zeros((plan.slots + 3, width))  # behind the slots: the beginning, and room to work in
    noted = np.zeros((marks, width))
    everything = np.zeros((0, width)) if ends is None else ends
    _sweep_vectors(
        *(plan.pred_ptr, plan.pred, plan.slot, lengths, row, factors, meet, groups),
        *(mark, kept, noted, everything),
    )
    return noted


@entry
def _first_unordered(
    lane: I32,
    cls: I32,
    dep_ptr: I64,
    dep: I32,
    demand_ptr: I32,
    demand: I32,
    hold_ptr: I32,
    hold: I32,
    user_ptr: I64,
    user: I32,
    crowded: NDArray[np.bool_],
    known: I32,
    drew: I32,
    holding: I32,
    last: I32,
) -> tuple[int, int, int]:
    """The first activity that is not ordered behind all that it could contend with; the lane, the capacity.

    `known` tells for each activity the last on each lane among its ancestors; `drew` and `holding` the last
    on each lane so far that drew on a capacity, and that held some of it.
    """
    for activity in range(lane.shape[0]):
        mine, k = lane[activity], cls[activity]
        _learn(activity, lane, dep_ptr, dep, last, known)
        for row in range(demand_ptr[k], demand_ptr[k + 1]):
            capacity = demand[row]
            for place in range(user_ptr[capacity], user_ptr[capacity + 1]):
                other = user[place]
                behind = holding[capacity, other]
                if crowded[capacity] and drew[capacity, other] > behind:
                    behind = drew[capacity, other]
                if other != mine and behind > known[activity, other]:
                    return activity, other, capacity
            drew[capacity, mine] = activity
        for row in range(hold_ptr[k], hold_ptr[k + 1]):
            capacity = hold[row]
            for place in range(user_ptr[capacity], user_ptr[capacity + 1]):
                other = user[place]
                if other != mine and drew[capacity, other] > known[activity, other]:
                    return activity, other, capacity
            holding[capacity, mine] = activity
        last[mine] = activity
    return -1, -1, -1


@inner
def _learn(activity: int, lane: I32, dep_ptr: I64, dep: I32, last: I32, known: I32) -> None:
    """Notes the last activity on each lane among an activity's ancestors."""
    before = last[lane[activity]]
    if before >= 0:
        for other in range(known.shape[1]):
            known[activity, other] = known[before, other]
        known[activity, lane[activity]] = before
    for place in range(dep_ptr[activity], dep_ptr[activity + 1]):
        source = dep[place]
        for other in range(known.shape[1]):
            known[activity, other] = max(known[activity, other], known[source, other])
        known[activity, lane[source]] = max(known[activity, lane[source]], source)


@entry
def _allocate(
    lane: I32,
    dep_ptr: I64,
    dep: I32,
    last: I32,
    before: I32,
    last_use: I64,
    free: I32,
    pred_ptr: I64,
    pred: I32,
    slot: I32,
) -> int:
    """Gives each activity a slot until the last that waits for it; the latest freed one, for the caches."""
    for activity in range(lane.shape[0]):
        mine = lane[activity]
        if last[mine] >= 0:
            last_use[last[mine]] = activity
        last[mine] = activity
        for place in range(dep_ptr[activity], dep_ptr[activity + 1]):
            last_use[dep[place]] = activity
    num_free, used, filled = 0, 0, 0
    pred_ptr[0] = 0
    for activity in range(lane.shape[0]):
        mine = lane[activity]
        previous = before[mine]
        if previous >= 0:
            pred[filled] = slot[previous]
            filled += 1
            if last_use[previous] == activity:
                last_use[previous] = -2
                free[num_free] = slot[previous]
                num_free += 1
        for place in range(dep_ptr[activity], dep_ptr[activity + 1]):
            source = dep[place]
            if source == previous:
                continue
            pred[filled] = slot[source]
            filled += 1
            if last_use[source] == activity:
                last_use[source] = -2
                free[num_free] = slot[source]
                num_free += 1
        pred_ptr[activity + 1] = filled
        if num_free > 0:
            num_free -= 1
            slot[activity] = free[num_free]
        else:
            slot[activity] = used
            used += 1
        if last_use[activity] == -1:
            free[num_free] = slot[activity]
            num_free += 1
        before[mine] = activity
    return used


@inner
def _join(kept: F64, pred: I32, low: int, high: int, work: int) -> None:
    """The later of all predecessors, copy by copy."""
    first, second = pred[low], pred[low + 1]
    for x in range(kept.shape[1]):
        a, b = kept[first, x], kept[second, x]
        kept[work, x] = a if a > b else b
    for place in range(low + 2, high):
        second = pred[place]
        for x in range(kept.shape[1]):
            a, b = kept[work, x], kept[second, x]
            kept[work, x] = a if a > b else b


@inner
def _meet(kept: F64, first: int, work: int, groups: I32, row: int) -> None:
    """The latest of all copies in a group, for each of them."""
    copies = groups.shape[1]
    latest = work + 1
    for begin in range(0, kept.shape[1], copies):
        for x in range(copies):
            kept[latest, x] = 0.0
        for x in range(copies):
            group = groups[row, x]
            if kept[first, begin + x] > kept[latest, group]:
                kept[latest, group] = kept[first, begin + x]
        for x in range(copies):
            kept[work, begin + x] = kept[latest, groups[row, x]]


@entry
def _sweep_vectors(
    pred_ptr: I64,
    pred: I32,
    slot: I32,
    lengths: F64,
    row: I32,
    factors: F64,
    meet: I32,
    groups: I32,
    mark: I32,
    kept: F64,
    noted: F64,
    ends: F64,
) -> None:
    width = factors.shape[1]
    none, work = kept.shape[0] - 3, kept.shape[0] - 2
    for activity in range(slot.shape[0]):
        low, high = pred_ptr[activity], pred_ptr[activity + 1]
        first = pred[low] if high > low else none
        out = slot[activity]
        length = lengths[activity]
        if high - low > 1:
            _join(kept, pred, low, high, work)
            first = work
        if meet[activity] >= 0:
            _meet(kept, first, work, groups, meet[activity])
            first = work
        if row[activity] >= 0:
            stretch = row[activity]
            for x in range(width):
                kept[out, x] = kept[first, x] + np.ceil(factors[stretch, x] * length)
        else:
            for x in range(width):
                kept[out, x] = kept[first, x] + length
        if mark[activity] >= 0:
            noting = mark[activity]
            for x in range(width):
                noted[noting, x] = max(noted[noting, x], kept[out, x])
        if ends.shape[0] > 0:
            for x in range(width):
                ends[activity, x] = kept[out, x]
