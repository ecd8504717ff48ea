"""The event loop of the compiled player; see `reference` for the same rules in readable form.

Importing this module imports numba. What Python calls stands here, its parts in `loop`.
"""

from __future__ import annotations

from typing import Final

from simulator.engine.jit import entry
from simulator.engine.layout import (
    BEGUN,
    BEYOND,
    DRAWING,
    ENDED,
    EVENTS,
    FORCED,
    FULL,
    GOING,
    HEAP,
    LONGEST_WAIT,
    NOBODY,
    NOW,
    SEGMENTS,
    STOPPED,
    WIDTH,
    State,
    Table,
)
from simulator.engine.loop.ahead import length, run_ahead
from simulator.engine.loop.drawing import hold, touch
from simulator.engine.loop.heap import pop
from simulator.engine.loop.shares import share
from simulator.engine.loop.turns import grant, proceed, ring
from simulator.engine.program import I32, I64
from simulator.engine.record import WAIT_DEPENDENCY, WAIT_LANE, WAIT_POOL
from simulator.engine.tables import F64

PARTS: Final = "c32d0d4b"
"""CRC-32 of all that is compiled into the entry points from other files, by `jit.checksum`.

numba's cache on disk notices changes of the file in which an entry point stands and of no other. Whoever
changes `layout`, `tables` or a file of `loop` writes the new number here (a test tells it).
"""


@entry
def begin(s: State) -> int:
    """The first instant but for its sharing."""
    for activity in range(s.lane.shape[0] - 1, -1, -1):
        lane = s.lane[activity]
        me, link = s.lanes[lane], s.links[activity]
        link.follower = me.activity
        link.waiter = NOBODY
        me.activity = activity
        if s.near.shape[0] > 0:
            link.ahead = me.eligible
            me.eligible = min(me.eligible + length(s, s.cls[activity]), LONGEST_WAIT)
    for row in range(s.dep.shape[0]):
        s.links[s.dep[row]].waiter = -1
    for lane in range(s.lanes.shape[0]):
        proceed(s, lane, s.lanes[lane].activity)
    return grant(s)


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
        outcome = share(s)
        if outcome != GOING:
            return outcome
        if s.counters[BEGUN] >= 0:
            run_ahead(s, s.counters[BEGUN], stop)
            s.counters[BEGUN] = -1
        if s.counters[HEAP] == 0:
            return ENDED
        now = s.lists[0].key
        if now > stop:
            s.counters[NOW] = stop
            return STOPPED
        if s.counters[EVENTS] > bound or s.counters[SEGMENTS] + s.lanes.shape[0] > s.segments.shape[0]:
            return FULL
        s.counters[NOW] = now
        while s.counters[HEAP] > 0 and s.lists[0].key == now:
            lane = pop(s)
            if ring(s, lane) != GOING:
                return BEYOND
        if grant(s) != GOING:
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
            touch(s, d.capacity)
        if not me.forced:
            me.forced = 1
            s.lists[s.counters[FORCED]].forced = lane
            s.counters[FORCED] += 1


@entry
def set_rate(s: State, capacity: int, rate: int) -> None:
    """Sets a base rate; the classes concerned are brought up to date between two calls of `shift_loads`."""
    s.capacities[capacity].rate = rate
    hold(s, capacity, 0)
    touch(s, capacity)


@entry
def sort_segments(s: State, first: I64, activity: I32, start: I64, limit: I32, left: F64) -> None:
    """Writes the segments in order of activity, those of one activity in order of time.

    Args:
        s: State.
        first: Zeros, one for each activity and one more.
        activity: Written, as are those that follow; one for each segment.
        start: Beginnings [ps].
        limit: Capacities that bound them.
        left: Parts of the work that were left.
    """
    for row in range(activity.shape[0]):
        first[s.segments[row].activity + 1] += 1
    for one in range(first.shape[0] - 1):
        first[one + 1] += first[one]
    for row in range(activity.shape[0]):
        segment = s.segments[row]
        place = first[segment.activity]
        first[segment.activity] = place + 1
        activity[place], start[place] = segment.activity, segment.start
        limit[place], left[place] = segment.limit, segment.left


@entry
def complete_history(s: State, ready: I64, kind: I32, last: I32) -> None:
    """Fills in when each activity was ready and what it awaited; `history.awaited` in one pass."""
    for activity in range(s.lane.shape[0]):
        latest, whom = 0, -1
        for row in range(s.dep_ptr[activity], s.dep_ptr[activity + 1]):
            other = s.dep[row]
            if s.end[other] > latest or (s.end[other] == latest and (whom < 0 or other < whom)):
                latest, whom = s.end[other], other
        ready[activity] = latest
        lane = s.lane[activity]
        previous = last[lane]
        last[lane] = activity
        if s.awaited[activity] >= 0:
            kind[activity] = WAIT_POOL
        elif whom >= 0 and latest == s.start[activity]:
            s.awaited[activity], kind[activity] = whom, WAIT_DEPENDENCY
        elif previous >= 0 and s.end[previous] == s.start[activity]:
            s.awaited[activity], kind[activity] = previous, WAIT_LANE
