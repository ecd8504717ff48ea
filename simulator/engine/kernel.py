"""The event loop of the compiled player; see `reference` for the same rules in readable form.

Importing this module imports numba. Everything is compiled from this one file, because numba's
cache on disk notices changes of the file that a function stands in and of no other.
"""

from __future__ import annotations

import math

from simulator.engine.jit import entry, inner
from simulator.engine.layout import (
    BEYOND,
    CULPRIT,
    DELAYED,
    DRAWING,
    ELIGIBLE,
    ENDED,
    EPOCH,
    EVENTS,
    FORCED,
    FULL,
    GOING,
    HEAP,
    HELD,
    INSTANT,
    NOW,
    PENDING,
    SEGMENTS,
    STOPPED,
    TOUCHED,
    WAITING,
    WIDTH,
    State,
    Table,
)
from simulator.engine.program import I32, I64
from simulator.engine.record import WAIT_DEPENDENCY, WAIT_LANE, WAIT_POOL
from simulator.engine.tables import LEAST_LEVEL, SAME_SHARE, TOLERANCE, WHOLE
from simulator.units import MAX_PICOSECONDS, PICOSECONDS

_WHOLE = float(WHOLE)
_MARGIN = 1.0 + TOLERANCE
_PICOSECONDS = float(PICOSECONDS)
_HORIZON = float(MAX_PICOSECONDS)


@inner
def _rise(lists: Table, lanes: Table, place: int) -> None:
    lane = lists[place].heap
    key = lanes[lane].key
    while place > 0:
        parent = (place - 1) >> 1
        other = lists[parent].heap
        if lanes[other].key <= key:
            break
        lists[place].heap = other
        lanes[other].place = place
        place = parent
    lists[place].heap = lane
    lanes[lane].place = place


@inner
def _sink(lists: Table, lanes: Table, size: int, place: int) -> None:
    lane = lists[place].heap
    key = lanes[lane].key
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and lanes[lists[child + 1].heap].key < lanes[lists[child].heap].key:
            child += 1
        other = lists[child].heap
        if lanes[other].key >= key:
            break
        lists[place].heap = other
        lanes[other].place = place
        place = child
    lists[place].heap = lane
    lanes[lane].place = place


@inner
def _push(s: State, lane: int, key: int) -> None:
    place = s.counters[HEAP]
    s.counters[HEAP] = place + 1
    s.lanes[lane].key = key
    s.lists[place].heap = lane
    _rise(s.lists, s.lanes, place)


@inner
def _pop(s: State) -> int:
    lane: int = s.lists[0].heap
    size = s.counters[HEAP] - 1
    s.counters[HEAP] = size
    if size > 0:
        s.lists[0].heap = s.lists[size].heap
        _sink(s.lists, s.lanes, size, 0)
    return lane


@inner
def _touch(s: State, capacity: int) -> None:
    if not s.capacities[capacity].touched:
        s.capacities[capacity].touched = 1
        s.capacities[s.counters[TOUCHED]].touched_list = capacity
        s.counters[TOUCHED] += 1


@inner
def _hold(s: State, capacity: int, amount: int) -> None:
    c = s.capacities[capacity]
    c.held += amount
    c.room = int(float(c.rate - c.held) / float(c.rate) * _WHOLE * _MARGIN)
    if c.hot or c.load > c.room:
        _touch(s, capacity)


@inner
def _enlist(s: State, capacity: int, slot: int, activity: int) -> None:
    """Puts a slot in a capacity's list, which is in order of activity."""
    c = s.capacities[capacity]
    before = c.tail
    while before >= 0 and s.slots[before].activity > activity:
        before = s.slots[before].previous
    if before >= 0:
        after = s.slots[before].next
        s.slots[before].next = slot
    else:
        after = c.head
        c.head = slot
    s.slots[slot].previous = before
    s.slots[slot].next = after
    if after >= 0:
        s.slots[after].previous = slot
    else:
        c.tail = slot


@inner
def _delist(s: State, capacity: int, slot: int) -> None:
    before, after = s.slots[slot].previous, s.slots[slot].next
    if before >= 0:
        s.slots[before].next = after
    else:
        s.capacities[capacity].head = after
    if after >= 0:
        s.slots[after].previous = before
    else:
        s.capacities[capacity].tail = before


@inner
def _draw(s: State, lane: int) -> int:
    """Begins to draw, at full speed unless the end of the instant says otherwise."""
    now = s.counters[NOW]
    me = s.lanes[lane]
    k = s.classes[me.cls]
    if k.nominal > MAX_PICOSECONDS - now:
        s.counters[CULPRIT] = me.activity
        return BEYOND
    slot = lane * s.counters[WIDTH]
    for row in range(k.demand, k.demand_end):
        d = s.demands[row]
        c = s.capacities[d.capacity]
        s.slots[slot].activity = me.activity
        s.slots[slot].lane = lane
        s.slots[slot].usage = d.usage
        _enlist(s, d.capacity, slot, me.activity)
        c.load += d.load
        if c.hot or c.load > c.room:
            _touch(s, d.capacity)
        slot += 1
    me.state = DRAWING
    me.since = now
    me.left = 1.0
    me.share = 1.0
    me.span = float(k.nominal)
    me.weight = k.weight
    me.forced = 0
    s.limit[me.activity] = k.limit
    _push(s, lane, now + k.nominal)
    return GOING


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
def _proceed(s: State, lane: int, activity: int) -> None:
    """Puts an activity at the head of a lane."""
    if activity >= 0:
        me = s.lanes[lane]
        me.activity = activity
        me.cls = s.cls[activity]
        me.cursor = s.dep_ptr[activity]
        me.state = WAITING
        _look_ahead(s, lane)


@inner
def _mark_pending(s: State, queue: int) -> None:
    if not s.pools[queue].pending:
        s.pools[queue].pending = 1
        s.pools[s.counters[PENDING]].pending_list = queue
        s.counters[PENDING] += 1


@inner
def _give(s: State, activity: int, row: int, row_end: int) -> None:
    now, last = s.counters[NOW], s.pools.shape[0] - 1
    for delta in range(row, row_end):
        pool, give = s.deltas[delta].pool, s.deltas[delta].give
        p = s.pools[pool]
        p.level -= give
        if give and p.blocking:
            if p.giver_time != now or activity < p.giver:
                p.giver = activity
                p.giver_time = now
            _mark_pending(s, last if s.pools[last].blocking else pool)


@inner
def _complete(s: State, lane: int) -> None:
    """Ends a lane's activity, lets go of everything it had, and wakes who waited for it."""
    me = s.lanes[lane]
    activity = me.activity
    s.end[activity] = s.counters[NOW]
    me.state = WAITING
    s.counters[EVENTS] += 1
    k = s.classes[me.cls]
    slot = lane * s.counters[WIDTH]
    for row in range(k.demand, k.demand_end):
        c = s.capacities[s.demands[row].capacity]
        _delist(s, s.demands[row].capacity, slot)
        c.load -= s.demands[row].load
        if c.hot:
            _touch(s, s.demands[row].capacity)
        slot += 1
    for row in range(k.hold, k.hold_end):
        _hold(s, s.holds[row].capacity, -s.holds[row].amount)
    if k.pool < k.pool_end:
        _give(s, activity, k.pool, k.pool_end)
    _proceed(s, lane, s.links[activity].follower)
    waiter = s.links[activity].waiter
    while waiter >= 0:
        after = s.lanes[waiter].next_waiter
        _look_ahead(s, waiter)
        waiter = after


@inner
def _precedes(s: State, one: int, other: int) -> bool:
    a, b = s.lanes[one], s.lanes[other]
    before: bool = a.eligible < b.eligible or (a.eligible == b.eligible and a.activity < b.activity)
    return before


@inner
def _join_queue(s: State, queue: int, lane: int) -> None:
    """Puts a lane in a pool's queue, which is in order of (time its turn came, activity)."""
    q = s.pools[queue]
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
def _fits(s: State, cls: int) -> bool:
    for row in range(s.classes[cls].pool, s.classes[cls].pool_end):
        d = s.deltas[row]
        p = s.pools[d.pool]
        if p.blocking and d.take and p.level + d.take > p.limit:
            return False
    return True


@inner
def _take(s: State, lane: int) -> None:
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


@inner
def _begin(s: State, lane: int) -> int:
    """Starts a granted activity; without work it ends in the next round of this instant."""
    now = s.counters[NOW]
    me = s.lanes[lane]
    s.start[me.activity] = now
    k = s.classes[me.cls]
    if k.pool < k.pool_end:
        _take(s, lane)
    for row in range(k.hold, k.hold_end):
        _hold(s, s.holds[row].capacity, s.holds[row].amount)
    if k.delay > 0:
        if k.delay > MAX_PICOSECONDS - now:
            s.counters[CULPRIT] = me.activity
            return BEYOND
        me.state = DELAYED
        _push(s, lane, now + k.delay)
    elif k.demand < k.demand_end:
        return _draw(s, lane)
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
        if _fits(s, s.lanes[lane].cls):
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
            _join_queue(s, queue, lane)
            _mark_pending(s, queue)
        elif _begin(s, lane) != GOING:
            return BEYOND
    s.counters[ELIGIBLE] = 0
    for i in range(s.counters[PENDING]):
        if _serve_queue(s, s.pools[i].pending_list) != GOING:
            return BEYOND
    s.counters[PENDING] = 0
    return GOING


@inner
def _grant(s: State) -> int:
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
        max((float(c.rate - c.held) / _PICOSECONDS - used) / asked, LEAST_LEVEL) if asked > 0.0 else -1.0
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
    if remaining > _HORIZON or max(1, math.ceil(remaining)) > MAX_PICOSECONDS - now:
        s.counters[CULPRIT] = me.activity
        return BEYOND
    key = now + max(1, math.ceil(remaining))
    earlier = key < me.key
    me.key = key
    if earlier:
        _rise(s.lists, s.lanes, me.place)
    else:
        _sink(s.lists, s.lanes, s.counters[HEAP], me.place)
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
def _share(s: State) -> int:
    """Solves the touched components: the last thing that happens at an instant."""
    s.counters[EPOCH] += 1
    for i in range(s.counters[TOUCHED]):
        c = s.capacities[s.capacities[i].touched_list]
        c.touched = 0
        c.was_hot = c.hot
        c.hot = c.load > c.room
        if c.hot and c.held >= c.rate:
            s.counters[CULPRIT] = s.capacities[i].touched_list
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


@inner
def _ring(s: State, lane: int) -> int:
    """A lane's time has come: its delay is over, or its work is done."""
    k = s.classes[s.lanes[lane].cls]
    if s.lanes[lane].state == DELAYED and k.demand < k.demand_end:
        return _draw(s, lane)
    _complete(s, lane)
    return GOING


@entry
def begin(s: State, lane_of: I32) -> int:
    """The first instant but for its sharing."""
    for activity in range(lane_of.shape[0] - 1, -1, -1):
        lane = lane_of[activity]
        s.links[activity].follower = s.lanes[lane].activity
        s.lanes[lane].activity = activity
    for lane in range(s.lanes.shape[0]):
        _proceed(s, lane, s.lanes[lane].activity)
    return _grant(s)


@entry
def run(s: State, stop: int, patience: int) -> int:
    """Goes on up to an instant but for its sharing, where rates may be changed.

    Args:
        s: State; the sharing of its instant is still to be done.
        stop: Last instant to play [ps].
        patience: Events after which to return, so that a user may interrupt.

    Returns:
        ENDED: nothing more will happen. STOPPED: `stop` is reached. FULL: out of patience, or of room for
        segments. BEYOND, HELD: errors.
    """
    bound = s.counters[EVENTS] + patience
    while True:
        outcome = _share(s)
        if outcome != GOING:
            return outcome
        if s.counters[HEAP] == 0:
            return ENDED
        now = s.lanes[s.lists[0].heap].key
        if now > stop:
            s.counters[NOW] = stop
            return STOPPED
        if s.counters[EVENTS] > bound or s.counters[SEGMENTS] + s.lanes.shape[0] > s.segments.shape[0]:
            return FULL
        s.counters[NOW] = now
        while s.counters[HEAP] > 0 and s.lanes[s.lists[0].heap].key == now:
            lane = _pop(s)
            if _ring(s, lane) != GOING:
                return BEYOND
        if _grant(s) != GOING:
            return BEYOND
        if now == stop:
            return STOPPED


@entry
def shift_loads(s: State, concerned: Table, sign: int) -> None:
    """Takes loads of running activities of some classes off their capacities (-1) or puts them on (+1)."""
    width = s.counters[WIDTH]
    for lane in range(s.lanes.shape[0]):
        me = s.lanes[lane]
        if me.state != DRAWING or not concerned[me.cls]:
            continue
        k = s.classes[me.cls]
        for row in range(k.demand, k.demand_end):
            d = s.demands[row]
            s.capacities[d.capacity].load += sign * d.load
            s.slots[lane * width + row - k.demand].usage = d.usage
            _touch(s, d.capacity)
        if not me.forced:
            me.forced = 1
            s.lists[s.counters[FORCED]].forced = lane
            s.counters[FORCED] += 1


@entry
def set_rate(s: State, capacity: int, rate: int) -> None:
    """Sets a base rate; the classes concerned are brought up to date between two calls of `shift_loads`."""
    s.capacities[capacity].rate = rate
    _hold(s, capacity, 0)
    _touch(s, capacity)


@entry
def complete_history(s: State, lane_of: I32, ready: I64, kind: I32, last: I32) -> None:
    """Fills in when each activity was ready and what it awaited; `history.awaited` in one pass."""
    for activity in range(lane_of.shape[0]):
        latest, whom = 0, -1
        for row in range(s.dep_ptr[activity], s.dep_ptr[activity + 1]):
            other = s.dep[row]
            if s.end[other] > latest or (s.end[other] == latest and (whom < 0 or other < whom)):
                latest, whom = s.end[other], other
        ready[activity] = latest
        lane = lane_of[activity]
        previous = last[lane]
        last[lane] = activity
        if s.awaited[activity] >= 0:
            kind[activity] = WAIT_POOL
        elif whom >= 0 and latest == s.start[activity]:
            s.awaited[activity], kind[activity] = whom, WAIT_DEPENDENCY
        elif previous >= 0 and s.end[previous] == s.start[activity]:
            s.awaited[activity], kind[activity] = previous, WAIT_LANE
