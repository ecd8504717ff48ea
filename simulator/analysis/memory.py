"""Device memory: the peak of every stage, what it consists of, and its course over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.engine import Record
from simulator.program import Lowered


@dataclass(frozen=True, slots=True)
class MemoryPeak:
    """The stage that needs most, and what it needs it for.

    Attributes:
        stage: Which stage.
        peak: Bytes at its peak.
        capacity: Bytes that its GPU has.
        parts: Part -> bytes at the peak.
        by_stage: Peak of each stage [B].
    """

    stage: int
    peak: int
    capacity: int
    parts: dict[str, int]
    by_stage: list[int]


def memory_peak(lowered: Lowered, record: Record) -> MemoryPeak:
    """The peak over all stages."""
    peaks = record.pool_peak
    stage = int(np.argmax(peaks))
    state = lowered.states[stage]
    parts = {name: size for name, size in state.parts.items() if size}
    parts["activations"] = int(peaks[stage]) - state.resident_bytes
    return MemoryPeak(
        stage=stage,
        peak=int(peaks[stage]),
        capacity=int(lowered.program.pools.limits[stage]),
        parts=parts,
        by_stage=[int(peak) for peak in peaks],
    )


def memory_changes(
    lowered: Lowered, record: Record
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Every change of memory in use: time [ps], stage, bytes in use from then on; by stage, then by time."""
    program = lowered.program
    classes = program.classes
    moving = np.flatnonzero(np.diff(classes.pool_ptr)[program.cls])
    row = classes.pool_ptr[program.cls[moving]]
    times = np.concatenate([record.end[moving], record.start[moving]])
    deltas = np.concatenate([-classes.pool_give[row], classes.pool_take[row]])
    pools = np.concatenate([classes.pool_id[row]] * 2)
    changes = deltas != 0
    times, deltas, pools = times[changes], deltas[changes], pools[changes]
    order = np.lexsort((deltas, times, pools))
    times, deltas, pools = times[order], deltas[order], pools[order]
    level = np.cumsum(deltas)
    first = np.searchsorted(pools, np.arange(len(program.pools.names)))
    before = np.concatenate(([0], level))[first]
    return times, pools.astype(np.int32), level - before[pools] + program.pools.initial[pools]
