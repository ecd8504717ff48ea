"""The critical path: the chain of activities without a gap that ends with the last measured step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.analysis.window import Window
from simulator.engine import Record
from simulator.program import Lowered

_LATENCY = {"compute": "kernel_latency", "communication": "network_latency"}


def critical_path(lowered: Lowered, record: Record, window: Window) -> NDArray[np.int64]:
    """Ids of the activities on the path, first to last, back to the beginning of the window.

    Each starts at the very moment at which the one before it ends, for that is what it waited for.
    """
    ends = np.array(lowered.step_ends[-1])
    current = int(ends[np.argmax(record.end[ends])])
    # A list is walked in a tenth of the time that an array takes.
    awaited = record.awaited.tolist()
    backwards = []
    while current >= 0:
        backwards.append(current)
        current = awaited[current]
    path = np.array(backwards[::-1], np.int64)
    return path[record.end[path] > window.begin]


def share_by_resource(lowered: Lowered, record: Record, window: Window) -> dict[str, float]:
    """Part of the critical path that each kind of capacity, or a latency, limits; the parts add up to 1."""
    program = lowered.program
    path = critical_path(lowered, record, window)
    names, kind = _numbered(program.capacities.kinds)
    latencies = [_LATENCY.get(k, "storage_latency") for k in program.lanes.kinds]
    more, latency = _numbered(latencies)
    demand = record.start[path] + program.classes.delay[program.cls[path]]
    end, limit = record.end[path], record.limit[path]
    # The first segment of what changes its speed ends where the next begins.
    later = np.flatnonzero(np.isin(record.segment_activity, path))
    owner, begins = record.segment_activity[later], record.segment_start[later]
    until = end.copy()
    if len(later):
        first = np.concatenate(([True], owner[1:] != owner[:-1]))
        order = np.argsort(path)
        until[order[np.searchsorted(path, owner[first], sorter=order)]] = begins[first]
    follows = np.append(begins[1:], 0)
    last = np.append(owner[1:] != owner[:-1], [True])[: len(later)]
    follows = np.where(last, record.end[owner], follows[: len(later)])
    limited = limit >= 0
    spans = (
        (len(names) + latency[program.lane[path]], record.start[path], np.minimum(demand, end)),
        (kind[limit[limited]], demand[limited], until[limited]),
        (kind[record.segment_limit[later]], begins, follows),
    )
    total = np.zeros(len(names) + len(more), np.int64)
    for resource, left, right in spans:
        length = np.minimum(right, window.end) - np.maximum(left, window.begin)
        np.add.at(total, resource, np.maximum(length, 0))
    seconds: dict[str, int] = {}
    for name, value in zip((*names, *more), total.tolist(), strict=True):
        if value:
            seconds[name] = seconds.get(name, 0) + value
    whole = sum(seconds.values())
    return {name: value / whole for name, value in seconds.items()} if whole else {}


def _numbered(values: tuple[str, ...] | list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct texts, and the number of each text among them."""
    names = sorted(set(values))
    number = {name: place for place, name in enumerate(names)}
    return names, np.array([number[value] for value in values], np.int64)
