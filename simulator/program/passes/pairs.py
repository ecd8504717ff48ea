"""A forward and a backward pass side by side: the exchanges of one hide behind the arithmetic of the other.

The passes belong to different micro-batches and depend on one another in nothing. On the lanes of a stage
their activities take turns: one computes until its next exchange among experts, then the other.

Source: DeepSeek-V3, arXiv:2412.19437, section 3.2.1 and figure 4.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.program.pricing.templates import LANE, Template


def interleaved(first: Template, second: Template) -> Template:
    """Both templates as one; `second_part` marks the activities of the second."""
    order = _turns(_segments(first), _segments(second))
    sizes = first.size, second.size
    place = [np.empty(size, np.int64) for size in sizes]
    which = np.concatenate([np.full(end - begin, part) for part, begin, end in order])
    local = np.concatenate([np.arange(begin, end) for _, begin, end in order])
    for part in (0, 1):
        mine = which == part
        place[part][local[mine]] = np.flatnonzero(mine)
    both = (first, second)
    source = local + np.where(which == 1, sizes[0], 0)

    def column(name: str) -> array[int]:
        return _column(np.concatenate([np.asarray(getattr(each, name)) for each in both])[source])

    return Template(
        lane=column("lane"),
        cls=column("cls"),
        layer=column("layer"),
        dep_count=column("dep_count"),
        dep_back=_dependencies(both, place),
        entry=int(place[0][first.entry]),
        exit=int(place[0][first.exit]),
        fills=tuple(int(place[part][at]) for part, each in enumerate(both) for at in each.fills),
        drains=tuple(int(place[part][at]) for part, each in enumerate(both) for at in each.drains),
        last_on_data_parallel=max(
            (
                int(place[part][template.last_on_data_parallel])
                for part, template in enumerate(both)
                if template.last_on_data_parallel >= 0
            ),
            default=-1,
        ),
        second_part=which == 1,
        second_entry=int(place[1][second.entry]),
        second_exit=int(place[1][second.exit]),
        transfers=first.transfers.at(place[0]).beside(second.transfers.at(place[1])),
    )


def _segments(template: Template) -> list[tuple[int, int]]:
    """Stretches that end with an exchange."""
    cuts = np.flatnonzero(np.asarray(template.lane) == LANE["expert_parallel"]) + 1
    bounds = [0, *cuts.tolist(), template.size]
    return [(begin, end) for begin, end in pairwise(bounds) if begin < end]


def _turns(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Segments of both in turn, in proportion to their numbers."""
    order: list[tuple[int, int, int]] = []
    taken = [0, 0]
    parts = (first, second)
    while taken[0] < len(first) or taken[1] < len(second):
        done = [taken[part] / len(parts[part]) if taken[part] < len(parts[part]) else 2.0 for part in (0, 1)]
        part = 0 if done[0] <= done[1] else 1
        order.append((part, *parts[part][taken[part]]))
        taken[part] += 1
    return order


def _dependencies(both: tuple[Template, Template], place: list[NDArray[np.int64]]) -> array[int]:
    """How far before the activities of both, at their places, their dependencies stand."""
    targets, back = [], []
    for template, at in zip(both, place, strict=True):
        target = np.repeat(np.arange(template.size), np.asarray(template.dep_count))
        targets.append(at[target])
        back.append(at[target] - at[target - np.asarray(template.dep_back)])
    order = np.argsort(np.concatenate(targets), kind="stable")
    return _column(np.concatenate(back)[order])


def _column(values: NDArray[Any]) -> array[int]:
    return array("i", values.astype(np.int32).tobytes())
