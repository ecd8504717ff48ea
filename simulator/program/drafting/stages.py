"""Every stage's templates; stages that hold the same blocks are compiled once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from simulator.engine import Label
from simulator.program.drafting.model import ModelParts, StageState
from simulator.program.passes.exchanges import Item, Reduction
from simulator.program.passes.host_update import HostUpdate
from simulator.program.passes.offload import StageOffload
from simulator.program.passes.pairs import interleaved
from simulator.program.passes.passing import StageCompiler
from simulator.program.passes.sharding import (
    gathering,
    gradient_collectives,
    parameter_collectives,
    reductions,
)
from simulator.program.passes.stretches import Stretches
from simulator.program.planning.layout import Tie
from simulator.program.planning.outline import Outline
from simulator.program.planning.plan import Plan
from simulator.program.planning.recomputation import recomputation
from simulator.program.pricing.assembly import Assembly
from simulator.program.pricing.describe import Describer
from simulator.program.pricing.rows import Row, RowTable
from simulator.program.pricing.sends import blocking_sends, message_bytes
from simulator.program.pricing.templates import LANE, TemplateBuilder
from simulator.program.pricing.works import Ranks
from simulator.workload import (
    Block,
    Communication,
    Kernel,
    Parameters,
    copied_weights,
    quantized_weights,
    update_kernels,
)
from simulator.workload.kernels import Axis
from simulator.workload.optimizers import OPTIMIZERS, norm_kernel, orthogonal_kernels
from simulator.workload.precision import sized
from simulator.workload.state import NO_PARAMETERS

Kinds = frozenset[tuple[str, bool]]
"""Kinds of passes, and whether gradients are complete behind them."""


@dataclass(slots=True)
class CompiledStage:
    """The templates of one kind of stage.

    Attributes:
        table: Its rows.
        passes: By chunk, template by kind of pass and whether the chunk's gradients are complete behind it.
        on_communication: Templates that enter on another lane than the compute lane.
        before_join: Template of what comes before all stages meet: reductions and norm.
        after_join: Template of what comes after: update and gathering of parameters.
        pairs: Template of two passes side by side, by the templates of both.
    """

    table: RowTable
    passes: list[dict[tuple[str, bool], int]] = field(default_factory=list)
    on_communication: set[int] = field(default_factory=set)
    before_join: int = -1
    after_join: int = -1
    pairs: dict[tuple[int, int], int] = field(default_factory=dict)

    def pair(self, assembly: Assembly, first: int, second: int) -> int:
        """Template of two passes side by side, given those of both."""
        found = self.pairs.get((first, second))
        if found is None:
            joined = interleaved(assembly.templates[first], assembly.templates[second])
            found = self.pairs[first, second] = assembly.register(joined)
        return found


def compile_stages(
    scenario: Outline,
    plan: Plan,
    describe: Describer,
    parts: ModelParts,
    assembly: Assembly,
    kinds: Kinds,
) -> list[CompiledStage]:
    """One compiled stage for each stage; equal stages share one object.

    Args:
        scenario: The outline.
        plan: Its plan.
        describe: Describes what the stages do.
        parts: The model on the stages.
        assembly: Takes the templates.
        kinds: Kinds of passes that the schedule runs, and whether gradients are complete behind them.
    """
    known: dict[object, CompiledStage] = {}
    does = Stretches.of(describe, parts.shard)
    compiled = []
    for stage, chunks in enumerate(parts.blocks):
        tied = tuple(tie for tie in parts.ties if stage in tie.stages)
        at = [plan.placement.part(stage, chunk) for chunk in range(len(chunks))]
        ends = tuple((part > 0, part < plan.placement.depth - 1) for part in at)
        gpus = parts.offload.nodes.gpus[stage] if parts.offload else 0
        key = (chunks, ends, tuple(tie.name for tie in tied), gpus)
        if key not in known:
            maker = _StageMaker(scenario, plan, describe, parts, does, stage, assembly)
            known[key] = maker.make(kinds, tied)
        compiled.append(known[key])
    return compiled


@dataclass(slots=True)
class _StageMaker:
    """Compiles one stage."""

    scenario: Outline
    plan: Plan
    describe: Describer
    parts: ModelParts
    does: Stretches
    stage: int
    assembly: Assembly

    def make(self, kinds: Kinds, tied: tuple[Tie, ...]) -> CompiledStage:
        plan, parts = self.plan, self.parts
        waits = blocking_sends(self.scenario) and plan.pipeline_parallel > 1
        compiler = StageCompiler(
            self.describe,
            recomputation(self.scenario),
            RowTable(),
            self.does,
            waits_to_launch=waits,
            offload=self._offload,
            gathering=gathering(plan, parts.state_bytes, self._offload),
        )
        result = CompiledStage(compiler.table)
        known: dict[object, dict[tuple[str, bool], int]] = {}
        for chunk, blocks in enumerate(parts.blocks[self.stage]):
            part = plan.placement.part(self.stage, chunk)
            trained = parts.untrained_parts <= part < plan.placement.depth - 1
            # Part of the model behind which what a pass receives has crossed.
            received = (part - 1 if part else None, part if trained else None)
            key = (blocks, *(each is not None for each in received))
            if key not in known:
                known[key] = dict(self._passes(compiler, kinds, blocks, *received))
            result.passes.append(known[key])
        templates = {template for passes in known.values() for template in passes.values()}
        for template in templates:
            shape = self.assembly.templates[template]
            if shape.lane[shape.entry] != LANE["compute"]:
                result.on_communication.add(template)
        before, after = self._update(compiler, parts.states[self.stage], tied)
        result.before_join = self.assembly.register(before.build())
        result.after_join = self.assembly.register(after.build())
        return result

    def _passes(
        self,
        compiler: StageCompiler,
        kinds: Kinds,
        blocks: tuple[Block, ...],
        before: int | None,
        behind: int | None,
    ) -> Iterator[tuple[tuple[str, bool], int]]:
        """Templates of all passes through a chunk.

        Args:
            compiler: Compiles them.
            kinds: As in `compile_stages`.
            blocks: Its blocks.
            before: The part before it, if any hands activations on to it.
            behind: Its own part, if any hands gradients back to it.
        """
        reduced = self._reduced(blocks)
        known: dict[tuple[str, bool], int] = {}
        for kind, completes in sorted(kinds):
            if kind == "forward":
                prefix = self._gather_received(before, kind)
                yield (kind, completes), self.assembly.register(compiler.forward(blocks, prefix))
                continue
            weights = kind != "input_gradient" and (completes or self.plan.sharding.each)
            reduces = weights and bool(reduced)
            if (kind, reduces) not in known:
                prefix = self._gather_received(None if kind == "weight_gradient" else behind, kind)
                shape = compiler.backward(blocks, reduced if reduces else (), prefix, kind=kind)
                known[kind, reduces] = self.assembly.register(shape)
            yield (kind, completes), known[kind, reduces]

    def _reduced(self, blocks: tuple[Block, ...]) -> tuple[Reduction, ...]:
        """What is reduced behind the blocks once their gradients are complete."""
        return reductions(
            self.plan,
            self.parts.state_bytes,
            blocks,
            limit=self.scenario.parallelism.gradient_bucket,
            overlaps=self._overlaps,
            offload=self._offload,
        )

    @property
    def _offload(self) -> StageOffload | None:
        """What the stage copies out of its GPUs and back."""
        return self.parts.offload.of(self.stage) if self.parts.offload else None

    @property
    def _overlaps(self) -> bool:
        """Whether gradients are reduced beside the backward pass."""
        said = self.scenario.parallelism.overlap_gradient_reduction
        return self.scenario.software.overlap_gradient_reduction if said is None else said

    def _gather_received(self, boundary: int | None, kind: str) -> tuple[Communication, ...]:
        """Slices of the residual stream are sent between nodes and joined inside the receiving one.

        Source: Narayanan et al., arXiv:2104.04473, section 4.1.
        """
        if boundary is None or self.plan.tensor_parallel == 1 or self.parts.shard.sequence_parallel:
            return ()
        size = message_bytes(self.scenario, self.plan, boundary, kind)
        return (Communication("receive.all_gather", "all_gather", "tensor", size),)

    def _update(
        self, compiler: StageCompiler, state: StageState, tied: tuple[Tie, ...]
    ) -> tuple[TemplateBuilder, TemplateBuilder]:
        """Before all stages meet: what is left to reduce, and the norm. After: update and gathering."""
        plan, training, per = self.plan, self.scenario.training, self.parts.state_bytes
        outside = self._outside(compiler, state.to_update)
        away = outside.offload.on_host(state.updated) if outside else 0
        here = state.to_update.part(state.updated - away)
        kernels = update_kernels(
            here,
            per,
            training.optimizer,
            clipping=training.gradient_clipping,
            held_gradients=state.accumulated,
            fused=self.scenario.software.fused_optimizer,
        )
        norm = self._norm(state) if away else kernels[:-2]
        on_host = outside is not None and outside.offload.settings.gradients is not None
        first = compiler.update(self._left_to_reduce(state, tied), () if on_host else norm)
        if outside and on_host and norm:
            outside.norm(first, state.updated)
        if norm and plan.num_gpus > 1:
            item = Communication("gradient_norm.all_reduce", "all_reduce", "data", 4)
            compiler.reduce(first, item, _everyone(plan))
        if not first.lanes:
            first.add(
                LANE["compute"], compiler.table.add(Row(Label("gradients.ready", "optimizer", "optimizer")))
            )
        updates = (*self._beside_update(here), *kernels[-2:], *quantized_weights(here, per))
        if outside:
            stored = sum(found.get("optimizer", 0) for found in state.away.values())
            # What a rule keeps more of some parameters goes with all others.
            more = stored - sized(away, per.optimizer) if per.elsewhere else 0
            last = outside.run(updates, state.updated - away, away, self._orthogonal(), more)
        else:
            last = compiler.update(self._whole_matrices(state), (*self._orthogonal(), *updates))
        for way in parameter_collectives(plan, per, *state.trained):
            compiler.reduce(last, way)
        if self.parts.shard.weights_stay and self.parts.shard.software.weight_copies:
            for kernel in copied_weights(sum(state.trained, NO_PARAMETERS), per):
                row = compiler.table.add(self.describe.kernel(kernel, "optimizer"))
                last.add(LANE["compute"], row, (len(last.lanes) - 1,))
        return first, last

    def _outside(self, compiler: StageCompiler, updated: Parameters) -> HostUpdate | None:
        """The update of what lies outside of the GPU; None where the optimizer finds all on it."""
        offload = self._offload
        if offload is None or not (offload.settings.optimizer or offload.settings.parameters):
            return None
        return HostUpdate(
            offload,
            self.describe,
            compiler.table,
            self.parts.state_bytes,
            self.scenario.training.optimizer,
            updated,
        )

    def _norm(self, state: StageState) -> tuple[Kernel, ...]:
        """The norm of all gradients, whoever updates what."""
        training = self.scenario.training
        return update_kernels(
            state.to_update,
            self.parts.state_bytes,
            training.optimizer,
            clipping=training.gradient_clipping,
            held_gradients=NO_PARAMETERS,
        )[:-2]

    def _beside_update(self, updated: Parameters) -> tuple[Kernel, ...]:
        """What the optimizer does beyond one parameter at a time."""
        training, per = self.scenario.training, self.parts.state_bytes
        norms = norm_kernel(training.optimizer, updated.total, per.optimizer) if updated.total else None
        return () if norms is None else (norms,)

    def _orthogonal(self) -> tuple[Kernel, ...]:
        """What makes updates of whole matrices orthogonal."""
        if not OPTIMIZERS[self.scenario.training.optimizer].orthogonal:
            return ()
        blocks = [block for chunk in self.parts.blocks[self.stage] for block in chunk]
        shared = self.plan.sharding.optimizer
        dense, expert = (
            (self.plan.degree(split), self.plan.degree(share) if shared else 1)
            for split, share in (("tensor", "shard"), ("expert_tensor", "expert_shard"))
        )
        return orthogonal_kernels(blocks, dense, expert)

    def _whole_matrices(self, state: StageState) -> list[tuple[Item, Ranks | None]]:
        """Matrices that are split over GPUs are put together by turns, in bf16, and given out again.

        Split they are where tensor-parallel GPUs have a slice each, or replicas a share of each parameter;
        of what replicas share the update of alone, each updates whole matrices.

        Source: Liu et al., arXiv:2502.16982, section 2.3 (Distributed Muon).
        """
        if not OPTIMIZERS[self.scenario.training.optimizer].orthogonal:
            return []
        split: list[tuple[Axis, int]] = []
        if self.plan.sharding.parameters:
            found: tuple[tuple[Axis, int], ...] = (("shard", state.dense), ("expert_shard", state.expert))
            split += [(axis, -(-count // self.plan.degree(axis))) for axis, count in found]
        shared = self.plan.sharding.optimizer
        slices: tuple[tuple[Axis, Axis, int], ...] = (
            ("tensor", "shard", state.dense),
            ("expert_tensor", "expert_shard", state.expert),
        )
        split += [
            (axis, -(-count // (self.plan.degree(share) if shared else 1))) for axis, share, count in slices
        ]
        split = [(axis, count) for axis, count in split if count and self.plan.degree(axis) > 1]
        ways = [*(("gather", *each) for each in split), *(("scatter", *each) for each in reversed(split))]
        return [
            (Communication(f"muon.{way}.all_to_all", "all_to_all", axis, 2 * count), None)
            for way, axis, count in ways
        ]

    def _left_to_reduce(self, state: StageState, tied: tuple[Tie, ...]) -> list[tuple[Item, Ranks | None]]:
        plan, per = self.plan, self.parts.state_bytes
        left: list[tuple[Item, Ranks | None]] = []
        if not self._overlaps and not plan.sharding.each:
            left += [(item, None) for item in gradient_collectives(plan, per, *state.trained)]
        if self.parts.shard.sequence_parallel and state.replicated:
            size = Parameters(state.replicated).size(per.gradients)
            left.append((Communication("norm_gradients.all_reduce", "all_reduce", "tensor", size), None))
        for tie in tied:
            name, size = f"{tie.name}_gradients.all_reduce", Parameters(tie.parameters).size(per.gradients)
            item = Communication(name, "all_reduce", "pipeline", size)
            left.append((item, _holders(plan, len(tie.stages))))
        return left


def _everyone(plan: Plan) -> Ranks:
    """All GPUs."""
    return Ranks(plan.num_gpus, min(plan.num_gpus, plan.group.domain), plan.group.domain)


def _holders(plan: Plan, stages: int) -> Ranks:
    """So many stages of a pipeline, in one domain if all of them are."""
    span = plan.axes.stride("pipeline") * plan.pipeline_parallel
    return Ranks(stages, stages if span <= plan.group.domain else 1, plan.group.domain)
