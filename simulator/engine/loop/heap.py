"""Lanes in order of the time of their next event: a binary heap that knows where each lane stands."""

from __future__ import annotations

from simulator.engine.jit import inner
from simulator.engine.layout import HEAP, State, Table


@inner
def rise(lists: Table, lanes: Table, place: int) -> None:
    """Moves the lane at a place up to where its key belongs."""
    lane = lists[place].heap
    key = lanes[lane].key
    while place > 0:
        parent = (place - 1) >> 1
        above = lists[parent]
        if above.key <= key:
            break
        lists[place].heap = above.heap
        lists[place].key = above.key
        lanes[above.heap].place = place
        place = parent
    lists[place].heap = lane
    lists[place].key = key
    lanes[lane].place = place


@inner
def sink(lists: Table, lanes: Table, size: int, place: int) -> None:
    """Moves the lane at a place down to where its key belongs."""
    lane = lists[place].heap
    key = lanes[lane].key
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and lists[child + 1].key < lists[child].key:
            child += 1
        below = lists[child]
        if below.key >= key:
            break
        lists[place].heap = below.heap
        lists[place].key = below.key
        lanes[below.heap].place = place
        place = child
    lists[place].heap = lane
    lists[place].key = key
    lanes[lane].place = place


@inner
def push(s: State, lane: int, key: int) -> None:
    """Puts a lane into the heap."""
    place = s.counters[HEAP]
    s.counters[HEAP] = place + 1
    s.lanes[lane].key = key
    s.lists[place].heap = lane
    rise(s.lists, s.lanes, place)


@inner
def pop(s: State) -> int:
    """Takes out the lane whose time comes first."""
    lane: int = s.lists[0].heap
    size = s.counters[HEAP] - 1
    s.counters[HEAP] = size
    if size > 0:
        s.lists[0].heap = s.lists[size].heap
        sink(s.lists, s.lanes, size, 0)
    return lane
