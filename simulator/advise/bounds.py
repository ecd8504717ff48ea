"""What a plan cannot beat, without playing it: the memory that it keeps and the kernels that it must run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from simulator.program.drafting.memory import Overheads
from simulator.program.drafting.model import ModelParts, build_parts, lay_out_model
from simulator.program.passes.offload import StageOffload
from simulator.program.passes.transfers import leaving
from simulator.program.planning.admissible import check_precision
from simulator.program.planning.axes import DEFAULT_ORDER
from simulator.program.planning.outline import Outline
from simulator.program.planning.plan import Plan, plan_of
from simulator.program.planning.recomputation import Mode, Recomputation, recomputation
from simulator.program.pricing.describe import Describer
from simulator.program.pricing.prices import Figures
from simulator.program.pricing.slots import kept_bytes
from simulator.program.pricing.topology import SLOTS, core_rate, slot_rates, whole_rates
from simulator.program.pricing.works import Running
from simulator.program.schedules.schedule import check_groups
from simulator.scenario import Scenario
from simulator.specs.calibration import Calibration
from simulator.units import PICOSECONDS
from simulator.workload import Block, Kernel, Node

_IN_ORDER = frozenset({"1f1b", "interleaved_1f1b"})
"""Schedules whose first chunks lie on the stages in order, each backward pass in one piece."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one GPU's share of a micro-batch takes at least, for all plans that share it out in the same way.

    Attributes:
        kernels_s: All stages together, kernels alone [s].
        layer_s: Both passes of a layer [s].
        ends_s: A chunk of layers takes up to so much less than its layers [s].
        front_s: Kernels of what stands before the first layer [s].
        tail_s: Kernels of what stands behind the last layer [s].
    """

    kernels_s: float
    layer_s: float
    ends_s: float
    front_s: float
    tail_s: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of one legal plan.

    Attributes:
        plan: The plan.
        memory_bytes: What the fullest stage needs at least: its state, and the activations in flight [B].
        capacity_bytes: Device memory [B].
        step_s: No step can be shorter [s]; 0 if it cannot fit.
    """

    plan: Plan
    memory_bytes: int
    capacity_bytes: int
    step_s: float

    @property
    def can_fit(self) -> bool:
        """Whether it may fit."""
        return self.memory_bytes <= self.capacity_bytes


Prices = dict[tuple[Any, ...], Any]
"""Operators, blocks and chunks priced so far, on one cluster's figures and with one calibration [ps]."""


def bounds(scenario: Scenario, calibration: Calibration, prices: Prices | None = None) -> Bounds:
    """Bounds of the scenario's plan.

    A stage runs every block once for each micro-batch and none faster than alone on an idle GPU:
    ``step >= micro-batches * sum(passes of the stage)``; and where the first chunks lie on the stages in
    order, a stage waits at first for the forward passes of the stages before it, and the step at last for
    their backward passes. Sends between stages, what replicas exchange, the optimizer, launches and samples
    only add to that.

    Args:
        scenario: With the plan.
        calibration: Constants of the cost models.
        prices: Kept from plan to plan of one job, it makes the next ones cheap.

    Raises:
        PlanError: The plan is not legal.
    """
    outline = Outline.of(scenario)
    plan = plan_of(outline)
    check_groups(plan.schedule, plan.pipeline_parallel, plan.num_micro_batches)
    check_precision(scenario)
    parts = build_parts(outline, Overheads.of(calibration))
    memory = _memory_bytes(outline, plan, parts)
    capacity = int(scenario.cluster.node_groups[0].accelerator.memory_capacity)
    alone = _Alone(scenario, plan, calibration, recomputation(outline), {} if prices is None else prices)
    step = _step_seconds(plan, parts, alone) if memory <= capacity else 0.0
    return Bounds(plan, memory, capacity, step)


def shared(scenario: Scenario, calibration: Calibration, prices: Prices | None = None) -> Share:
    """What a plan shares with all of equal tensor parallelism, micro-batch and recomputation.

    Args:
        scenario: With the plan; of a model without a second stack or a teacher.
        calibration: As in `bounds`.
        prices: As in `bounds`.

    Raises:
        PlanError: The plan is not legal.
    """
    outline = Outline.of(scenario)
    plan = plan_of(outline)
    check_precision(scenario)
    _, laid_out = lay_out_model(outline, plan)
    alone = _Alone(scenario, plan, calibration, recomputation(outline), {} if prices is None else prices)
    return alone.share(laid_out.blocks)


def _memory_bytes(outline: Outline, plan: Plan, parts: ModelParts) -> int:
    """State, and what the forward passes that run ahead keep for their backward passes [B]."""
    saving = recomputation(outline)

    @cache
    def kept(chunk: tuple[Block, ...], offload: StageOffload | None) -> int:
        sizes = list(map(kept_bytes, chunk, saving.modes(chunk)))
        return sum(sizes) - sum(leaving(offload, [block.name for block in chunk], sizes.__getitem__))

    needed = []
    for stage, (chunks, state) in enumerate(zip(parts.blocks, parts.states, strict=True)):
        offload = parts.offload.of(stage) if parts.offload else None
        smallest = min(kept(chunk, offload) for chunk in chunks)
        needed.append(state.resident_bytes + _in_flight(plan, stage) * smallest)
    return max(needed)


def _in_flight(plan: Plan, stage: int) -> int:
    """Passes through a chunk that a stage holds at its fullest moment, at least."""
    stages, micro_batches, chunks = plan.pipeline_parallel, plan.num_micro_batches, plan.virtual_pipeline
    if plan.schedule == "1f1b":
        return min(micro_batches, stages - stage)
    if plan.schedule == "interleaved_1f1b":
        return min(micro_batches * chunks, 2 * (stages - stage - 1) + (chunks - 1) * stages + 1)
    return 1


def _step_seconds(plan: Plan, parts: ModelParts, alone: _Alone) -> float:
    different = dict.fromkeys(chunk for chunks in parts.blocks for chunk in chunks)
    known = {chunk: alone.both_passes(chunk) for chunk in different}
    passes = [[known[chunk] for chunk in chunks] for chunks in parts.blocks]
    busy = [sum(chunks) for chunks in passes]
    waits = [0] * len(busy)
    if plan.schedule in _IN_ORDER:
        waits = [sum(chunks[0] for chunks in passes[:stage]) for stage in range(len(busy))]
    steps = [plan.num_micro_batches * work + wait for work, wait in zip(busy, waits, strict=True)]
    return max(steps) / PICOSECONDS


class _Alone:
    """Time of a pass on an idle GPU, worked out once for each block [ps].

    Each block begins behind the last node of the block before; inside it, nodes of one lane run in order and
    wait for what they depend on. What stands at the ends of a pass and is no kernel may lie beside other
    passes, and counts for nothing.
    """

    def __init__(
        self,
        scenario: Scenario,
        plan: Plan,
        calibration: Calibration,
        recompute: Recomputation,
        prices: Prices,
    ) -> None:
        cluster, shape = scenario.cluster, plan.group
        group = cluster.node_groups[0]
        self.core = len(SLOTS) if shape.oversubscribed else -1
        self.describe = Describer(plan, self.core, scenario.software)
        self.figures = Figures(
            group, cluster.storage, calibration, scenario.software, cluster.node_drives, plan.num_gpus
        )
        rates = slot_rates(cluster, loader_cores=1, drives=False)
        self.rates: list[int] = whole_rates([*rates, core_rate(cluster)]).tolist()
        self.recompute, self.prices = recompute, prices
        self.through_core = (plan.num_gpus_per_stage, self.rates[-1]) if self.core >= 0 else ()

    def share(self, stages: Sequence[Sequence[Sequence[Block]]]) -> Share:
        """What plans of the same split have in common; no plan of them has less."""
        known: dict[tuple[Block, Mode], int] = {}
        total = 0
        for chunk in (chunk for chunks in stages for chunk in chunks):
            for block, mode in zip(chunk, self.recompute.modes(chunk), strict=True):
                if (block, mode) not in known:
                    known[block, mode] = self._kernels(block, mode)
                total += known[block, mode]
        layers = [(block, mode) for block, mode in known if block.name == "layer"]
        least, ends = min((known[layer] for layer in layers), default=0), 0
        axes = self.describe.plan.axes
        if axes.order == DEFAULT_ORDER and self.core < 0:
            # Who exchanges something inside of layers is then as near in all of these plans.
            runs = [[self._block(*layer, back=back) for back in (False, True)] for layer in layers]
            least = min((sum(length for length, _, _ in both) for both in runs), default=0)
            ends = max((sum(before + after for _, before, after in both) for both in runs), default=0)
        parts = (stages[0][0], stages[-1][-1][::-1]) if layers else ((), ())
        front, tail = (self._outside(part) for part in parts)
        return Share(*(each / PICOSECONDS for each in (total, least, ends, front, tail)))

    def _outside(self, part: Sequence[Block]) -> int:
        """Kernels of the blocks before the first layer of a part."""
        outside = itertools.takewhile(lambda block: block.name != "layer", part)
        return sum(self._kernels(block, "all") for block in outside)

    def both_passes(self, blocks: tuple[Block, ...]) -> int:
        """Forward and backward pass through a chunk."""
        modes = self.recompute.modes(blocks)
        key = (blocks, modes, *(self._meet(block) for block in dict.fromkeys(blocks)))
        found = self.prices.get(key)
        if found is None:
            found = 0
            pairs = list(zip(blocks, modes, strict=True))
            for back in (False, True):
                order = reversed(pairs) if back else pairs
                runs = [self._block(block, mode, back=back) for block, mode in order]
                whole = sum(length for length, _, _ in runs)
                found += whole - runs[0][1] - runs[-1][2] if runs else 0
            self.prices[key] = found
        return found

    def _meet(self, block: Block) -> tuple[object, ...]:
        """Who meets in a block, and how fast an oversubscribed core is: all that its time depends on."""
        return *self.describe.meets(block), *self.through_core

    def _kernels(self, block: Block, mode: Mode) -> int:
        """Kernels of both passes through a block, with what is computed again."""
        key = block, mode
        found = self.prices.get(key)
        if found is None:
            nodes = (*block.forward, *self._again(block, mode), *block.backward)
            found = sum(self._alone(node) for node in nodes if isinstance(node.op, Kernel))
            self.prices[key] = found
        return found

    def _block(self, block: Block, mode: Mode, *, back: bool) -> tuple[int, int, int]:
        """Length, and what of it stands before the first and behind the last kernel."""
        key = block, back, mode, *self._meet(block)
        known: tuple[int, int, int] | None = self.prices.get(key)
        if known is not None:
            return known
        found = self._run(block.backward if back else block.forward)
        if back:
            again = self._run(self._again(block, mode))
            found = again[0] + found[0], again[1] if again[0] else found[1], found[2]
        self.prices[key] = found
        return found

    def _again(self, block: Block, mode: Mode) -> Sequence[Node]:
        """What is computed again of whole layers."""
        return () if mode == "all" else block.forward

    def _run(self, nodes: Sequence[Node]) -> tuple[int, int, int]:
        ends: list[int] = []
        free: dict[str, int] = {}
        before = last_kernel = -1
        for node in nodes:
            lane = "compute" if isinstance(node.op, Kernel) else node.op.axis
            start = max(free.get(lane, 0), *(ends[a] for a in node.after), 0)
            if lane == "compute" and before < 0:
                before = start
            # A communication that waits for nothing in its block may have run before it.
            waits = lane == "compute" or node.after or not ends
            ends.append(start + self._alone(node) if waits else 0)
            free[lane] = ends[-1]
            if lane == "compute":
                last_kernel = ends[-1]
        length = ends[-1] if ends else 0
        return length, max(before, 0), max(length - last_kernel, 0) if last_kernel >= 0 else length

    def _alone(self, node: Node) -> int:
        """The engine rounds each duration up, so whole picoseconds rounded down stay below it."""
        op = node.op
        key = (op,) if isinstance(op, Kernel) else (op, self.describe.ranks(op.axis), *self.through_core)
        found = self.prices.get(key)
        if found is None:
            work = Running(op, launched_ahead=True) if isinstance(op, Kernel) else self.describe.meeting(op)
            price = work.price(self.figures)
            drawn = (amount * PICOSECONDS // self.rates[slot] for slot, amount in price.demands)
            found = self.prices[key] = price.delay + max(drawn, default=0)
        return found
