"""Runs: activities of a lane that are played at once, because nobody can tell."""

from __future__ import annotations

from simulator.engine.jit import inner
from simulator.engine.layout import (
    DELAYED,
    DRAWING,
    EVENTS,
    FINISHED,
    HEAP,
    LONGEST_WAIT,
    NOBODY,
    NOW,
    WAITING,
    State,
)
from simulator.engine.loop.drawing import demand, withdraw
from simulator.engine.loop.heap import sink
from simulator.units import MAX_PICOSECONDS


@inner
def length(s: State, cls: int) -> int:
    """Alone time of a class with its delay, counted no further than `LONGEST_WAIT` [ps]."""
    length: int = min(s.classes[cls].delay + min(s.classes[cls].nominal, LONGEST_WAIT), LONGEST_WAIT)
    return length


@inner
def _earliest_turn(s: State, of: int, lane: int) -> int:
    """Before that a waiting lane's turn cannot come, unless a lane itself ends what is waited for.

    The work between what a lane runs and what is waited for takes its alone time at least.
    """
    awaited = s.dep[s.lanes[of].cursor]
    on = s.lane[awaited]
    if on == lane:
        return MAX_PICOSECONDS
    it = s.lanes[on]
    end = s.counters[NOW]
    if it.state == DRAWING and it.share == 1.0:
        end = it.key
    elif it.state != DRAWING and it.state != DELAYED:
        end += length(s, it.cls)
    earliest: int = end + s.links[it.activity].ahead - s.links[awaited].ahead
    return earliest


@inner
def _quiet_until(s: State, lane: int, stop: int) -> int:
    """Up to when nobody begins or ends anything on what a lane uses; now if that is not known."""
    quiet = stop
    for i in range(s.lanes[lane].near, s.lanes[lane].near_end):
        other = s.lanes[s.near[i]]
        if other.state == DELAYED or (other.state == DRAWING and other.share == 1.0):
            quiet = min(quiet, other.key)
        elif other.state == WAITING:
            quiet = min(quiet, _earliest_turn(s, s.near[i], lane))
        elif other.state != FINISHED:
            return 0
    return quiet


@inner
def _may_follow(s: State, activity: int, now: int) -> bool:
    """Whether an activity runs at full speed from now on, its lane being all that it could wait for."""
    k = s.classes[s.cls[activity]]
    if not k.plain or k.nominal > MAX_PICOSECONDS - now or k.delay > MAX_PICOSECONDS - now - k.nominal:
        return False
    for row in range(s.dep_ptr[activity], s.dep_ptr[activity + 1]):
        if s.end[s.dep[row]] < 0:
            return False
    for row in range(k.demand, k.demand_end):
        c = s.capacities[s.demands[row].capacity]
        if c.hot or c.load + s.demands[row].load > c.room:
            return False
    return True


@inner
def _follow(s: State, lane: int, activity: int) -> None:
    """Ends a lane's activity when its time will have come and begins the next."""
    me = s.lanes[lane]
    now, k = me.key, s.classes[me.cls]
    s.end[me.activity] = now
    for row in range(k.pool, k.pool_end):
        s.pools[s.deltas[row].pool].level -= s.deltas[row].give
    me.activity = activity
    me.cls = s.cls[activity]
    me.since = now
    s.start[activity] = now
    k = s.classes[me.cls]
    s.limit[activity] = k.limit
    for row in range(k.pool, k.pool_end):
        p = s.pools[s.deltas[row].pool]
        p.level += s.deltas[row].take
        if p.level > p.peak:
            p.peak = p.level
            p.peak_time = now
    me.key = now + k.delay + k.nominal
    s.counters[EVENTS] += 1


@inner
def run_ahead(s: State, lane: int, stop: int) -> None:
    """Plays what follows on a lane at once, as far as nobody else can observe or disturb it.

    That is up to the last activity that begins before anybody else does anything on what the lane uses, or
    to the first on which others depend.
    """
    me = s.lanes[lane]
    after = s.links[me.activity].follower
    alone = s.links[me.activity].waiter == NOBODY and s.classes[me.cls].plain and me.near_end >= 0
    if not alone or me.state != DRAWING or me.share != 1.0 or after < 0 or not s.classes[s.cls[after]].plain:
        return
    quiet = _quiet_until(s, lane, stop)
    if me.key >= quiet:
        return
    first = me.activity
    withdraw(s, lane)
    while (
        me.key < quiet
        and s.links[me.activity].waiter == NOBODY
        and s.links[me.activity].follower >= 0
        and _may_follow(s, s.links[me.activity].follower, me.key)
    ):
        _follow(s, lane, s.links[me.activity].follower)
    k = s.classes[me.cls]
    if me.activity == first or k.delay == 0:
        demand(s, lane)
    else:
        me.state = DELAYED
        me.key = me.since + k.delay
    sink(s.lists, s.lanes, s.counters[HEAP], me.place)
