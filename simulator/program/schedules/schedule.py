"""Pipeline schedules as data: the order in which each stage runs its passes.

A schedule is a function from (stages, micro-batches, chunks) to one list of passes for each stage; it is
registered with one decorator line, and knows nothing of what a pass costs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from simulator.errors import PlanError

KEY = ("parallelism", "pipeline_schedule")


class Pass(NamedTuple):
    """One pass of one micro-batch through one chunk of a stage."""

    kind: str
    """``forward``, ``backward``, or the two halves of the latter: ``input_gradient``, ``weight_gradient``."""
    micro_batch: int
    chunk: int = 0


class Held(NamedTuple):
    """What a micro-batch takes on a stage, in units of what the fullest stage's layers keep of one."""

    kept: Fraction = Fraction(1)
    """While it is in flight."""
    put_off: Fraction = Fraction(1)
    """While its weight gradients are put off."""


Order = list[list[Pass]]
Layout = Literal["loop", "v", "two_way"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Which chunk of which stage a micro-batch visits after which.

    ``loop``: chunk c of stage p is the virtual stage c P + p. ``v``: chunk 1 runs back, from the last stage
    to the first. ``two_way``: chunk 1 holds the model once more, in the opposite direction, for the second
    half of the micro-batches.

    Attributes:
        stages: Stages P.
        chunks: Chunks of a stage.
        layout: Which of the three.
    """

    stages: int
    chunks: int = 1
    layout: Layout = "loop"

    @property
    def depth(self) -> int:
        """Chunks that one micro-batch visits; also the parts that the model is cut into."""
        return self.stages if self.layout == "two_way" else self.stages * self.chunks

    def part(self, stage: int, chunk: int) -> int:
        """Which part of the model, counted from its beginning, a chunk of a stage holds."""
        if chunk and self.layout != "loop":
            turned = self.stages - 1 - stage
            return turned if self.layout == "two_way" else self.stages + turned
        return chunk * self.stages + stage

    def place(self, part: int, chunk: int) -> tuple[int, int]:
        """Stage and chunk of a part, for micro-batches that pass through `chunk`."""
        if self.layout == "two_way":
            return (part if chunk == 0 else self.stages - 1 - part), chunk
        around, stage = divmod(part, self.stages)
        if self.layout == "v" and around:
            stage = self.stages - 1 - stage
        return stage, around

    def neighbour(self, stage: int, chunk: int, step: int) -> tuple[int, int] | None:
        """Stage and chunk of the part `step` further on; None beyond the ends."""
        part = self.part(stage, chunk) + step
        return self.place(part, chunk) if 0 <= part < self.depth else None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A named way to order passes.

    Attributes:
        name: Name in scenarios.
        order: (stages, micro-batches) -> passes by stage; takes the number of chunks too where any goes.
        layout: How chunks lie on the stages.
        chunks: Chunks of a stage, None where any number above 1 goes.
        fills: Whether weight gradients are put off as long as there is memory for what they keep.
    """

    name: str
    order: Callable[..., Order]
    layout: Layout
    chunks: int | None
    fills: bool = False

    def __call__(
        self, stages: int, micro_batches: int, chunks: int = 1, *, held: tuple[Held, ...] = ()
    ) -> Order:
        """The order of every stage.

        Args:
            stages: Stages P.
            micro_batches: Micro-batches.
            chunks: Chunks of a stage, where any number goes.
            held: What a micro-batch takes on each stage; as much put off as in flight if not given.
        """
        if self.fills:
            return self.order(stages, micro_batches, held or (Held(),) * stages)
        if self.chunks is None:
            return self.order(stages, micro_batches, chunks)
        return self.order(stages, micro_batches)

    def placement(self, stages: int, chunks: int) -> Placement:
        """Where the chunks lie."""
        return Placement(stages, chunks if self.chunks is None else self.chunks, self.layout)


SCHEDULES: dict[str, Schedule] = {}
"""Every schedule by name."""


def schedule(
    name: str, *, layout: Layout = "loop", chunks: int | None = 1, fills: bool = False
) -> Callable[[Callable[..., Order]], Callable[..., Order]]:
    """Registers a schedule under a name."""

    def register(function: Callable[..., Order]) -> Callable[..., Order]:
        SCHEDULES[name] = Schedule(name, function, layout, chunks, fills)
        return function

    return register


@schedule("gpipe")
def all_forward_all_backward(stages: int, micro_batches: int) -> Order:
    """GPipe: every forward pass, then every backward pass, the last micro-batch first.

    With uniform stages the bubble is (P - 1)/(m + P - 1), and every stage holds all m micro-batches.

    Source: Huang et al., arXiv:1811.06965.
    """
    forward = [Pass("forward", index) for index in range(micro_batches)]
    backward = [Pass("backward", index) for index in reversed(range(micro_batches))]
    return [forward + backward for _ in range(stages)]


@schedule("1f1b")
def one_forward_one_backward(stages: int, micro_batches: int) -> Order:
    """1F1B: stage p runs up to P - p - 1 forward passes ahead, then one backward for each forward.

    With uniform stages the bubble is (P - 1)/(m + P - 1) of the step, and stage p holds at most
    min(m, P - p) micro-batches.

    Source: Narayanan et al., PipeDream-Flush, arXiv:2006.09503 and arXiv:2104.04473.
    """
    forward, backward = (
        [Pass(kind, index) for index in range(micro_batches)] for kind in ("forward", "backward")
    )
    return [_in_turn(forward, backward, min(stages - stage - 1, micro_batches)) for stage in range(stages)]


def _in_turn(forward: list[Pass], backward: list[Pass], ahead: int) -> list[Pass]:
    """So many forward passes ahead, then one of each in turn, then the backward passes that are left."""
    turns = itertools.chain.from_iterable(zip(forward[ahead:], backward, strict=False))
    return [*forward[:ahead], *turns, *backward[len(forward) - ahead :]]


def check_groups(name: str, stages: int, micro_batches: int) -> None:
    """Refuses micro-batches that make no whole groups, before an order is made.

    Raises:
        PlanError: With the numbers.
    """
    if name == "interleaved_1f1b" and micro_batches % stages:
        raise PlanError(
            ("training", "global_batch_size"),
            f"the interleaved schedule needs micro-batches ({micro_batches}) in multiples of "
            f"pipeline_parallel ({stages})",
        )


@schedule("interleaved_1f1b", chunks=None)
def interleaved(stages: int, micro_batches: int, chunks: int) -> Order:
    """Interleaved 1F1B: v chunks a stage shrink the bubble to (P - 1)/(v m + P - 1).

    Micro-batches go in groups of P through chunk after chunk; stage p runs 2 (P - p - 1) + (v - 1) P passes
    ahead before it alternates.

    Source: Narayanan et al., arXiv:2104.04473, section 2.2.
    """
    check_groups("interleaved_1f1b", stages, micro_batches)
    total = micro_batches * chunks

    def nth(index: int, *, backward: bool) -> Pass:
        group, within = divmod(index, stages * chunks)
        chunk, offset = divmod(within, stages)
        chunk = chunks - 1 - chunk if backward else chunk
        return Pass("backward" if backward else "forward", group * stages + offset, chunk)

    forward, backward = ([nth(index, backward=back) for index in range(total)] for back in (False, True))
    least = total if micro_batches == stages else 0
    aheads = (2 * (stages - stage - 1) + (chunks - 1) * stages for stage in range(stages))
    return [_in_turn(forward, backward, min(max(ahead, least), total)) for ahead in aheads]
