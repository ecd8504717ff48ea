"""Every stage's templates; stages that hold the same blocks are compiled once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simulator.cost import RankGroup, send_demand
from simulator.engine import Label
from simulator.program.model import ModelParts, StageState
from simulator.program.plan import Plan
from simulator.program.rows import Row, RowTable, picoseconds, whole
from simulator.program.schedules import Pass
from simulator.program.stage import Bucket, Pricer, StageCompiler
from simulator.program.templates import LANE, Assembly, TemplateBuilder
from simulator.program.topology import Topology
from simulator.scenario import Scenario
from simulator.specs.model import TransformerSpec
from simulator.workload import BYTES_PER_ELEMENT, Block, Communication, update_kernels

DEFAULT_BUCKET_GRADIENTS = 40_000_000
"""Gradients in a bucket, unless there are more than 40 replicas: then a million for each.

Source: Megatron-Core, ``DistributedDataParallelConfig.bucket_size``.
"""


@dataclass(slots=True)
class CompiledStage:
    """The templates of one kind of stage.

    Attributes:
        table: Its rows.
        passes: Template by kind of pass, chunk, and whether gradients are reduced behind it.
        before_join: Template of what comes before all stages meet: reductions and norm.
        after_join: Template of what comes after: update and gathering of parameters.
    """

    table: RowTable
    passes: dict[tuple[str, int, bool], int] = field(default_factory=dict)
    enters_on_communication: bool = False
    before_join: int = -1
    after_join: int = -1

    def template(self, item: Pass, *, reduces: bool) -> int:
        """The template of a pass."""
        return self.passes[item.kind, item.chunk, reduces and item.kind == "backward"]


def compile_stages(
    scenario: Scenario, plan: Plan, pricer: Pricer, parts: ModelParts, assembly: Assembly
) -> list[CompiledStage]:
    """One compiled stage for each stage; equal stages share one object."""
    known: dict[object, CompiledStage] = {}
    compiled = []
    for stage, chunks in enumerate(parts.blocks):
        tied = parts.tied_across and stage in (0, plan.pipeline_parallel - 1)
        key = (tuple(tuple(id(block) for block in chunk) for chunk in chunks), tied)
        if key not in known:
            known[key] = _compile(scenario, plan, pricer, parts, stage, assembly, tied=tied)
        compiled.append(known[key])
    return compiled


def send_rows(
    scenario: Scenario, plan: Plan, topology: Topology, pricer: Pricer, stage: int
) -> dict[str, Row]:
    """What a stage sends: activations to the next stage, gradients to the one before."""
    stages = plan.pipeline_parallel
    if stages == 1:
        return {}
    return {
        kind: _send_row(scenario, plan, topology, pricer, stage, (stage + step) % stages, kind)
        for kind, step in (("forward", 1), ("backward", -1))
    }


def _send_row(
    scenario: Scenario, plan: Plan, topology: Topology, pricer: Pricer, stage: int, neighbour: int, kind: str
) -> Row:
    size = _message_bytes(scenario) // plan.tensor_parallel
    group = plan.group
    near = topology.same_domain(stage, neighbour)
    demand = send_demand(size, near, group.scale_up, group.scale_out, pricer.calibration)
    amount = demand.amounts.get("scale_up", 0.0) + demand.amounts.get("scale_out", 0.0)
    path = topology.path(stage, neighbour)
    core = topology.shared.get("core")
    demands = tuple(
        (capacity, whole(amount * (plan.num_gpus_per_stage if capacity == core else 1))) for capacity in path
    )
    return Row(
        Label(f"send.{kind}", "communication.send", kind),
        delay=picoseconds(demand.delay),
        demands=demands if amount else (),
        absolute=True,
    )


def _message_bytes(scenario: Scenario) -> int:
    """The residual stream of one micro-batch [B]; each tensor-parallel rank sends its slice."""
    training = scenario.training
    width = scenario.model.hidden_size if isinstance(scenario.model, TransformerSpec) else 1
    tokens = training.micro_batch_size * training.sequence_length
    return tokens * width * BYTES_PER_ELEMENT[training.precision]


def _compile(
    scenario: Scenario,
    plan: Plan,
    pricer: Pricer,
    parts: ModelParts,
    stage: int,
    assembly: Assembly,
    *,
    tied: bool,
) -> CompiledStage:
    compiler = StageCompiler(pricer, scenario.training.recompute, RowTable(), parts.shard)
    result = CompiledStage(compiler.table)
    gathers = _gather_received(scenario, plan, parts)
    overlaps = scenario.parallelism.overlap_gradient_reduction
    if overlaps is None:
        overlaps = scenario.software.overlap_gradient_reduction
    for chunk, blocks in enumerate(parts.blocks[stage]):
        virtual = chunk * plan.pipeline_parallel + stage
        received = gathers if virtual > 0 else ()
        result.passes["forward", chunk, False] = assembly.register(compiler.forward(blocks, received))
        received = gathers if virtual < len(plan.layers_per_chunk) - 1 else ()
        for reduces in (False, True):
            buckets = _buckets(scenario, plan, parts, blocks) if reduces and overlaps else ()
            template = compiler.backward(blocks, buckets, received)
            result.passes["backward", chunk, reduces] = assembly.register(template)
            result.enters_on_communication |= bool(template.lane[0] != LANE["compute"])
    before, after = _update(
        scenario, plan, parts, parts.states[stage], compiler, overlaps=overlaps, tied=tied
    )
    result.before_join = assembly.register(before.build())
    result.after_join = assembly.register(after.build())
    return result


def _gather_received(scenario: Scenario, plan: Plan, parts: ModelParts) -> tuple[Communication, ...]:
    """Slices of the residual stream are sent between nodes and joined inside the receiving one.

    Source: Narayanan et al., arXiv:2104.04473, section 4.1.
    """
    if plan.tensor_parallel == 1 or parts.shard.sequence_parallel:
        return ()
    return (Communication("receive.all_gather", "all_gather", "tensor", _message_bytes(scenario)),)


def _reduction(scenario: Scenario, size: int) -> Communication:
    sharded = scenario.parallelism.data_parallel_sharding == "optimizer"
    kind = "reduce_scatter" if sharded else "all_reduce"
    return Communication(f"gradients.{kind}", "reduce_scatter" if sharded else "all_reduce", "data", size)


def _buckets(scenario: Scenario, plan: Plan, parts: ModelParts, blocks: Sequence[Block]) -> list[Bucket]:
    """Buckets in the order in which the backward pass fills them; the last one takes what is left."""
    if plan.data_parallel == 1:
        return []
    per = parts.state_bytes.gradients
    limit = scenario.parallelism.gradient_bucket
    if limit is None:
        limit = float(per * max(DEFAULT_BUCKET_GRADIENTS, 1_000_000 * plan.data_parallel))
    buckets, filled = [], 0
    for position, block in enumerate(reversed(blocks)):
        filled += block.parameters * per
        if filled and (filled >= limit or position == len(blocks) - 1):
            buckets.append(Bucket(position, _reduction(scenario, filled)))
            filled = 0
    return buckets


def _update(
    scenario: Scenario,
    plan: Plan,
    parts: ModelParts,
    state: StageState,
    compiler: StageCompiler,
    *,
    overlaps: bool,
    tied: bool,
) -> tuple[TemplateBuilder, TemplateBuilder]:
    """Before all stages meet: what is left to reduce, and the norm. After: update and gathering."""
    training, per = scenario.training, parts.state_bytes
    before: list[tuple[Communication, RankGroup | None]] = []
    if plan.data_parallel > 1 and not overlaps:
        before.append((_reduction(scenario, state.parameters * per.gradients), None))
    if parts.shard.sequence_parallel and state.replicated:
        size = state.replicated * per.gradients
        before.append((Communication("norm_gradients.all_reduce", "all_reduce", "tensor", size), None))
    if tied:
        embedding = next(b for chunks in parts.blocks for c in chunks for b in c if b.name == "embedding")
        size = (embedding.parameters - embedding.sequential_parameters) * per.gradients
        before.append(
            (Communication("embedding_gradients.all_reduce", "all_reduce", "pipeline", size), _ends(plan))
        )
    kernels = update_kernels(
        state.updated,
        per,
        training.optimizer,
        clipping=training.gradient_clipping,
        held_gradients=state.parameters,
    )
    norm = kernels[:-2]
    first = compiler.update(before, norm)
    if norm and plan.num_gpus > 1:
        everyone = RankGroup(
            plan.num_gpus,
            min(plan.num_gpus, plan.group.domain),
            plan.group.accelerator,
            plan.group.scale_up,
            plan.group.scale_out,
            plan.group.domain,
        )
        compiler.reduce(first, Communication("gradient_norm.all_reduce", "all_reduce", "data", 4), everyone)
    if not first.lanes:
        first.add(
            LANE["compute"], compiler.table.add(Row(Label("gradients.ready", "optimizer", "optimizer")))
        )
    last = compiler.update([], kernels[-2:])
    if scenario.parallelism.data_parallel_sharding == "optimizer" and plan.data_parallel > 1:
        size = state.parameters * per.parameters
        compiler.reduce(last, Communication("parameters.all_gather", "all_gather", "data", size), None)
    return first, last


def _ends(plan: Plan) -> RankGroup:
    """First and last stage."""
    span = plan.stride("pipeline") * plan.pipeline_parallel
    near = 2 if span <= plan.group.domain else 1
    group = plan.group
    return RankGroup(2, near, group.accelerator, group.scale_up, group.scale_out, group.domain)
