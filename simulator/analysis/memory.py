"""Device memory: the peak of every stage, what it consists of and when it is reached, and its course."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.engine import Record
from simulator.engine.program import I32, I64
from simulator.program import Lowered
from simulator.program.drafting.memory import FRAGMENTATION, OUTSIDE

ACTIVATIONS = "activations"
"""Part of the memory: what forward passes keep for backward passes."""
TRANSIENT = "transient"
"""Part of the memory: what running operators need and do not keep."""
BUFFERS = "parameter_buffers"
"""Part of the memory: gathered parameters and gradients on their way, where they are sharded."""
KINDS = ("allocated", "reserved", "nvidia-smi")
"""What can be measured: tensors; what the allocator holds for them; everything on the device."""


@dataclass(frozen=True, slots=True)
class MemoryPeak:
    """The stage that needs most, and what it needs it for.

    Attributes:
        stage: Which stage.
        peak: Bytes at its peak; the sum of `parts`.
        capacity: Bytes that its GPU has.
        parts: Part -> bytes at the peak.
        operators: Operator -> bytes of the activations that it keeps at the peak.
        running: Operators that ran at the peak, the one that needed most first.
        time: When the peak is first reached [ps].
        by_stage: Peak of each stage [B].
        by_kind: One of `KINDS` -> highest peak of any stage [B].
        over: When that stage first needs more than its GPU has [ps]; None where it never does.
    """

    stage: int
    peak: int
    capacity: int
    parts: dict[str, int]
    operators: dict[str, int]
    running: tuple[str, ...]
    time: int
    by_stage: list[int]
    by_kind: dict[str, int]
    over: int | None = None


def memory_peak(lowered: Lowered, record: Record) -> MemoryPeak:
    """The peak over all stages."""
    by_stage = [int(peak) for peak in record.pool_peak]
    stage = int(np.argmax(by_stage))
    state, time = lowered.states[stage], int(record.pool_peak_time[stage])
    operators, running, transient = _holders(lowered, record, stage, time)
    parts = {name: size for name, size in state.parts.items() if size}
    rest = int(record.pool_peak[stage]) - state.resident_bytes - sum(operators.values()) - transient
    passing = {
        ACTIVATIONS: sum(operators.values()),
        TRANSIENT: transient,
        BUFFERS: rest,
    }
    parts |= {name: size for name, size in passing.items() if size or name == ACTIVATIONS}
    return MemoryPeak(
        stage=stage,
        peak=by_stage[stage],
        capacity=int(lowered.program.pools.limits[stage]),
        parts=parts,
        operators=operators,
        running=running,
        time=time,
        by_stage=by_stage,
        by_kind=_by_kind(lowered, record),
        over=_first_over(lowered, record, stage),
    )


def _first_over(lowered: Lowered, record: Record, stage: int) -> int | None:
    """When a stage first needs more than there is [ps]."""
    pools = lowered.program.pools
    limit = int(pools.limits[stage])
    if int(record.pool_peak[stage]) <= limit:
        return None
    if int(pools.initial[stage]) > limit:
        return 0
    times, stages, levels = memory_changes(lowered, record)
    return int(times[(stages == stage) & (levels > limit)][0])


def _by_kind(lowered: Lowered, record: Record) -> dict[str, int]:
    """Highest peak of any stage, by what is measured."""
    peaks = [int(peak) for peak in record.pool_peak]
    outside = [sum(state.parts[part] for part in OUTSIDE) for state in lowered.states]
    held = [state.parts[FRAGMENTATION] for state in lowered.states]
    reserved = [peak - beside for peak, beside in zip(peaks, outside, strict=True)]
    allocated = [size - more for size, more in zip(reserved, held, strict=True)]
    return dict(zip(KINDS, (max(allocated), max(reserved), max(peaks)), strict=True))


@dataclass(frozen=True, slots=True)
class _Moves:
    """Activities of one pool that take or give, in order of their numbers.

    Attributes:
        ids: Which activities.
        cls: Class of each.
        take: Bytes of activations that each takes.
        give: Bytes of activations that each gives back.
        place: Number of the block, micro-batch and step of each.
        transient: Bytes that each needs while it runs.
    """

    ids: I64
    cls: I32
    take: I64
    give: I64
    place: I64
    transient: I64


@dataclass(frozen=True, slots=True)
class _Keepers:
    """Who keeps activations.

    Attributes:
        names: Their names.
        by_class: Number of each class's.
    """

    names: tuple[str, ...]
    by_class: I64


def _holders(
    lowered: Lowered, record: Record, stage: int, time: int
) -> tuple[dict[str, int], tuple[str, ...], int]:
    """Who keeps how many bytes of activations on a stage at a moment, who runs, and what that needs.

    A backward pass releases in the opposite order of the forward pass: of each block and micro-batch, what
    was kept last is gone first.
    """
    structure, labels = lowered.program.structure, lowered.program.classes.labels
    moves = structure.once((_moves, stage), lambda: _moves(lowered, stage))
    keepers = structure.once(_keepers, lambda: _keepers(lowered))
    start = record.start[moves.ids]
    started, ended = start <= time, record.end[moves.ids] <= time
    taken, given = np.where(started, moves.take, 0), np.where(ended, moves.give, 0)
    # Where as much is gone as came, nothing is left.
    size = int(moves.place.max(initial=-1)) + 1
    net = np.zeros(size, np.int64)
    np.add.at(net, moves.place, taken - given)
    kept_by = net > 0
    some = np.flatnonzero(kept_by[moves.place])
    places = (np.cumsum(kept_by) - 1)[moves.place[some]]
    left = _left(taken[some], given[some], places, start[some])
    keeper = keepers.by_class[moves.cls[some]]
    kept = np.zeros(len(keepers.names), np.int64)
    np.add.at(kept, keeper, left)
    ranked = sorted(
        ((name, size) for name, size in zip(keepers.names, kept.tolist(), strict=True) if size),
        key=lambda item: (-item[1], item[0]),
    )
    runs = np.flatnonzero(started & ~ended)
    needs = moves.transient[runs]
    most = moves.cls[runs][np.argsort(-needs, kind="stable")]
    names = dict.fromkeys(labels[c].name for c in most.tolist())
    return dict(ranked), tuple(names), int(needs.sum())


def _moves(lowered: Lowered, stage: int) -> _Moves:
    program, transients = lowered.program, lowered.facts.transient
    classes = program.classes
    mine = np.zeros(len(classes.labels), np.bool_)
    rows = np.flatnonzero(classes.pool_id == stage)
    owners = np.searchsorted(classes.pool_ptr, rows, side="right") - 1
    mine[owners] = True
    row_of = np.zeros(len(classes.labels), np.int64)
    row_of[owners] = rows
    ids = np.flatnonzero(mine[program.cls])
    cls = program.cls[ids]
    row, transient = row_of[cls], transients[cls]
    take, give = (moved[row] - transient for moved in (classes.pool_take, classes.pool_give))
    buffers = lowered.facts.buffers[cls]
    take, give = take - buffers[:, 0], give - buffers[:, 1]
    return _Moves(ids, cls, take, give, _places(lowered, ids), transient)


def _keepers(lowered: Lowered) -> _Keepers:
    keeper = lowered.facts.keeper
    names = tuple(sorted(set(keeper)))
    number = {name: place for place, name in enumerate(names)}
    return _Keepers(names, np.array([number[each] for each in keeper], np.int64))


def _places(lowered: Lowered, activities: I64) -> I64:
    """A number for each block of each micro-batch and step; blocks that are no layer go by their names."""
    program = lowered.program
    names = [label.name.partition(".")[0] for label in program.classes.labels]
    blocks = {name: -1 - number for number, name in enumerate(sorted(set(names)))}
    named = np.array([blocks[name] for name in names], np.int64)
    layer = program.tags["layer"][activities].astype(np.int64)
    block = np.where(layer >= 0, layer, named[program.cls[activities]])
    key = np.zeros(len(block), np.int64)
    for tag in (program.tags["step"][activities], program.tags["micro_batch"][activities], block):
        # One number for the three sorts forty times as fast as rows of three do.
        low, high = (int(tag.min()), int(tag.max())) if len(tag) else (0, 0)
        key = key * (high - low + 1) + (tag.astype(np.int64) - low)
    return np.unique(key, return_inverse=True)[1].astype(np.int64).ravel()


def _left(taken: I64, given: I64, place: I64, start: I64) -> I64:
    """What is left of each take once its place's gives are taken off, the latest take first."""
    size = int(place.max()) + 1 if len(place) else 0
    gone = np.zeros(size, np.int64)
    np.add.at(gone, place, given)
    order = np.lexsort((-np.arange(len(start)), -start, place))
    ordered, where = taken[order], place[order]
    total = np.cumsum(ordered)
    first = np.searchsorted(where, np.arange(size))
    before = np.concatenate(([0], total))[first]
    later = total - before[where] - ordered
    left = np.empty_like(taken)
    left[order] = np.minimum(np.maximum(later + ordered - gone[where], 0), ordered)
    return left


def memory_changes(lowered: Lowered, record: Record) -> tuple[I64, NDArray[np.int32], I64]:
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
