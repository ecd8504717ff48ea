"""Compiled code of the sweep over vectors; `vectors` drives it. Importing this module imports numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.engine.jit import entry, inner
from simulator.engine.program import I32, I64

F64 = NDArray[np.float64]


@entry
def first_unordered(
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
    for other in range(known.shape[1]):
        known[activity, other] = known[before, other] if before >= 0 else -1
    known[activity, lane[activity]] = before
    for place in range(dep_ptr[activity], dep_ptr[activity + 1]):
        source = dep[place]
        for other in range(known.shape[1]):
            known[activity, other] = max(known[activity, other], known[source, other])
        known[activity, lane[source]] = max(known[activity, lane[source]], source)


@entry
def allocate(
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
def sweep(
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
    """Ends of all copies of all activities, in order of id."""
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
