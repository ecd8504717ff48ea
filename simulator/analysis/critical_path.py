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
    awaited, end = record.awaited, record.end
    path = []
    while current >= 0 and end[current] > window.begin:
        path.append(current)
        current = int(awaited[current])
    return np.array(path[::-1], np.int64)


def share_by_resource(lowered: Lowered, record: Record, window: Window) -> dict[str, float]:
    """Part of the critical path that each kind of capacity, or a latency, limits; the parts add up to 1."""
    path = critical_path(lowered, record, window)
    program = lowered.program
    kinds = program.capacities.kinds
    seconds: dict[str, int] = {}

    def charge(resource: str, begin: int, end: int) -> None:
        length = min(end, window.end) - max(begin, window.begin)
        if length > 0:
            seconds[resource] = seconds.get(resource, 0) + length

    cls = program.cls[path]
    demand = record.start[path] + program.classes.delay[cls]
    changed = np.isin(path, record.segment_activity)
    for activity, begins, lane, split in zip(path, demand, program.lane[path], changed, strict=True):
        start, end, limit = (
            int(record.start[activity]),
            int(record.end[activity]),
            int(record.limit[activity]),
        )
        lane_kind = program.lanes.kinds[lane]
        charge(_LATENCY.get(lane_kind, "storage_latency"), start, min(int(begins), end))
        if limit < 0:
            continue
        if not split:
            charge(kinds[limit], int(begins), end)
            continue
        rows = np.flatnonzero(record.segment_activity == activity)
        edges = [int(begins), *(int(t) for t in record.segment_start[rows]), end]
        limits = [limit, *(int(c) for c in record.segment_limit[rows])]
        for left, right, capacity in zip(edges, edges[1:], limits, strict=False):
            charge(kinds[capacity], left, right)
    whole = sum(seconds.values())
    return {name: value / whole for name, value in seconds.items()} if whole else {}
