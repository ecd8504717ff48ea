"""The critical path: the chain of activities without a gap that ends with the last measured step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.analysis.window import Window
from simulator.engine import Record
from simulator.engine.program import I32, I64
from simulator.program import Lowered

_LATENCY = {"compute": "kernel_latency", "communication": "network_latency"}


@dataclass(frozen=True, slots=True)
class _Resources:
    """What can limit an activity.

    Attributes:
        names: Kinds of capacities, then latencies.
        of_capacity: Number of each capacity's kind.
        of_lane: Number of the latency of what runs on each lane.
    """

    names: tuple[str, ...]
    of_capacity: I64
    of_lane: I64


def critical_path(lowered: Lowered, record: Record, window: Window) -> I64:
    """Ids of the activities on the path, first to last, back to the beginning of the window.

    Each starts at the very moment at which the one before it ends, for that is what it waited for.
    """
    ends = np.array(lowered.step_ends[-1])
    current = int(ends[np.argmax(record.end[ends])])
    # Most activities awaited the one before them: such runs are passed at once.
    before, numbers = lowered.program.structure.once(_numbers, lambda: _numbers(lowered))
    begins = np.maximum.accumulate(np.where(record.awaited == before, 0, numbers))
    # Views of the memory are walked as quickly as lists, and need not be made into them.
    awaited, end, begin = (np.ascontiguousarray(a).data for a in (record.awaited, record.end, begins))
    runs: list[int] = []
    while current >= 0 and end[current] > window.begin:
        runs += (begin[current], current)
        current = awaited[runs[-2]]
    first_last = np.array(runs, np.int64)[::-1].reshape(-1, 2)
    last, first = first_last[:, 0], first_last[:, 1]
    lengths = last - first + 1
    begun = np.cumsum(lengths) - lengths
    path: I64 = np.arange(lengths.sum()) + np.repeat(first - begun, lengths)
    return path[record.end[path] > window.begin]


def _numbers(lowered: Lowered) -> tuple[I32, I32]:
    """Ids of all activities, less one and as they are."""
    numbers = np.arange(lowered.program.num_activities, dtype=np.int32)
    return numbers - 1, numbers


def share_by_resource(lowered: Lowered, record: Record, window: Window) -> dict[str, float]:
    """Part of the critical path that each kind of capacity, or a latency, limits; the parts add up to 1."""
    program = lowered.program
    path = critical_path(lowered, record, window)
    known = program.structure.once(_resources, lambda: _resources(lowered))
    start, end, limit = record.start[path], record.end[path], record.limit[path]
    demand = start + program.classes.delay[program.cls[path]]
    # The first segment of what changes its speed ends where the next begins.
    place = np.full(program.num_activities, -1, np.int32)
    place[path] = np.arange(len(path), dtype=np.int32)
    where = place[record.segment_activity]
    later = np.flatnonzero(where >= 0)
    owner, begins = where[later], record.segment_start[later]
    until, follows = end.copy(), np.append(begins[1:], 0)[: len(later)]
    if len(later):
        differs = owner[1:] != owner[:-1]
        first, last = np.append([True], differs), np.append(differs, [True])
        until[owner[first]] = begins[first]
        follows = np.where(last, end[owner], follows)
    limited = limit >= 0
    spans = (
        (known.of_lane[program.lane[path]], start, np.minimum(demand, end)),
        (known.of_capacity[limit[limited]], demand[limited], until[limited]),
        (known.of_capacity[record.segment_limit[later]], begins, follows),
    )
    total = np.zeros(len(known.names), np.int64)
    for resource, left, right in spans:
        length = np.minimum(right, window.end) - np.maximum(left, window.begin)
        np.add.at(total, resource, np.maximum(length, 0))
    seconds: dict[str, int] = {}
    for name, value in zip(known.names, total.tolist(), strict=True):
        if value:
            seconds[name] = seconds.get(name, 0) + value
    whole = sum(seconds.values())
    return {name: value / whole for name, value in seconds.items()} if whole else {}


def _resources(lowered: Lowered) -> _Resources:
    program = lowered.program
    names, kinds = _numbered(program.capacities.kinds)
    latencies, lanes = _numbered([_LATENCY.get(kind, "storage_latency") for kind in program.lanes.kinds])
    return _Resources((*names, *latencies), kinds, lanes + len(names))


def _numbered(values: Sequence[str]) -> tuple[list[str], I64]:
    """The distinct texts, and the number of each text among them."""
    names = sorted(set(values))
    number = {name: place for place, name in enumerate(names)}
    return names, np.array([number[value] for value in values], np.int64)
