"""Turns: what waits for dependencies, what begins, and what its end sets free."""

from __future__ import annotations

from simulator.engine.jit import inner
from simulator.engine.layout import (
    BEYOND,
    CULPRIT,
    DELAYED,
    ELIGIBLE,
    EVENTS,
    FINISHED,
    GOING,
    INSTANT,
    NOW,
    PENDING,
    WAITING,
    State,
)
from simulator.engine.loop.drawing import draw, hold, withdraw
from simulator.engine.loop.heap import push
from simulator.engine.loop.pools import fits, give, join_queue, mark_pending, take
from simulator.units import MAX_PICOSECONDS


@inner
def _look_ahead(s: State, lane: int) -> None:
    """Waits for the next dependency that has not ended; if there is none, the lane's turn has come."""
    me = s.lanes[lane]
    last = s.dep_ptr[me.activity + 1]
    cursor = me.cursor
    while cursor < last:
        other = s.dep[cursor]
        if s.end[other] < 0:
            me.cursor = cursor
            me.next_waiter = s.links[other].waiter
            s.links[other].waiter = lane
            return
        cursor += 1
    me.eligible = s.counters[NOW]
    s.lists[s.counters[ELIGIBLE]].eligible = lane
    s.counters[ELIGIBLE] += 1


@inner
def proceed(s: State, lane: int, activity: int) -> None:
    """Puts an activity at the head of a lane."""
    me = s.lanes[lane]
    if activity < 0:
        me.state = FINISHED
    else:
        me.activity = activity
        me.cls = s.cls[activity]
        me.cursor = s.dep_ptr[activity]
        me.state = WAITING
        _look_ahead(s, lane)


@inner
def _complete(s: State, lane: int) -> None:
    """Ends a lane's activity, lets go of everything it had, and wakes who waited for it."""
    me = s.lanes[lane]
    activity = me.activity
    s.end[activity] = s.counters[NOW]
    me.state = WAITING
    s.counters[EVENTS] += 1
    k = s.classes[me.cls]
    withdraw(s, lane)
    for row in range(k.hold, k.hold_end):
        hold(s, s.holds[row].capacity, -s.holds[row].amount)
    if k.pool < k.pool_end:
        give(s, activity, k.pool, k.pool_end)
    proceed(s, lane, s.links[activity].follower)
    waiter = s.links[activity].waiter
    while waiter >= 0:
        after = s.lanes[waiter].next_waiter
        _look_ahead(s, waiter)
        waiter = after


@inner
def _begin(s: State, lane: int) -> int:
    """Starts a granted activity; without work it ends in the next round of this instant."""
    now = s.counters[NOW]
    me = s.lanes[lane]
    s.start[me.activity] = now
    k = s.classes[me.cls]
    if k.pool < k.pool_end:
        take(s, lane)
    for row in range(k.hold, k.hold_end):
        hold(s, s.holds[row].capacity, s.holds[row].amount)
    if k.delay > 0:
        if k.delay > MAX_PICOSECONDS - now:
            s.counters[CULPRIT] = me.activity
            return BEYOND
        me.state = DELAYED
        push(s, lane, now + k.delay)
    elif k.demand < k.demand_end:
        return draw(s, lane)
    else:
        s.lists[s.counters[INSTANT]].instant = lane
        s.counters[INSTANT] += 1
    return GOING


@inner
def _serve_queue(s: State, queue: int) -> int:
    """Grants what fits, in order; what does not keeps its place."""
    q = s.pools[queue]
    q.pending = 0
    of_all = queue == s.pools.shape[0] - 1
    before, lane = -1, q.first
    while lane >= 0 and (of_all or q.level < q.limit):
        after = s.lanes[lane].next_waiter
        if fits(s, s.lanes[lane].cls):
            if before < 0:
                q.first = after
            else:
                s.lanes[before].next_waiter = after
            if after < 0:
                q.last = before
            else:
                s.lanes[after].previous_waiter = before
            if _begin(s, lane) != GOING:
                return BEYOND
        else:
            before = lane
        lane = after
    return GOING


@inner
def _grant_round(s: State) -> int:
    for i in range(s.counters[ELIGIBLE]):
        lane = s.lists[i].eligible
        queue = s.classes[s.lanes[lane].cls].queue
        if queue >= 0:
            join_queue(s, queue, lane)
            mark_pending(s, queue)
        elif _begin(s, lane) != GOING:
            return BEYOND
    s.counters[ELIGIBLE] = 0
    for i in range(s.counters[PENDING]):
        if _serve_queue(s, s.pools[i].pending_list) != GOING:
            return BEYOND
    s.counters[PENDING] = 0
    return GOING


@inner
def grant(s: State) -> int:
    """Rounds of grants and of ends without work, until nothing more happens at this instant."""
    while s.counters[ELIGIBLE] + s.counters[PENDING] > 0:
        if _grant_round(s) != GOING:
            return BEYOND
        count = s.counters[INSTANT]
        s.counters[INSTANT] = 0
        for i in range(count):
            _complete(s, s.lists[i].instant)
    return GOING


@inner
def ring(s: State, lane: int) -> int:
    """A lane's time has come: its delay is over, or its work is done."""
    k = s.classes[s.lanes[lane].cls]
    if s.lanes[lane].state == DELAYED and k.demand < k.demand_end:
        return draw(s, lane)
    _complete(s, lane)
    return GOING
