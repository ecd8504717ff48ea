"""Weighted max-min shares of components of hot capacities, by progressive filling."""

from __future__ import annotations

import math

from simulator.engine.jit import inner
from simulator.engine.layout import (
    BEYOND,
    CULPRIT,
    EPOCH,
    EVENTS,
    FORCED,
    GOING,
    HEAP,
    HELD,
    NOW,
    SEGMENTS,
    TOUCHED,
    State,
)
from simulator.engine.loop.heap import rise, sink
from simulator.engine.tables import LEAST_LEVEL, SAME_SHARE
from simulator.units import MAX_PICOSECONDS, PICOSECONDS


@inner
def _reach(s: State, lane: int, size: int) -> int:
    """Adds a lane to the component unless it was reached before."""
    me = s.lanes[lane]
    if me.mark != s.counters[EPOCH]:
        me.mark = s.counters[EPOCH]
        me.next_share = -1.0
        s.lists[size].component = lane
        size += 1
    return size


@inner
def _gather(s: State, seed: int) -> tuple[int, int]:
    """Collects all that hot capacities tie to a lane; returns how many lanes and hot capacities."""
    size, hot = _reach(s, seed, 0), 0
    i = 0
    while i < size:
        k = s.classes[s.lanes[s.lists[i].component].cls]
        for row in range(k.demand, k.demand_end):
            c = s.capacities[s.demands[row].capacity]
            if c.hot and c.mark != s.counters[EPOCH]:
                c.mark = s.counters[EPOCH]
                s.capacities[hot].hot_list = s.demands[row].capacity
                hot += 1
                slot = c.head
                while slot >= 0:
                    size = _reach(s, s.slots[slot].lane, size)
                    slot = s.slots[slot].next
        i += 1
    return size, hot


@inner
def _refresh(s: State, capacity: int) -> None:
    """Level at which a capacity is used up by those that are not frozen."""
    c = s.capacities[capacity]
    used = asked = 0.0
    slot = c.head
    while slot >= 0:
        one = s.slots[slot]
        other = s.lanes[one.lane]
        if other.next_share >= 0.0:
            used += other.next_share * one.usage
        else:
            asked += other.weight * one.usage
        slot = one.next
    c.level = (
        max((float(c.rate - c.held) / float(PICOSECONDS) - used) / asked, LEAST_LEVEL)
        if asked > 0.0
        else -1.0
    )


@inner
def _freeze(s: State, lane: int, share: float, limit: int) -> None:
    s.lanes[lane].next_share = share
    s.lanes[lane].next_limit = limit
    k = s.classes[s.lanes[lane].cls]
    for row in range(k.demand, k.demand_end):
        s.capacities[s.demands[row].capacity].stale = 1


@inner
def _fill_to(s: State, size: int, level: float, bottleneck: int) -> None:
    """Freezes whom the level takes to full speed; if nobody, all on the capacity that it uses up."""
    frozen = 0
    for i in range(size):
        lane = s.lists[i].component
        if s.lanes[lane].next_share < 0.0 and s.lanes[lane].weight * level >= 1.0:
            _freeze(s, lane, 1.0, s.classes[s.lanes[lane].cls].limit)
            frozen += 1
    slot = s.capacities[bottleneck].head
    while frozen == 0 and slot >= 0:
        lane = s.slots[slot].lane
        if s.lanes[lane].next_share < 0.0:
            _freeze(s, lane, s.lanes[lane].weight * level, bottleneck)
        slot = s.slots[slot].next


@inner
def _solve(s: State, size: int, hot: int) -> None:
    """Weighted max-min shares of a component by progressive filling."""
    for i in range(hot):
        _refresh(s, s.capacities[i].hot_list)
    while True:
        level, bottleneck = math.inf, -1
        for i in range(hot):
            c = s.capacities[s.capacities[i].hot_list]
            if c.level >= 0.0 and (
                c.level < level or (c.level == level and s.capacities[i].hot_list < bottleneck)
            ):
                level, bottleneck = c.level, s.capacities[i].hot_list
        if bottleneck < 0:
            break
        _fill_to(s, size, level, bottleneck)
        for i in range(hot):
            if s.capacities[s.capacities[i].hot_list].stale:
                s.capacities[s.capacities[i].hot_list].stale = 0
                _refresh(s, s.capacities[i].hot_list)
    for i in range(size):
        if s.lanes[s.lists[i].component].next_share < 0.0:
            _freeze(s, s.lists[i].component, 1.0, s.classes[s.lanes[s.lists[i].component].cls].limit)


@inner
def _settle(s: State, lane: int) -> int:
    """Goes on at another share; what is left of the work is reckoned only here."""
    now = s.counters[NOW]
    me = s.lanes[lane]
    share = me.next_share
    if not me.forced and abs(share - me.share) <= SAME_SHARE * me.share:
        return GOING
    fresh = me.since == now and me.left == 1.0
    me.left -= float(now - me.since) / me.span
    if fresh:
        s.limit[me.activity] = me.next_limit
    else:
        row = s.counters[SEGMENTS]
        s.counters[SEGMENTS] = row + 1
        s.segments[row].activity = me.activity
        s.segments[row].start = now
        s.segments[row].limit = me.next_limit
        s.segments[row].left = me.left
    me.since = now
    me.share = share
    me.forced = 0
    me.span = float(s.classes[me.cls].nominal) / share
    s.counters[EVENTS] += 1
    remaining = me.left * me.span
    if remaining > float(MAX_PICOSECONDS) or max(1, math.ceil(remaining)) > MAX_PICOSECONDS - now:
        s.counters[CULPRIT] = me.activity
        return BEYOND
    key = now + max(1, math.ceil(remaining))
    earlier = key < me.key
    me.key = key
    if earlier:
        rise(s.lists, s.lanes, me.place)
    else:
        sink(s.lists, s.lanes, s.counters[HEAP], me.place)
    return GOING


@inner
def _share_around(s: State, seed: int) -> int:
    """Solves the component of a lane, unless it was solved at this instant."""
    if s.lanes[seed].mark == s.counters[EPOCH]:
        return GOING
    size, hot = _gather(s, seed)
    _solve(s, size, hot)
    for i in range(size):
        if _settle(s, s.lists[i].component) != GOING:
            return BEYOND
    return GOING


@inner
def share(s: State) -> int:
    """Solves the touched components: the last thing that happens at an instant."""
    s.counters[EPOCH] += 1
    culprit = -1
    for i in range(s.counters[TOUCHED]):
        capacity = s.capacities[i].touched_list
        c = s.capacities[capacity]
        c.touched = 0
        c.was_hot = c.hot
        c.hot = c.load > c.room
        if c.hot and c.held >= c.rate and (culprit < 0 or capacity < culprit):
            culprit = capacity
    if culprit >= 0:
        s.counters[CULPRIT] = culprit
        return HELD
    for i in range(s.counters[TOUCHED]):
        c = s.capacities[s.capacities[i].touched_list]
        slot = c.head if c.hot or c.was_hot else -1
        while slot >= 0:
            if _share_around(s, s.slots[slot].lane) != GOING:
                return BEYOND
            slot = s.slots[slot].next
    for i in range(s.counters[FORCED]):
        if _share_around(s, s.lists[i].forced) != GOING:
            return BEYOND
    s.counters[TOUCHED] = 0
    s.counters[FORCED] = 0
    return GOING
