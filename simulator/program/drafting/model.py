"""The model laid out on the stages: which blocks each chunk holds, and what each GPU keeps between steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from simulator.program.drafting.memory import (
    BUCKETS,
    FRAGMENTATION,
    WORKSPACE,
    Overheads,
    bucket_bytes,
    forward_bytes,
    fragmentation_bytes,
    outside_bytes,
)
from simulator.program.passes.offload import Offload, check_offload, make_offload
from simulator.program.planning.layout import Blocks, Layout, Tie, lay_out, with_teacher
from simulator.program.planning.outline import Outline
from simulator.program.planning.plan import KEPT_PLANS, Plan, plan_of
from simulator.program.planning.precisions import precisions
from simulator.program.planning.recomputation import recomputation, with_modules
from simulator.program.pricing.slots import SLOTS, held_by_stage, slot_bytes
from simulator.program.schedules.schedule import SCHEDULES, Held
from simulator.specs.model import TransformerSpec
from simulator.specs.training import ParallelismSpec
from simulator.workload import (
    Block,
    Parameters,
    Shard,
    StateBytes,
    largest_transient,
    layer_list_blocks,
    lora,
    placeholder_bytes,
)
from simulator.workload.names import frozen_names
from simulator.workload.precision import base_precision, sized
from simulator.workload.state import NO_PARAMETERS, narrow

Kinds = tuple[Parameters, Parameters]
"""Parameters that all replicas hold, and those of routed experts."""


@dataclass(frozen=True, slots=True)
class StageState:
    """What one GPU of a stage keeps from step to step, and what a checkpoint of the stage holds.

    Attributes:
        parts: Part -> bytes: ``parameters``, ``gradients``, ``optimizer``, and what else is always there.
        dense: Trained parameters of the GPU that all replicas hold.
        expert: Trained parameters of routed experts on the GPU.
        replicated: Trained parameters that tensor parallelism replicates.
        updated: Parameters that the GPU updates: its share if the optimizer is sharded.
        held_gradients: Gradients that the GPU accumulates.
        matrices: Of `dense`, `expert`, `updated` and `held_gradients`, those of the layers' matrices.
        checkpoint_bytes: Checkpoint of the whole stage [B].
        checkpoint_largest: The most that one GPU writes of it [B].
        checkpoint_writers: GPUs that write.
        checkpoint_copied: Bytes of what one GPU writes that lie in its own memory.
        away: State that lies elsewhere: ``host`` or ``nvme`` -> part -> bytes.
    """

    parts: dict[str, int]
    dense: int
    expert: int
    replicated: int
    updated: int
    held_gradients: int
    checkpoint_bytes: int
    checkpoint_largest: int
    checkpoint_writers: int
    checkpoint_copied: int
    matrices: tuple[int, int, int, int] = (0, 0, 0, 0)
    away: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def trained(self) -> tuple[Parameters, Parameters]:
        """Trained parameters that all replicas hold, and those of routed experts."""
        return Parameters(self.dense, self.matrices[0]), Parameters(self.expert, self.matrices[1])

    @property
    def to_update(self) -> Parameters:
        """Parameters that the GPU updates."""
        return Parameters(self.updated, self.matrices[2])

    @property
    def accumulated(self) -> Parameters:
        """Gradients that the GPU accumulates."""
        return Parameters(self.held_gradients, self.matrices[3])

    @property
    def resident_bytes(self) -> int:
        """Bytes in use between steps."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class ModelParts:
    """Blocks by stage and chunk, and the state of each stage.

    Attributes:
        blocks: ``blocks[stage][chunk]``; equal layers are one object.
        states: State of each stage.
        state_bytes: Bytes per parameter.
        shard: One GPU's part of a micro-batch.
        ties: Parameters that lie on several stages.
        untrained_parts: Parts of the model, from the first on, below everything that is trained.
        held: What a micro-batch takes on each stage, where the schedule goes by it.
        offload: What lies outside of device memory, if anything.
    """

    blocks: Blocks
    states: tuple[StageState, ...]
    state_bytes: StateBytes
    shard: Shard
    ties: tuple[Tie, ...]
    untrained_parts: int = 0
    held: tuple[Held, ...] = ()
    offload: Offload | None = None


@lru_cache(maxsize=KEPT_PLANS)
def build_parts(scenario: Outline, overheads: Overheads) -> ModelParts:
    """The model's blocks on the stages of its plan, laid out once.

    Raises:
        UnsupportedError: The model has something that is not modelled.
    """
    plan = plan_of(scenario)
    states = precisions(scenario, plan.num_micro_batches)
    check_offload(scenario, plan, states)
    offload = make_offload(scenario, plan)
    shard, laid_out = lay_out_model(scenario, plan, states)
    blocks = laid_out.blocks
    rounds, recomputed = scenario.software.pipeline_slots, recomputation(scenario)
    keys = [
        (
            chunks,
            slot_bytes(plan, stage, chunks, recomputed, rounds),
            forward_bytes(plan, stage, chunks, recomputed, shard),
        )
        for stage, chunks in enumerate(blocks)
    ]
    equal = {
        key: _state(key[0], plan, states, shard, overheads, {SLOTS: key[1], WORKSPACE: key[2]}, offload)
        for key in dict.fromkeys(keys)
    }
    return ModelParts(
        blocks=blocks,
        states=tuple(equal[key] for key in keys),
        state_bytes=states,
        shard=shard,
        ties=laid_out.ties,
        untrained_parts=_untrained_parts(blocks, plan),
        held=held_by_stage(blocks, recomputed) if SCHEDULES[plan.schedule].fills else (),
        offload=offload,
    )


def _expert_load(parallelism: ParallelismSpec) -> float:
    """Slots of the busiest GPU's experts over the mean; a GPU that has all of them has the mean."""
    if parallelism.expert_capacity_factor is not None:
        return parallelism.expert_capacity_factor
    return parallelism.expert_imbalance if parallelism.expert_parallel > 1 else 1.0


def lay_out_model(scenario: Outline, plan: Plan, states: StateBytes | None = None) -> tuple[Shard, Layout]:
    """One GPU's part of a micro-batch, and the model's blocks on the plan's stages.

    Args:
        scenario: The outline.
        plan: Its plan.
        states: Bytes per parameter, if they are known already.

    Raises:
        UnsupportedError: The model has something that is not modelled.
    """
    training, parallelism = scenario.training, scenario.parallelism
    sent = training.communication_precision
    per = states or precisions(scenario, plan.num_micro_batches)
    shard = Shard(
        micro_batch_size=training.micro_batch_size,
        sequence_length=training.sequence_length,
        tensor_parallel=plan.tensor_parallel,
        sequence_parallel=parallelism.sequence_parallel and plan.tensor_parallel > 1,
        precision=base_precision(training.precision),
        recipe=training.precision,
        context_parallel=plan.context_parallel,
        context_method=parallelism.context_parallel_method,
        expert_parallel=plan.axes.expert_parallel,
        expert_tensor_parallel=plan.axes.expert_tensor_parallel,
        expert_load=_expert_load(parallelism),
        expert_capacity=parallelism.expert_capacity_factor is not None,
        dispatch=sent.dispatch or "",
        combine=sent.combine or "",
        tensor=sent.tensor or "",
        activation_input=training.activation_input_precision or "",
        lora_rank=training.lora_rank,
        lora_targets=training.lora_targets,
        lora_modules=_lora_modules(scenario),
        attention=training.attention or scenario.software.attention,
        gradient_bytes=int(per.gradients.other),
        matrix_gradient=per.accumulated if narrow(per.accumulated) else "",
        weights=per.gathered if plan.sharding.parameters else per.kept,
        one_layout=scenario.cluster.any_fp8_layout,
        weights_stay=not plan.sharding.parameters and training.offload.parameters is None,
        dropout=_dropout(scenario),
        predicted_share=training.predicted_share,
        software=scenario.software,
    )
    model = scenario.model
    if isinstance(model, TransformerSpec):
        laid_out = lay_out(model, plan, training, shard)
        if scenario.distillation is not None:
            laid_out = with_teacher(laid_out, model, scenario.distillation, plan, training, shard)
    else:
        laid_out = Layout(((layer_list_blocks(model, shard, frozen_names(model, training)),),), ())
    return shard, replace(laid_out, blocks=with_modules(scenario, laid_out.blocks))


def _lora_modules(scenario: Outline) -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
    """Modules of the model's matrices that have adapters of their own."""
    if not isinstance(scenario.model, TransformerSpec) or not scenario.training.lora_rank:
        return ()
    return tuple(lora.modules(scenario.model, scenario.parallelism.tensor_parallel).items())


def _untrained_parts(blocks: Blocks, plan: Plan) -> int:
    """Parts in front whose blocks have no backward pass."""
    placement = plan.placement
    trained = [
        placement.part(stage, chunk)
        for stage, chunks in enumerate(blocks)
        for chunk, part in enumerate(chunks)
        if any(block.backward for block in part)
    ]
    return min(trained, default=0)


def _dropout(scenario: Outline) -> bool:
    """As training says; else the software's default, which is for models without a gated MLP."""
    if scenario.training.dropout is not None:
        return scenario.training.dropout
    model = scenario.model
    return scenario.software.dropout and isinstance(model, TransformerSpec) and not model.gated_mlp


def _gradient_copies(
    per: StateBytes, shard: Shard, plan: Plan, *, updated: Parameters, held: Parameters
) -> int:
    """Bytes of fp32 gradients beside those that are accumulated.

    Of a mixed-precision update in kernels of its own: unscaled. Of a graph laid out before the first step,
    whose products do not add gradients themselves: those of a micro-batch, all of which stay to the end of
    its backward pass, for what adds them up is no part of it.

    Source: Smith et al., arXiv:2201.11990, section 2: 20 bytes a parameter; OneFlow, what is consumed in
        another chain is free at the end (oneflow/core/job/intra_job_mem_sharing_util.cpp).
    """
    software = shard.software
    if software.allocator == "planned" and not software.fused_gradient_accumulation:
        return held.size(per.gradients) if plan.num_micro_batches > 1 else 0
    apart = shard.precision == "fp16" and per.gradients.other < 4 and not software.fused_optimizer
    return 4 * updated.total if apart else 0


def _accumulated(blocks: tuple[Block, ...], trained: Kinds, plan: Plan, shard: Shard) -> Kinds:
    """Dense and routed parameters that have gradients: where a layer's are one flat tensor, frozen ones have.

    Source: torch.distributed.fsdp.FullyShardedDataParallel, on ``use_orig_params``: gradient memory up to the
    amount of not freezing parameters.
    """
    if not (plan.sharding.parameters and shard.software.flat_parameters):
        return trained
    taking_part = [block for block in blocks if block.parameters > block.frozen_parameters]
    return _all(taking_part)


def _all(blocks: Sequence[Block]) -> Kinds:
    """Parameters of some blocks that all replicas hold, and those of routed experts."""
    experts = sum(block.expert_parameters for block in blocks)
    dense = sum(block.parameters for block in blocks) - experts
    matrices = (sum(block.matrices[place] for block in blocks) for place in range(2))
    return Parameters(dense, next(matrices)), Parameters(experts, next(matrices))


def _trained(blocks: Sequence[Block]) -> Kinds:
    """The same of those that are trained."""
    dense, expert = (
        Parameters(
            sum(block.trained[place] for block in blocks),
            sum(block.trained_matrices[place] for block in blocks),
        )
        for place in range(2)
    )
    return dense, expert


def _copies(per: StateBytes, kinds: Kinds, kept: Parameters, shard: Shard) -> int:
    """What the products read of weights besides what is kept, where that stays from step to step [B]."""
    if per.layouts > 1:
        return kept.size(per.copies)
    stay = shard.weights_stay and shard.software.weight_copies
    return sum(count.size(per.copies) for count in kinds) if stay else 0


def _teacher(blocks: tuple[Block, ...], plan: Plan, shard: Shard) -> dict[str, int]:
    """A teacher's parameters in the precision of the passes [B]."""
    held = [block for block in blocks if block.teacher]
    if not held:
        return {}
    experts = sum(block.expert_parameters for block in held)
    dense, sharded = sum(block.parameters for block in held) - experts, plan.sharding.teacher
    ranks = plan.degree("shard"), plan.degree("expert_shard")
    shares = (-(-dense // ranks[0]), -(-experts // ranks[1])) if sharded else (dense, experts)
    return {"teacher": sum(shares) * shard.element_bytes}


def _state(
    chunks: tuple[tuple[Block, ...], ...],
    plan: Plan,
    per: StateBytes,
    shard: Shard,
    overheads: Overheads,
    more: Mapping[str, int],
    offload: Offload | None,
) -> StageState:
    everything = tuple(block for chunk in chunks for block in chunk)
    blocks = tuple(block for block in everything if not block.teacher)
    whole, trained = _all(blocks), _trained(blocks)
    sharding, axes = plan.sharding, plan.axes
    groups = plan.degree("shard"), plan.degree("expert_shard")

    def shares(counts: Kinds, *, sharded: bool) -> Parameters:
        """What one GPU keeps of dense and of routed parameters."""
        dense, expert = (
            count.share(ranks if sharded else 1) for count, ranks in zip(counts, groups, strict=True)
        )
        return dense + expert

    held = shares(_accumulated(blocks, trained, plan, shard), sharded=sharding.gradients and sharding.each)
    updated = shares(trained, sharded=sharding.optimizer)
    outside = sum(block.parameters - block.frozen_parameters for block in blocks if block.name != "layer")
    elsewhere = shares((Parameters(outside), NO_PARAMETERS), sharded=sharding.optimizer).total
    kept = shares(whole, sharded=sharding.parameters)
    own = sized(updated.total, per.optimizer)
    state, away = (
        {
            "parameters": kept.size(per.parameters),
            **_teacher(everything, plan, shard),
            "gradients": held.size(per.gradients),
            "optimizer": own + sized(elsewhere, per.elsewhere),
        },
        dict[str, dict[str, int]](),
    )
    largest = kept.size(per.parameters) + own
    reduced = sum(count.size(per.communication) for count in trained)
    spread = plan.tensor_parallel, axes.expert_parallel * axes.expert_tensor_parallel
    saved = sum(
        ways * (count.size(per.parameters) + sized(updates.total, per.optimizer))
        for ways, count, updates in zip(spread, whole, trained, strict=True)
    )
    if offload is not None:
        state, away = offload.split(state)
    return StageState(
        parts={
            **state,
            "gradient_copies": _gradient_copies(per, shard, plan, updated=updated, held=held),
            "gradient_placeholders": placeholder_bytes(blocks, shard),
            "parameter_copies": _copies(per, whole, kept, shard),
            BUCKETS: bucket_bytes(plan, shard.software, reduced),
            FRAGMENTATION: fragmentation_bytes(largest_transient(blocks, shard), shard.software, overheads),
            **more,
            **outside_bytes(plan, shard.software, overheads),
        },
        dense=trained[0].total,
        expert=trained[1].total,
        replicated=sum(block.sequential_parameters for block in blocks),
        updated=updated.total,
        held_gradients=held.total if state["gradients"] else 0,
        matrices=(
            trained[0].matrices,
            trained[1].matrices,
            updated.matrices,
            held.matrices if state["gradients"] else 0,
        ),
        checkpoint_bytes=saved,
        checkpoint_largest=largest,
        checkpoint_copied=min(largest, state["parameters"] + state["optimizer"]),
        away=away,
        checkpoint_writers=plan.tensor_parallel * (groups[0] if sharding.optimizer else 1),
    )
