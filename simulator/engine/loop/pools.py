"""Pools: taking, giving, and the queues of lanes that wait for room."""

from __future__ import annotations

from simulator.engine.jit import inner
from simulator.engine.layout import NOW, PENDING, QUEUED, State


@inner
def mark_pending(s: State, queue: int) -> None:
    """Has a queue served in the next round of grants."""
    if not s.pools[queue].pending:
        s.pools[queue].pending = 1
        s.pools[s.counters[PENDING]].pending_list = queue
        s.counters[PENDING] += 1


@inner
def give(s: State, activity: int, row: int, row_end: int) -> None:
    """Gives back what an activity gives at its end, and remembers who gave for those that wait."""
    now, last = s.counters[NOW], s.pools.shape[0] - 1
    for delta in range(row, row_end):
        pool, give = s.deltas[delta].pool, s.deltas[delta].give
        p = s.pools[pool]
        p.level -= give
        if give and p.blocking:
            if p.giver_time != now or activity < p.giver:
                p.giver = activity
                p.giver_time = now
            mark_pending(s, last if s.pools[last].blocking else pool)


@inner
def _precedes(s: State, one: int, other: int) -> bool:
    a, b = s.lanes[one], s.lanes[other]
    before: bool = a.eligible < b.eligible or (a.eligible == b.eligible and a.activity < b.activity)
    return before


@inner
def join_queue(s: State, queue: int, lane: int) -> None:
    """Puts a lane in a pool's queue, which is in order of (time its turn came, activity)."""
    q = s.pools[queue]
    s.lanes[lane].state = QUEUED
    before, after = q.last, -1
    while before >= 0 and _precedes(s, lane, before):
        before, after = s.lanes[before].previous_waiter, before
    s.lanes[lane].previous_waiter = before
    s.lanes[lane].next_waiter = after
    if before < 0:
        q.first = lane
    else:
        s.lanes[before].next_waiter = lane
    if after < 0:
        q.last = lane
    else:
        s.lanes[after].previous_waiter = lane


@inner
def fits(s: State, cls: int) -> bool:
    """Whether every blocking pool has room for all that a class takes from it."""
    for row in range(s.classes[cls].pool, s.classes[cls].pool_end):
        d = s.deltas[row]
        p = s.pools[d.pool]
        if p.blocking and d.take and p.level + d.take > p.limit:
            return False
    return True


@inner
def take(s: State, lane: int) -> None:
    """Takes what a lane's activity takes at its start."""
    now = s.counters[NOW]
    me = s.lanes[lane]
    late = me.eligible < now
    for row in range(s.classes[me.cls].pool, s.classes[me.cls].pool_end):
        d = s.deltas[row]
        p = s.pools[d.pool]
        p.level += d.take
        if p.level > p.peak:
            p.peak = p.level
            p.peak_time = now
        if late and p.blocking and d.take and p.giver_time == now:
            other = s.awaited[me.activity]
            s.awaited[me.activity] = p.giver if other < 0 else min(p.giver, other)
