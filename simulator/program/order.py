"""All stages' passes in one list in which nothing comes before what it depends on; mistakes are named."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from simulator.errors import PlanError
from simulator.program.schedules import KEY, SCHEDULES, Order, Pass, Placement


@dataclass(frozen=True, slots=True)
class Visit:
    """One pass in the merged order.

    Attributes:
        stage: Which stage.
        item: Which pass.
        source: Index of the visit whose output this one needs from elsewhere; -1 for none.
        sends_to: Stage that the output goes to; the own stage where it stays there; -1 at the ends.
        completes: Whether the gradients of the chunk's weights are complete behind it.
    """

    stage: int
    item: Pass
    source: int
    sends_to: int
    completes: bool


@lru_cache(maxsize=64)
def visits(name: str, stages: int, micro_batches: int, chunks: int) -> tuple[Visit, ...]:
    """The merged order of a named schedule; kept, for it depends on nothing else."""
    known = SCHEDULES[name]
    return merged(known(stages, micro_batches, chunks), known.placement(stages, chunks))


def merged(order: Order, placement: Placement, path: tuple[str, ...] = KEY) -> tuple[Visit, ...]:
    """All stages' passes in an order that can be run.

    Raises:
        PlanError: The order can never be run, with the stage and the pass that wait for ever.
    """
    stages = placement.stages
    done: dict[tuple[bool, int, int, int], int] = {}
    position, found = [0] * stages, list[Visit]()
    last = _last_weights(order)
    total = sum(map(len, order))
    steps = {
        (forward, stage, chunk): placement.neighbour(stage, chunk, 1 if forward else -1)
        for forward in (True, False)
        for stage in range(stages)
        for chunk in range(placement.chunks)
    }
    while len(found) < total:
        before = len(found)
        for stage, passes in enumerate(order):
            while position[stage] < len(passes):
                item = passes[position[stage]]
                kind, micro_batch, chunk = item
                source, onward = -1, None
                if kind == "weight_gradient":
                    if (False, stage, chunk, micro_batch) not in done:
                        break
                else:
                    forward = kind == "forward"
                    origin = steps[not forward, stage, chunk]
                    if origin is None:
                        # The first part has its samples; the last one turns its own output round.
                        if not forward and (True, stage, chunk, micro_batch) not in done:
                            break
                    else:
                        ready = done.get((forward, *origin, micro_batch))
                        if ready is None or not (forward or (True, stage, chunk, micro_batch) in done):
                            break
                        source = ready
                    onward = steps[forward, stage, chunk]
                    done[forward, stage, chunk, micro_batch] = len(found)
                completes = last.get((stage, chunk)) == position[stage]
                found.append(Visit(stage, item, source, -1 if onward is None else onward[0], completes))
                position[stage] += 1
        if len(found) == before:
            raise PlanError(path, _deadlock(order, position, placement))
    return tuple(found)


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
