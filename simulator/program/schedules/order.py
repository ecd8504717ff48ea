"""All stages' passes in one list in which nothing comes before what it depends on; mistakes are named."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.engine.program import I64
from simulator.errors import PlanError
from simulator.program.schedules.schedule import KEY, SCHEDULES, Held, Order, Pass, Placement

Flags = NDArray[np.bool_]

KINDS: Final = ("forward", "backward", "input_gradient", "weight_gradient")
"""Kinds of passes; `Visits.kind` holds places here."""
FORWARD, BACKWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = range(4)


class Visit(NamedTuple):
    """One pass in the merged order."""

    stage: int
    """Which stage."""
    item: Pass
    """Which pass."""
    source: int
    """Index of the visit whose output this one needs from elsewhere; -1 for none."""
    sends_to: int
    """Stage that the output goes to; the own stage where it stays there; -1 at the ends."""
    completes: bool
    """Whether the gradients of the chunk's weights are complete behind it."""
    paired: bool = False
    """Whether it runs side by side with the visit behind it."""


@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """The merged order as columns, shape [visits] each; iterated over, it gives a `Visit` for each.

    Attributes:
        stage: As in `Visit`.
        kind: Places in `KINDS`.
        micro_batch: Micro-batch of the pass.
        chunk: Chunk of the pass.
        source: As in `Visit`.
        sends_to: As in `Visit`.
        completes: As in `Visit`.
        paired: As in `Visit`.
    """

    stage: I64
    kind: I64
    micro_batch: I64
    chunk: I64
    source: I64
    sends_to: I64
    completes: Flags
    paired: Flags

    def __len__(self) -> int:
        """How many."""
        return len(self.stage)

    def __iter__(self) -> Iterator[Visit]:
        """One after the other."""
        kinds = [KINDS[kind] for kind in self.kind.tolist()]
        items = map(Pass, kinds, self.micro_batch.tolist(), self.chunk.tolist())
        others = (self.source, self.sends_to, self.completes, self.paired)
        return map(Visit, self.stage.tolist(), items, *(column.tolist() for column in others))


@lru_cache(maxsize=64)
def visits(
    name: str,
    stages: int,
    micro_batches: int,
    chunks: int,
    *,
    pairs: bool = False,
    held: tuple[Held, ...] = (),
) -> Visits:
    """The merged order of a named schedule; kept, for it depends on nothing else."""
    known = SCHEDULES[name]
    order = known(stages, micro_batches, chunks, held=held)
    if pairs and stages == 1:
        order = [_one_ahead(passes) for passes in order]
    return merged(order, known.placement(stages, chunks), pairs=pairs)


def _one_ahead(passes: list[Pass]) -> list[Pass]:
    """Every forward pass before the backward pass that it follows, of the micro-batch before it.

    A single stage turns each micro-batch round at once, so passes of two of them never meet; with one more in
    flight they do.

    Source: Megatron-Core, ``overlap_moe_expert_parallel_comm`` without pipelining.
    """
    found = list(passes)
    for place in range(1, len(found) - 1):
        if (found[place].kind, found[place + 1].kind) == ("backward", "forward"):
            found[place], found[place + 1] = found[place + 1], found[place]
    return found


def merged(order: Order, placement: Placement, path: tuple[str, ...] = KEY, *, pairs: bool = False) -> Visits:
    """All stages' passes in an order that can be run.

    With `pairs`, a forward pass and the backward pass behind it, of another micro-batch, run side by side:
    both must be ready before either begins.

    Raises:
        PlanError: The order can never be run, with the stage and the pass that wait for ever.
    """
    passes = _Passes.of(order, placement, pairs=pairs)
    found, source, position = _walk(passes)
    if len(found) < len(passes.kind):
        raise PlanError(path, _deadlock(order, position, placement))
    at = np.array(found, np.int64)
    return Visits(
        stage=passes.stage[at],
        kind=passes.kind[at],
        micro_batch=passes.micro_batch[at],
        chunk=passes.chunk[at],
        source=np.array(source, np.int64),
        sends_to=passes.sends_to[at],
        completes=passes.completes[at],
        paired=passes.paired[at],
    )


@dataclass(frozen=True, slots=True)
class _Passes:
    """All passes, those of one stage behind those of the stage before; shape [passes] each.

    Attributes:
        starts: Where each stage's begin, and the end, shape [stages + 1].
        stage: Stage.
        kind: Place in `KINDS`.
        micro_batch: Micro-batch.
        chunk: Chunk.
        sends_to: As in `Visit`.
        completes: As in `Visit`.
        paired: As in `Visit`.
        gives: The output that a pass puts out, `outputs + 1` for none.
        own: The output of its own stage that a pass needs, `outputs` for none.
        needs: The output from elsewhere that a pass needs, `outputs` for none.
        outputs: How many outputs there are.
    """

    starts: list[int]
    stage: I64
    kind: I64
    micro_batch: I64
    chunk: I64
    sends_to: I64
    completes: Flags
    paired: Flags
    gives: I64
    own: I64
    needs: I64
    outputs: int

    @staticmethod
    def of(order: Order, placement: Placement, *, pairs: bool) -> _Passes:
        sizes = np.array([len(passes) for passes in order], np.int64)
        kinds, micro_batches, of_chunk = zip(*itertools.chain.from_iterable(order), strict=True)
        number = {kind: place for place, kind in enumerate(KINDS)}
        kind = np.array([number[each] for each in kinds], np.int64)
        micro_batch, chunk = np.array(micro_batches, np.int64), np.array(of_chunk, np.int64)
        stage = np.repeat(np.arange(len(order)), sizes)
        forward, weights = kind == FORWARD, kind == WEIGHT_GRADIENT
        of_stage = stage * placement.chunks + chunk
        held = placement.stages * placement.chunks  # chunks of all stages
        each = int(micro_batch.max()) + 1
        outputs = 2 * held * each

        def output(is_forward: Flags, place: I64) -> I64:
            return (is_forward * held + place) * each + micro_batch

        before, behind = (_neighbours(placement, step)[of_stage] for step in (-1, 1))
        origin, onward = np.where(forward, (before, behind), (behind, before))
        last = np.full(held, -1)
        lasts = np.flatnonzero(weights | (kind == BACKWARD))
        last[of_stage[lasts]] = lasts
        paired = np.zeros(len(kind), np.bool_)
        if pairs:
            meet = (forward[:-1] & (kind[1:] == BACKWARD)) & (stage[:-1] == stage[1:])
            paired[:-1] = meet & (micro_batch[:-1] != micro_batch[1:])
        return _Passes(
            starts=[0, *np.cumsum(sizes).tolist()],
            stage=stage,
            kind=kind,
            micro_batch=micro_batch,
            chunk=chunk,
            sends_to=np.where(weights | (onward < 0), -1, onward // placement.chunks),
            completes=last[of_stage] == np.arange(len(kind)),
            paired=paired,
            gives=np.where(weights, outputs + 1, output(forward, of_stage)),
            own=np.where(forward, outputs, output(~weights, of_stage)),
            needs=np.where(weights | (origin < 0), outputs, output(forward, origin)),
            outputs=outputs,
        )


def _neighbours(placement: Placement, step: int) -> I64:
    """Stage times chunks, plus chunk, of the part so far from each part; -1 beyond the ends."""
    places = itertools.product(range(placement.stages), range(placement.chunks))
    found = (placement.neighbour(*place, step) for place in places)
    return np.array([-1 if at is None else at[0] * placement.chunks + at[1] for at in found], np.int64)


def _walk(passes: _Passes) -> tuple[list[int], list[int], list[int]]:
    """Stages in turn, each as far as it can: passes, the visits that they need, how far each stage came."""
    gives, own, needs = passes.gives.tolist(), passes.own.tolist(), passes.needs.tolist()
    paired = passes.paired.tolist()
    missing = -2
    done = [missing] * passes.outputs + [-1, missing]
    position = passes.starts[:-1]
    found: list[int] = []
    source: list[int] = []
    before = -1
    while len(found) > before:
        before = len(found)
        for stage, at in enumerate(position):
            end = passes.starts[stage + 1]
            while at < end and done[own[at]] != missing and done[needs[at]] != missing:
                behind = at + 1
                if paired[at]:
                    behind += 1
                    if done[own[at + 1]] == missing or done[needs[at + 1]] == missing:
                        break
                for each in range(at, behind):
                    source.append(done[needs[each]])
                    done[gives[each]] = len(found)
                    found.append(each)
                at = behind
            position[stage] = at
    return found, source, [at - start for at, start in zip(position, passes.starts, strict=False)]


_KINDS = {"F": "forward", "B": "backward", "I": "input_gradient", "W": "weight_gradient"}
_WRITTEN = re.compile(r"([FBIW])(\d{1,9})(?:\.(\d{1,9}))?")
_OWN = ("parallelism", "pipeline_order")


def own_order(lines: tuple[str, ...] | None, placement: Placement, micro_batches: int) -> Order | None:
    """The order that a user wrote down: a line a stage, ``F0 F1 B0 B1``; None if there is none.

    ``F``, ``B`` are forward and backward pass of a micro-batch (from 0), ``I`` and ``W`` the two halves of
    the latter; ``F0.1`` is that of chunk 1.

    Raises:
        PlanError: A pass that cannot be read, is missing, stands there twice, or can never be run.
    """
    if lines is None:
        return None
    order: Order = []
    for stage, line in enumerate(lines):
        passes = []
        for word in line.split():
            found = _WRITTEN.fullmatch(word)
            if found is None:
                raise PlanError((*_OWN, stage), f'"{word[:40]}" is no pass; F0, B0, I0, W0 and F0.1 are')
            kind, micro_batch, chunk = found.groups()
            passes.append(Pass(_KINDS[kind], int(micro_batch), int(chunk or 0)))
        order.append(passes)
    check_complete(order, placement, micro_batches, _OWN)
    merged(order, placement, _OWN)
    return order


def check_complete(
    order: Order, placement: Placement, micro_batches: int, path: tuple[str | int, ...]
) -> None:
    """Refuses an order in which a stage lacks a pass or runs one twice.

    Raises:
        PlanError: Names stage and pass.
    """
    if len(order) != placement.stages:
        raise PlanError(path, f"{len(order)} stages are given, but pipeline_parallel is {placement.stages}")
    half = micro_batches // 2
    for stage, passes in enumerate(order):
        counted = Counter(passes)
        for item, times in counted.items():
            if item.micro_batch >= micro_batches or item.chunk >= placement.chunks:
                raise PlanError(
                    (*path, stage),
                    f"stage {stage}: {named(item)} is not among {micro_batches} micro-batches (from 0) "
                    f"and {placement.chunks} chunks",
                )
            if times > 1:
                raise PlanError((*path, stage), f"stage {stage}: {named(item)} stands there {times} times")
        for chunk in range(placement.chunks):
            own = range(micro_batches)
            if placement.layout == "two_way":
                own = range(half) if chunk == 0 else range(half, micro_batches)
            for index in own:
                _check_passes(stage, index, chunk, counted, (*path, stage))


def _check_passes(
    stage: int, index: int, chunk: int, counted: Counter[Pass], path: tuple[str | int, ...]
) -> None:
    whole = counted[Pass("backward", index, chunk)]
    halves = [counted[Pass(kind, index, chunk)] for kind in ("input_gradient", "weight_gradient")]
    if not counted[Pass("forward", index, chunk)]:
        raise PlanError(path, f"stage {stage}: {named(Pass('forward', index, chunk))} is missing")
    if whole and any(halves):
        raise PlanError(
            path, f"stage {stage}: {named(Pass('backward', index, chunk))} stands there whole and in halves"
        )
    if not whole and not all(halves):
        missing = "backward" if not any(halves) else ("input_gradient", "weight_gradient")[halves[0]]
        raise PlanError(path, f"stage {stage}: {named(Pass(missing, index, chunk))} is missing")


def named(item: Pass) -> str:
    """A pass in words."""
    return f"{item.kind} of micro-batch {item.micro_batch}, chunk {item.chunk}"


def _deadlock(order: Order, position: list[int], placement: Placement) -> str:
    waits = []
    for stage, passes in enumerate(order):
        if position[stage] < len(passes):
            item = passes[position[stage]]
            step = -1 if item.kind == "forward" else 1
            origin = placement.neighbour(stage, item.chunk, step) if item.kind != "weight_gradient" else None
            where = stage if origin is None else origin[0]
            waits.append(f"stage {stage} waits with {named(item)}, for stage {where}")
    return "deadlock: " + "; ".join(waits[:4])
