"""Where the time went: every picosecond of every stage's compute lane under exactly one cause."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.analysis.window import Window
from simulator.engine import Record
from simulator.program import Lowered

PIPELINE_BUBBLE = "pipeline_bubble"
DATA_STALL = "data_stall"
CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class _Codes:
    """Causes as small integers: by class, and the two that no class has."""

    names: tuple[str, ...]
    by_class: NDArray[np.int64]
    bubble: int


def time_by_cause(lowered: Lowered, record: Record, window: Window) -> dict[str, int]:
    """Picoseconds by cause, summed over the stages; they add up to stages x length of the window.

    A compute lane is busy under the cause of what it runs. A gap belongs to what the activity behind it
    waited for: to a communication of its own stage or a send to it (exposed communication), to the
    loader (data stall), and otherwise to other stages (pipeline bubble), traced back through what the
    awaited activity itself waited for until the whole gap is explained.
    """
    codes = _codes(lowered)
    program = lowered.program
    computes = np.array([kind == "compute" for kind in program.lanes.kinds])
    place_of_lane = np.cumsum(computes) - 1  # a compute lane a representative, in order of stages
    total = np.zeros(len(codes.names), np.int64)
    ids = np.flatnonzero(computes[program.lane] & (record.end > window.begin) & (record.start < window.end))
    place = place_of_lane[program.lane[ids]]
    # Short numbers are sorted by digits, which is quick.
    order = np.argsort(place.astype(np.int16) if place.max(initial=0) < 2**15 else place, kind="stable")
    ids, place = ids[order], place[order]
    begin = np.clip(record.start[ids], window.begin, window.end)
    end = np.clip(record.end[ids], window.begin, window.end)
    by_class = np.zeros(len(codes.by_class), np.int64)
    np.add.at(by_class, program.cls[ids], end - begin)
    np.add.at(total, codes.by_class, by_class)
    first = np.ones(len(ids), bool)
    first[1:] = place[1:] != place[:-1]
    before = np.where(first, window.begin, np.roll(end, 1))
    gaps = np.flatnonzero(begin > before)
    waits = (before[gaps], begin[gaps], record.awaited[ids[gaps]], place[gaps])
    last = np.full(int(computes.sum()), window.begin, np.int64)
    last[place] = end  # in order of time, so the last one stays
    tails = _tails(lowered, record, codes, total, window, last)
    for gap in (waits, tails):
        _explain(lowered, record, codes, total, *gap[:3], stage=gap[3] // lowered.copies)
    return {name: int(value) for name, value in zip(codes.names, total, strict=True) if value}


def _codes(lowered: Lowered) -> _Codes:
    labels = lowered.program.classes.labels
    renamed = [DATA_STALL if label.cause.startswith("data.") else label.cause for label in labels]
    names = tuple(sorted({*renamed, PIPELINE_BUBBLE}))
    index = {name: code for code, name in enumerate(names)}
    return _Codes(names, np.array([index[name] for name in renamed], np.int64), index[PIPELINE_BUBBLE])


def _tails(
    lowered: Lowered,
    record: Record,
    codes: _Codes,
    total: NDArray[np.int64],
    window: Window,
    last: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
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
    total: NDArray[np.int64],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    awaited: NDArray[np.int32],
    *,
    stage: NDArray[np.int64],
) -> None:
    """Shares each gap out among the chain of activities that it waited for, all gaps at once."""
    program = lowered.program
    sends = np.array([label.name.startswith("send.") for label in program.classes.labels])
    begin, end, awaited = begin.copy(), end.copy(), awaited.astype(np.int64)
    while len(begin):
        known = awaited >= 0
        total[codes.bubble] += int((end - begin)[~known].sum())
        begin, end, awaited, stage = begin[known], end[known], awaited[known], stage[known]
        cls = program.cls[awaited]
        origin = program.tags["stage"][awaited]
        foreign = (origin >= 0) & (origin != stage) & ~sends[cls]
        total[codes.bubble] += int((end - begin)[foreign].sum())
        keep = ~foreign
        begin, end, awaited, stage, cls = begin[keep], end[keep], awaited[keep], stage[keep], cls[keep]
        start = np.clip(record.start[awaited], begin, end)
        np.add.at(total, codes.by_class[cls], end - start)
        left = start > begin
        begin, end, awaited, stage = (
            begin[left],
            start[left],
            record.awaited[awaited[left]].astype(np.int64),
            stage[left],
        )
