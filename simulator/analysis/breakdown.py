"""Where the time went: every picosecond of every stage's compute lane under exactly one cause."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.analysis.window import Window
from simulator.engine import Record
from simulator.engine.program import I32, I64
from simulator.program import Lowered

PIPELINE_BUBBLE = "pipeline_bubble"
DATA_STALL = "data_stall"
CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class _Codes:
    """Causes as small integers: by class, and the two that no class has.

    Attributes:
        names: The causes.
        by_class: Cause of each class.
        bubble: The one that no class has.
        sends: Which classes are sends between stages.
    """

    names: tuple[str, ...]
    by_class: I64
    bubble: int
    sends: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Computing:
    """Activities of the compute lanes, one representative behind the other, each lane in order.

    Attributes:
        ids: Which activities.
        place: Representative of each.
        cause: Code of the cause of each.
        first: Whether it is the first of its lane.
        lanes: Number of representatives.
    """

    ids: I32
    place: I32
    cause: I64
    first: NDArray[np.bool_]
    lanes: int

    def where(self, kept: NDArray[np.bool_]) -> _Computing:
        """Some of them."""
        place = self.place[kept]
        return _Computing(self.ids[kept], place, self.cause[kept], _begins(place), self.lanes)


def time_by_cause(lowered: Lowered, record: Record, window: Window) -> dict[str, int]:
    """Picoseconds by cause, summed over the stages; they add up to stages x length of the window.

    A compute lane is busy under the cause of what it runs. A gap belongs to what the activity behind it
    waited for: to a communication of its own stage or a send to it (exposed communication), to the
    loader (data stall), and otherwise to other stages (pipeline bubble), traced back through what the
    awaited activity itself waited for until the whole gap is explained.
    """
    structure = lowered.program.structure
    codes = structure.once(_codes, lambda: _codes(lowered))
    busy = structure.once(_computing, lambda: _computing(lowered, codes))
    start, end = record.start[busy.ids], record.end[busy.ids]
    inside = (end > window.begin) & (start < window.end)
    if not inside.all():
        busy, start, end = busy.where(inside), start[inside], end[inside]
    begin, end = np.maximum(start, window.begin), np.minimum(end, window.end)
    total = np.zeros(len(codes.names), np.int64)
    np.add.at(total, busy.cause, end - begin)
    before = np.empty_like(end)
    before[1:] = end[:-1]
    before[busy.first] = window.begin
    gaps = np.flatnonzero(begin > before)
    waits = (before[gaps], begin[gaps], record.awaited[busy.ids[gaps]], busy.place[gaps])
    last = np.full(busy.lanes, window.begin, np.int64)
    ends = np.append(np.flatnonzero(busy.first[1:]), len(end) - 1) if len(end) else np.zeros(0, np.int64)
    last[busy.place[ends]] = end[ends]
    tails = _tails(lowered, record, codes, total, window, last)
    for gap in (waits, tails):
        _explain(lowered, record, codes, total, *gap[:3], stage=gap[3] // lowered.copies)
    return {name: int(value) for name, value in zip(codes.names, total, strict=True) if value}


def _codes(lowered: Lowered) -> _Codes:
    labels = lowered.program.classes.labels
    renamed = [DATA_STALL if label.cause.startswith("data.") else label.cause for label in labels]
    names = tuple(sorted({*renamed, PIPELINE_BUBBLE}))
    index = {name: code for code, name in enumerate(names)}
    return _Codes(
        names,
        np.array([index[name] for name in renamed], np.int64),
        index[PIPELINE_BUBBLE],
        np.array([label.name.startswith("send.") for label in labels], np.bool_),
    )


def _computing(lowered: Lowered, codes: _Codes) -> _Computing:
    program = lowered.program
    computes = np.array([kind == "compute" for kind in program.lanes.kinds])
    place_of_lane = np.cumsum(computes) - 1  # a compute lane a representative, in order of stages
    ids = np.flatnonzero(computes[program.lane]).astype(np.int32)
    place = place_of_lane[program.lane[ids]].astype(np.int32)
    # Short numbers are sorted by digits, which is quick.
    order = np.argsort(place.astype(np.int16) if place.max(initial=0) < 2**15 else place, kind="stable")
    ids, place = ids[order], place[order]
    return _Computing(ids, place, codes.by_class[program.cls[ids]], _begins(place), int(computes.sum()))


def _begins(place: I32) -> NDArray[np.bool_]:
    """Whether each is the first of its place."""
    first = np.ones(len(place), np.bool_)
    first[1:] = place[1:] != place[:-1]
    return first


def _tails(
    lowered: Lowered,
    record: Record,
    codes: _Codes,
    total: I64,
    window: Window,
    last: I64,
) -> tuple[I64, I64, I32, I64]:
    """What is left of the window behind each lane's last activity: its own stage's end, then the others'.

    The others' part goes to the bubble; returns begin, end, what is awaited and representative of the first.
    """
    ends = np.array(lowered.step_ends[-1])
    finished = np.maximum(np.minimum(record.end[ends], window.end), last)
    total[codes.bubble] += int((window.end - finished).sum())
    own = np.flatnonzero(finished > last)
    return last[own], finished[own], ends[own].astype(np.int32), own


def _explain(
    lowered: Lowered,
    record: Record,
    codes: _Codes,
    total: I64,
    begin: I64,
    end: I64,
    awaited: I32,
    *,
    stage: I64 | I32,
) -> None:
    """Shares each gap out among the chain of activities that it waited for, all gaps at once."""
    program = lowered.program
    begin, end, awaited = begin.copy(), end.copy(), awaited.astype(np.int64)
    while len(begin):
        known = awaited >= 0
        total[codes.bubble] += int((end - begin)[~known].sum())
        begin, end, awaited, stage = begin[known], end[known], awaited[known], stage[known]
        cls = program.cls[awaited]
        origin = program.tags["stage"][awaited]
        foreign = (origin >= 0) & (origin != stage) & ~codes.sends[cls]
        total[codes.bubble] += int((end - begin)[foreign].sum())
        keep = ~foreign
        begin, end, awaited, stage, cls = begin[keep], end[keep], awaited[keep], stage[keep], cls[keep]
        start = np.minimum(np.maximum(record.start[awaited], begin), end)
        np.add.at(total, codes.by_class[cls], end - start)
        left = start > begin
        begin, end, awaited, stage = (
            begin[left],
            start[left],
            record.awaited[awaited[left]].astype(np.int64),
            stage[left],
        )
