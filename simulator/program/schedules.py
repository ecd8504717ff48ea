"""Pipeline schedules as data: the order in which each stage runs its passes.

A schedule is a function from (stages, micro-batches, chunks) to one list of passes for each stage; it is
registered with one decorator line, and knows nothing of what a pass costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from simulator.errors import PlanError


class Pass(NamedTuple):
    """One pass of one micro-batch through one chunk of a stage."""

    kind: str
    """``forward`` or ``backward``."""
    micro_batch: int
    chunk: int = 0


Order = list[list[Pass]]
Schedule = Callable[[int, int, int], Order]

SCHEDULES: dict[str, Schedule] = {}
"""Every schedule by name."""


def schedule(name: str) -> Callable[[Schedule], Schedule]:
    """Registers a schedule under a name."""

    def register(function: Schedule) -> Schedule:
        SCHEDULES[name] = function
        return function

    return register


@schedule("1f1b")
def one_forward_one_backward(stages: int, micro_batches: int, chunks: int = 1) -> Order:
    """1F1B: stage p runs up to P - p forward passes ahead, then one backward for each forward.

    With uniform stages the bubble is (P - 1)/(m + P - 1) of the step, and stage p holds at most
    min(m, P - p) micro-batches.

    Source: Narayanan et al., PipeDream-Flush, arXiv:2006.09503 and arXiv:2104.04473.
    """
    if chunks != 1:
        raise PlanError(("parallelism", "virtual_pipeline"), f"1f1b takes one chunk a stage, not {chunks}")
    order: Order = []
    for stage in range(stages):
        ahead = min(stages - stage - 1, micro_batches)
        passes = [Pass("forward", index) for index in range(ahead)]
        for index in range(micro_batches - ahead):
            passes += [Pass("forward", ahead + index), Pass("backward", index)]
        passes += [Pass("backward", index) for index in range(micro_batches - ahead, micro_batches)]
        order.append(passes)
    return order


@schedule("interleaved_1f1b")
def interleaved(stages: int, micro_batches: int, chunks: int) -> Order:
    """Interleaved 1F1B: v chunks a stage shrink the bubble to (P - 1)/(v m + P - 1).

    Micro-batches go in groups of P through chunk after chunk; stage p runs 2 (P - p - 1) + (v - 1) P passes
    ahead before it alternates.

    Source: Narayanan et al., arXiv:2104.04473, section 2.2.
    """
    if micro_batches % stages:
        raise PlanError(
            ("training", "global_batch_size"),
            f"the interleaved schedule needs micro-batches ({micro_batches}) in multiples of "
            f"pipeline_parallel ({stages})",
        )
    total = micro_batches * chunks

    def nth(index: int, *, backward: bool) -> Pass:
        group, within = divmod(index, stages * chunks)
        chunk, offset = divmod(within, stages)
        chunk = chunks - 1 - chunk if backward else chunk
        return Pass("backward" if backward else "forward", group * stages + offset, chunk)

    order: Order = []
    for stage in range(stages):
        ahead = min(2 * (stages - stage - 1) + (chunks - 1) * stages, total)
        if micro_batches == stages:
            ahead = total
        passes = [nth(index, backward=False) for index in range(ahead)]
        for index in range(total - ahead):
            passes += [nth(ahead + index, backward=False), nth(index, backward=True)]
        passes += [nth(index, backward=True) for index in range(total - ahead, total)]
        order.append(passes)
    return order


def dependency(item: Pass, stage: int, stages: int, chunks: int) -> tuple[int, Pass] | None:
    """Which pass of which stage hands its output to this one; None at the pipeline's ends.

    Chunk c of stage p is virtual stage c P + p.
    """
    virtual = item.chunk * stages + stage
    if item.kind == "forward":
        if virtual == 0:
            return None
        source = virtual - 1
    else:
        if virtual == stages * chunks - 1:
            return None
        source = virtual + 1
    chunk, origin = divmod(source, stages)
    return origin, Pass(item.kind, item.micro_batch, chunk)


def merged_order(order: Order, chunks: int) -> list[tuple[int, Pass]]:
    """All stages' passes in one list in which nothing comes before what it depends on.

    Raises:
        PlanError: The order can never be run, with the stage and the pass that wait for ever.
    """
    stages = len(order)
    done: list[set[Pass]] = [set() for _ in range(stages)]
    position = [0] * stages
    merged: list[tuple[int, Pass]] = []
    total = sum(map(len, order))
    while len(merged) < total:
        before = len(merged)
        for stage in range(stages):
            passes = order[stage]
            while position[stage] < len(passes):
                item = passes[position[stage]]
                source = dependency(item, stage, stages, chunks)
                if source is not None and source[1] not in done[source[0]]:
                    break
                done[stage].add(item)
                merged.append((stage, item))
                position[stage] += 1
        if len(merged) == before:
            raise PlanError(("parallelism", "pipeline_schedule"), _deadlock(order, position, chunks))
    return merged


def _deadlock(order: Order, position: list[int], chunks: int) -> str:
    waits = []
    for stage, passes in enumerate(order):
        if position[stage] < len(passes):
            item = passes[position[stage]]
            source = dependency(item, stage, len(order), chunks)
            if source is not None:
                waits.append(
                    f"stage {stage} waits with {item.kind} of micro-batch {item.micro_batch}, "
                    f"chunk {item.chunk}, for stage {source[0]}"
                )
    return "deadlock: " + "; ".join(waits[:4])
