"""Two stages that hold the same part of the model (both ends of DualPipe), and where they meet.

Each stage's representative has the collectives of both as activities of its own. Where every rank stands for
itself, ranks of both stages must have come before any goes on; so both stand behind what either waits for.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simulator.engine.program import I64
from simulator.errors import UnsupportedError
from simulator.program.drafting.lower import Lowered
from simulator.program.pricing.templates import LANES


def before_on_lane(lane: NDArray[np.int32]) -> I64:
    """The activity before each on its lane, -1 for the first."""
    order = np.argsort(lane, kind="stable")
    before = np.full(len(lane), -1, np.int64)
    same = lane[order][1:] == lane[order][:-1]
    before[order[1:][same]] = order[:-1][same]
    return before


def meetings(lowered: Lowered, axes: frozenset[str]) -> I64:
    """The activity that each meets at the other end, -1 for none: the n-th collective there for the n-th.

    Args:
        lowered: A folded Program whose stages p and P - 1 - p hold the same.
        axes: Axes along which groups have ranks at both ends.

    Raises:
        UnsupportedError: The two ends do not run the same collectives.
    """
    program, stages = lowered.program, len(lowered.states)
    crosses = np.array([axis in axes for axis in lowered.facts.axis])[program.cls]
    partner = np.full(program.num_activities, -1, np.int64)
    by_lane = {
        int(lane): np.flatnonzero(crosses & (program.lane == lane))
        for lane in np.unique(program.lane[crosses])
    }
    for lane, mine in by_lane.items():
        stage, local = divmod(lane, len(LANES))
        theirs = by_lane.get((stages - 1 - stage) * len(LANES) + local, np.zeros(0, np.int64))
        axis = lowered.facts.axis
        if [axis[c] for c in program.cls[mine]] != [axis[c] for c in program.cls[theirs]]:
            raise UnsupportedError(
                ("simulation", "fold"),
                f"stages {stage} and {stages - 1 - stage} hold the same, but reduce it in another order",
            )
        partner[mine] = theirs
    return partner


def in_order_of_meeting(lowered: Lowered, partner: I64) -> tuple[Lowered, I64]:
    """The same Program, numbered so that what either of two that meet waits for stands before both.

    Returns:
        The Program, and the old number of each of its activities.
    """
    program = lowered.program
    order = _sorted(program.num_activities, *_edges(lowered, partner))
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    lengths = np.diff(program.dep_ptr)[order]
    ptr = np.concatenate(([0], np.cumsum(lengths)))
    entry = np.arange(int(ptr[-1])) - np.repeat(ptr[:-1] - program.dep_ptr[:-1][order], lengths)
    renumbered = replace(
        program,
        lane=program.lane[order],
        cls=program.cls[order],
        dep_ptr=ptr.astype(np.int64),
        dep=number[program.dep[entry]].astype(np.int32),
        tags={name: values[order] for name, values in program.tags.items()},
    )
    return (
        replace(
            lowered,
            program=renumbered,
            step_ends=tuple(tuple(int(number[a]) for a in ends) for ends in lowered.step_ends),
            checkpoint=tuple(int(number[a]) for a in lowered.checkpoint),
            saved=tuple(int(number[a]) for a in lowered.saved),
        ),
        order,
    )


def _edges(lowered: Lowered, partner: I64) -> tuple[I64, I64]:
    """What must stand before what: dependencies, the order of lanes, and both for the other end, too."""
    program = lowered.program
    to = np.repeat(np.arange(program.num_activities), np.diff(program.dep_ptr))
    before = before_on_lane(program.lane)
    chained = np.flatnonzero(before >= 0)
    to = np.concatenate((to, chained))
    on = np.concatenate((program.dep.astype(np.int64), before[chained]))
    meets = partner[to] >= 0
    return np.concatenate((to, partner[to[meets]])), np.concatenate((on, on[meets]))


def _sorted(size: int, to: I64, on: I64) -> I64:
    """Numbers in an order that respects all edges, the lowest that may come next first."""
    if (on < to).all():
        return np.arange(size)
    by_source = np.argsort(on, kind="stable")
    targets = to[by_source].tolist()
    bounds = np.searchsorted(on[by_source], np.arange(size + 1)).tolist()
    left = np.bincount(to, minlength=size).tolist()
    ready = [number for number, count in enumerate(left) if not count]
    heapify(ready)
    reach = list(pairwise(bounds))
    order = []
    while ready:
        number = heappop(ready)
        order.append(number)
        begin, end = reach[number]
        for target in targets[begin:end]:
            left[target] -= 1
            if not left[target]:
                heappush(ready, target)
    if len(order) < size:
        raise UnsupportedError(
            ("simulation", "fold"), "the two ends of the pipeline wait for each other and never meet"
        )
    return np.array(order, np.int64)
