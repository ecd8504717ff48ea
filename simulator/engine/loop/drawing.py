"""Activities on capacities: who draws, what it adds up to, and what is held."""

from __future__ import annotations

from simulator.engine.jit import inner
from simulator.engine.layout import BEGUN, BEYOND, CULPRIT, DRAWING, GOING, NOW, TOUCHED, WIDTH, State
from simulator.engine.loop.heap import push
from simulator.engine.tables import TOLERANCE, WHOLE
from simulator.units import MAX_PICOSECONDS


@inner
def touch(s: State, capacity: int) -> None:
    """Has a capacity looked at when the instant is over."""
    if not s.capacities[capacity].touched:
        s.capacities[capacity].touched = 1
        s.capacities[s.counters[TOUCHED]].touched_list = capacity
        s.counters[TOUCHED] += 1


@inner
def hold(s: State, capacity: int, amount: int) -> None:
    """Takes an amount off what a capacity has to give; a negative one gives it back."""
    c = s.capacities[capacity]
    c.held += amount
    c.room = int(float(c.rate - c.held) / float(c.rate) * float(WHOLE) * (1.0 + TOLERANCE))
    if c.hot or c.load > c.room:
        touch(s, capacity)


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
def demand(s: State, lane: int) -> None:
    """Puts a lane's activity on the capacities that it draws on, at full speed."""
    me = s.lanes[lane]
    k = s.classes[me.cls]
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
            touch(s, d.capacity)
        slot += 1
    me.state = DRAWING
    me.left = 1.0
    me.share = 1.0
    me.span = float(k.nominal)
    me.weight = k.weight
    me.forced = 0


@inner
def withdraw(s: State, lane: int) -> None:
    """Takes a lane's activity off the capacities that it draws on."""
    k = s.classes[s.lanes[lane].cls]
    slot = lane * s.counters[WIDTH]
    for row in range(k.demand, k.demand_end):
        c = s.capacities[s.demands[row].capacity]
        _delist(s, s.demands[row].capacity, slot)
        c.load -= s.demands[row].load
        if c.hot:
            touch(s, s.demands[row].capacity)
        slot += 1


@inner
def draw(s: State, lane: int) -> int:
    """Begins to draw, at full speed unless the end of the instant says otherwise."""
    now = s.counters[NOW]
    me = s.lanes[lane]
    k = s.classes[me.cls]
    if k.nominal > MAX_PICOSECONDS - now:
        s.counters[CULPRIT] = me.activity
        return BEYOND
    me.since = now
    s.limit[me.activity] = k.limit
    demand(s, lane)
    s.counters[BEGUN] = lane
    push(s, lane, now + k.nominal)
    return GOING
