"""How much of every kind of capacity was in use, on average and over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.analysis.window import Window
from simulator.engine import Record
from simulator.engine.program import I64
from simulator.program import Lowered
from simulator.units import PICOSECONDS

_INSIDE_A_GPU = frozenset({"tensor", "vector", "memory_bandwidth", "host", "loader_cpu"})
"""Kinds of capacity that are no link and no storage."""


@dataclass(frozen=True, slots=True)
class _Kinds:
    """Kinds of capacity: their names in order, and the number of each capacity's."""

    names: tuple[str, ...]
    of_capacity: I64


def utilization(lowered: Lowered, record: Record, window: Window) -> dict[str, float]:
    """Mean use of every kind of capacity that anything draws on, 0 to 1.

    What `utilization_over_time` gives for a single interval, but without following every draw: an activity
    draws evenly, so the part of its drawing that falls into the window is the part of its amounts.
    """
    program, classes = lowered.program, lowered.program.classes
    kinds = program.structure.once(_kinds, lambda: _kinds(lowered))
    count = program.structure.once(_count, lambda: _count(lowered))
    times = _times(lowered, record, window, count)
    number = len(kinds.names)
    lengths = np.diff(classes.demand_ptr)
    of = kinds.of_capacity[classes.demand_capacity]
    drawn = np.bincount(of, weights=classes.demand_amount * np.repeat(times, lengths), minlength=number)
    rate = np.bincount(kinds.of_capacity, weights=program.capacities.rates, minlength=number)
    touched = np.bincount(of[np.repeat(count > 0, lengths)], minlength=number) > 0
    share = np.minimum(drawn / (rate * window.length / PICOSECONDS), 1.0).tolist()
    return {name: share[place] for place, name in enumerate(kinds.names) if touched[place]}


def _times(lowered: Lowered, record: Record, window: Window, count: I64) -> NDArray[np.float64]:
    """How often activities of each class draw their amounts within the window; shape [K]."""
    program, classes = lowered.program, lowered.program.classes
    if window.begin == 0 and record.makespan <= window.end:
        return count.astype(np.float64)
    begin = np.minimum(record.start + classes.delay[program.cls], record.end - 1)
    inside = np.minimum(record.end, window.end) - np.maximum(begin, window.begin)
    part = np.maximum(inside, 0) / (record.end - begin)
    return np.bincount(program.cls, weights=part, minlength=len(count)).astype(np.float64, copy=False)


def _kinds(lowered: Lowered) -> _Kinds:
    kinds = lowered.program.capacities.kinds
    names = tuple(sorted(set(kinds)))
    code = {name: number for number, name in enumerate(names)}
    return _Kinds(names, np.array([code[kind] for kind in kinds], np.int64))


def _count(lowered: Lowered) -> I64:
    """Activities of each class."""
    program = lowered.program
    return np.bincount(program.cls, minlength=len(program.classes.labels))


def utilization_over_time(
    lowered: Lowered, record: Record, window: Window, bins: int
) -> tuple[list[str], NDArray[np.float64]]:
    """Use of every kind of capacity in equal intervals of the window, shape [kinds, bins]."""
    kinds = lowered.program.structure.once(_kinds, lambda: _kinds(lowered))
    return _use(lowered, record, window, bins, list(kinds.names), kinds.of_capacity)


def link_use_over_time(
    lowered: Lowered, record: Record, window: Window, bins: int
) -> tuple[list[str], NDArray[np.float64]]:
    """Use of every single link and storage capacity in equal intervals, shape [links, bins]."""
    capacities = lowered.program.capacities
    chosen = [n for n, kind in enumerate(capacities.kinds) if kind not in _INSIDE_A_GPU]
    group = np.full(len(capacities.kinds), -1)
    group[chosen] = np.arange(len(chosen))
    return _use(lowered, record, window, bins, [capacities.names[n] for n in chosen], group)


def _use(
    lowered: Lowered,
    record: Record,
    window: Window,
    bins: int,
    names: list[str],
    group_of: NDArray[np.int64],
) -> tuple[list[str], NDArray[np.float64]]:
    """Use of groups of capacities (-1: of no interest); of groups that nothing draws on there is no row.

    An activity draws its amounts evenly between the end of its delay and its own end; the use of a group
    is what is drawn over what all its capacities could have given.
    """
    program = lowered.program
    classes = program.classes
    edges = np.linspace(0.0, window.length / PICOSECONDS, bins + 1)
    count = np.diff(classes.demand_ptr)[program.cls]
    activity = np.repeat(np.arange(program.num_activities), count)
    offset = np.arange(len(activity)) - np.repeat(np.cumsum(count) - count, count)
    row = classes.demand_ptr[program.cls[activity]] + offset
    amount = classes.demand_amount[row].astype(np.float64)
    start = (record.start + classes.delay[program.cls])[activity]
    start = (np.minimum(start, record.end[activity] - 1) - window.begin) / PICOSECONDS
    end = (record.end[activity] - window.begin) / PICOSECONDS
    group = group_of[classes.demand_capacity[row]]
    used, values = [], []
    for number, name in enumerate(names):
        mine = group == number
        if not mine.any():
            continue
        drawn = np.diff(_drawn_until(edges, start[mine], end[mine], amount[mine]))
        rate = float(program.capacities.rates[group_of == number].sum())
        used.append(name)
        values.append(np.clip(drawn / (rate * np.diff(edges)), 0.0, 1.0))
    return used, np.array(values).reshape(len(used), bins)


def _drawn_until(
    edges: NDArray[np.float64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    amount: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Amount drawn before each edge: slopes that begin, less slopes that have ended."""
    slope = amount / (end - start)

    def ramps(begin: NDArray[np.float64]) -> NDArray[np.float64]:
        order = np.argsort(begin, kind="stable")
        position = np.searchsorted(begin[order], edges)
        slopes = np.concatenate(([0.0], np.cumsum(slope[order])))[position]
        offsets = np.concatenate(([0.0], np.cumsum((slope * begin)[order])))[position]
        return edges * slopes - offsets

    return ramps(start) - ramps(end)
