"""All stages' passes in one list in which nothing comes before what it depends on; mistakes are named."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from simulator.errors import PlanError
from simulator.program.schedules import KEY, SCHEDULES, Held, Order, Pass, Placement


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


@lru_cache(maxsize=64)
def visits(
    name: str,
    stages: int,
    micro_batches: int,
    chunks: int,
    *,
    pairs: bool = False,
    held: tuple[Held, ...] = (),
) -> tuple[Visit, ...]:
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


def merged(
    order: Order, placement: Placement, path: tuple[str, ...] = KEY, *, pairs: bool = False
) -> tuple[Visit, ...]:
    """All stages' passes in an order that can be run.

    With `pairs`, a forward pass and the backward pass behind it, of another micro-batch, run side by side:
    both must be ready before either begins.

    Raises:
        PlanError: The order can never be run, with the stage and the pass that wait for ever.
    """
    walk = _Walk(order, placement)
    total = sum(map(len, order))
    while len(walk.found) < total:
        before = len(walk.found)
        for stage in range(placement.stages):
            while walk.advance(stage, pairs=pairs):
                pass
        if len(walk.found) == before:
            raise PlanError(path, _deadlock(order, walk.position, placement))
    return tuple(walk.found)


class _Walk:
    """How far every stage has come in its order."""

    def __init__(self, order: Order, placement: Placement) -> None:
        self.order = order
        self.position = [0] * placement.stages
        self.found: list[Visit] = []
        self._done: dict[tuple[bool, int, int, int], int] = {}
        self._last = _last_weights(order)
        self._steps = {
            (forward, stage, chunk): placement.neighbour(stage, chunk, 1 if forward else -1)
            for forward in (True, False)
            for stage in range(placement.stages)
            for chunk in range(placement.chunks)
        }

    def advance(self, stage: int, *, pairs: bool) -> bool:
        """Runs a stage's next pass, or pair of passes, if what it needs is there."""
        at, passes = self.position[stage], self.order[stage]
        if at == len(passes):
            return False
        item = passes[at]
        source = self._source(stage, item)
        if source is None:
            return False
        other = passes[at + 1] if pairs and at + 1 < len(passes) else None
        paired = (
            other is not None
            and (item.kind, other.kind) == ("forward", "backward")
            and item.micro_batch != other.micro_batch
        )
        if paired and other is not None:
            beside = self._source(stage, other)
            if beside is None:
                return False
            self._run(stage, item, source, paired=True)
            self._run(stage, other, beside)
            return True
        self._run(stage, item, source)
        return True

    def _source(self, stage: int, item: Pass) -> int | None:
        """Index of the visit whose output a pass needs from elsewhere, -1 for none; None if not there yet."""
        kind, micro_batch, chunk = item
        own = (kind == "weight_gradient" and (False, stage, chunk, micro_batch)) or (
            kind != "forward" and (True, stage, chunk, micro_batch)
        )
        if own and own not in self._done:
            return None
        if kind == "weight_gradient":
            return -1
        forward = kind == "forward"
        # The first part has its samples; the last one turns its own output round.
        origin = self._steps[not forward, stage, chunk]
        return -1 if origin is None else self._done.get((forward, *origin, micro_batch))

    def _run(self, stage: int, item: Pass, source: int, *, paired: bool = False) -> None:
        kind, micro_batch, chunk = item
        onward = None
        if kind != "weight_gradient":
            onward = self._steps[kind == "forward", stage, chunk]
            self._done[kind == "forward", stage, chunk, micro_batch] = len(self.found)
        completes = self._last.get((stage, chunk)) == self.position[stage]
        to = -1 if onward is None else onward[0]
        self.found.append(Visit(stage, item, source, to, completes, paired))
        self.position[stage] += 1


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


def _last_weights(order: Order) -> dict[tuple[int, int], int]:
    """Position of the pass behind which a chunk's weight gradients are complete."""
    return {
        (stage, item.chunk): position
        for stage, passes in enumerate(order)
        for position, item in enumerate(passes)
        if item.kind in ("backward", "weight_gradient")
    }


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
