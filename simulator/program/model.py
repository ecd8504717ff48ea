"""The model laid out on the stages: which blocks each chunk holds, and what each GPU keeps between steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from simulator.program.memory import (
    BUCKETS,
    FRAGMENTATION,
    fragmentation_bytes,
    outside_bytes,
    sharding_bytes,
)
from simulator.program.outline import Outline
from simulator.program.plan import Plan
from simulator.program.recomputation import recomputation
from simulator.program.slots import SLOTS, slot_bytes
from simulator.specs.calibration import Calibration
from simulator.specs.model import TransformerSpec
from simulator.workload import (
    BYTES_PER_ELEMENT,
    Block,
    Shard,
    StateBytes,
    embedding_block,
    head_block,
    largest_transient,
    layer_block,
    layer_list_blocks,
    placeholder_bytes,
    state_bytes,
)
from simulator.workload.frozen import frozen, frozen_layer_blocks
from simulator.workload.precision import base_precision


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
        checkpoint_bytes: Checkpoint of the whole stage [B].
        checkpoint_largest: The most that one GPU writes of it [B].
        checkpoint_writers: GPUs that write.
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
        tied_across: Whether first and last stage train copies of one embedding.
        untrained_parts: Parts of the model, from the first on, below everything that is trained.
    """

    blocks: tuple[tuple[tuple[Block, ...], ...], ...]
    states: tuple[StageState, ...]
    state_bytes: StateBytes
    shard: Shard
    tied_across: bool
    untrained_parts: int = 0


def build_parts(scenario: Outline, plan: Plan, calibration: Calibration) -> ModelParts:
    """The model's blocks on the plan's stages.

    Raises:
        UnsupportedError: The model has something that is not modelled.
    """
    training = scenario.training
    states = state_bytes(
        training.parameter_precision or base_precision(training.precision),
        _gradient_precision(scenario),
        training.optimizer,
        master=training.master_parameters,
        state_precision=training.optimizer_precision,
        communication_precision=training.communication_precision,
    )
    parallelism = scenario.parallelism
    shard = Shard(
        micro_batch_size=training.micro_batch_size,
        sequence_length=training.sequence_length,
        tensor_parallel=plan.tensor_parallel,
        sequence_parallel=scenario.parallelism.sequence_parallel and plan.tensor_parallel > 1,
        precision=base_precision(training.precision),
        recipe=training.precision,
        context_parallel=plan.context_parallel,
        context_method=parallelism.context_parallel_method,
        expert_parallel=plan.axes.expert_parallel,
        expert_tensor_parallel=plan.axes.expert_tensor_parallel,
        expert_load=parallelism.expert_capacity_factor or parallelism.expert_imbalance,
        dispatch_bytes=BYTES_PER_ELEMENT[parallelism.expert_dispatch_precision],
        lora_rank=training.lora_rank,
        lora_targets=training.lora_targets,
        attention=training.attention or scenario.software.attention,
        gradient_bytes=states.gradients,
        dropout=_dropout(scenario),
        software=scenario.software,
    )
    model = scenario.model
    tied = isinstance(model, TransformerSpec) and model.tie_word_embeddings
    blocks: tuple[tuple[tuple[Block, ...], ...], ...]
    if isinstance(model, TransformerSpec):
        blocks = _transformer(model, plan, shard, training.frozen_layers)
    else:
        blocks = ((tuple(layer_list_blocks(model, shard, training.frozen_layers)),),)
    rounds, recomputed = scenario.software.pipeline_slots, recomputation(scenario)
    room = [slot_bytes(plan, stage, chunks, recomputed, rounds) for stage, chunks in enumerate(blocks)]
    return ModelParts(
        blocks=blocks,
        states=tuple(
            _state(chunks, plan, states, shard, calibration, {SLOTS: more})
            for chunks, more in zip(blocks, room, strict=True)
        ),
        state_bytes=states,
        shard=shard,
        tied_across=tied and not _ends_meet(plan) and not training.lora_rank,
        untrained_parts=_untrained_parts(blocks, plan),
    )


def _untrained_parts(blocks: tuple[tuple[tuple[Block, ...], ...], ...], plan: Plan) -> int:
    """Parts in front whose blocks have no backward pass."""
    placement = plan.placement
    trained = [
        placement.part(stage, chunk)
        for stage, chunks in enumerate(blocks)
        for chunk, part in enumerate(chunks)
        if any(block.backward for block in part)
    ]
    return min(trained, default=0)


def _ends_meet(plan: Plan) -> bool:
    """Whether the model's first and last part are on one stage."""
    return plan.pipeline_parallel == 1 or plan.placement.layout != "loop"


def _gradient_precision(scenario: Outline) -> str:
    """As training says; else the software's: fp32, or that of the passes but for bf16."""
    training = scenario.training
    if training.gradient_precision is not None:
        return training.gradient_precision
    own = scenario.software.gradients == "passes" and training.precision == "fp16"
    return "fp16" if own else "fp32"


def _dropout(scenario: Outline) -> bool:
    """As training says; else the software's default, which is for models without a gated MLP."""
    if scenario.training.dropout is not None:
        return scenario.training.dropout
    model = scenario.model
    return scenario.software.dropout and isinstance(model, TransformerSpec) and not model.gated_mlp


def _transformer(
    model: TransformerSpec, plan: Plan, shard: Shard, frozen_layers: int
) -> tuple[tuple[tuple[Block, ...], ...], ...]:
    stages, chunks = plan.pipeline_parallel, plan.virtual_pipeline
    # Adapters, too, leave nothing to train below the first layer that has them.
    below = replace(shard, lora_rank=0)
    layers = _layers(model, shard)
    if frozen_layers:
        layers = frozen_layer_blocks(_layers(model, below)[:frozen_layers]) + layers[frozen_layers:]
    embedding = embedding_block(model, shard)
    if frozen_layers or shard.lora_rank:
        embedding = frozen(embedding_block(model, below))
    head = head_block(model, shard, shares_embedding=model.tie_word_embeddings and _ends_meet(plan))
    whole: list[tuple[tuple[Block, ...], ...]] = []
    for stage in range(stages):
        held = []
        for chunk in range(chunks):
            part = plan.placement.part(stage, chunk)
            front = (embedding,) if part == 0 else ()
            back = (head,) if part == plan.placement.depth - 1 else ()
            first = plan.first_layer(stage, chunk)
            own = layers[first : first + plan.layers_per_part[part]]
            held.append((*front, *own, *back))
        whole.append(tuple(held))
    return tuple(whole)


def _layers(model: TransformerSpec, shard: Shard) -> list[Block]:
    """All layers in order; equal ones are one object."""
    total = model.num_hidden_layers
    if model.mixture is None:
        return [layer_block(model, shard)] * total
    dense = min(model.mixture.first_k_dense_replace, total)
    leading = [layer_block(model, shard, dense=True)] * dense if dense else []
    return leading + [layer_block(model, shard, dense=False)] * (total - dense)


def _gradient_copies(per: StateBytes, shard: Shard) -> int:
    """Bytes per updated parameter of fp32 gradients beside those of the passes, unscaled for the update.

    Source: Smith et al., arXiv:2201.11990, section 2: 20 bytes a parameter.
    """
    apart = shard.precision == "fp16" and per.gradients < 4 and not shard.software.fused_optimizer
    return 4 if apart else 0


def _accumulated(
    blocks: tuple[Block, ...], trained: tuple[int, int], plan: Plan, shard: Shard
) -> tuple[int, int]:
    """Dense and routed parameters that have gradients: where a layer's are one flat tensor, frozen ones have.

    Source: torch.distributed.fsdp.FullyShardedDataParallel, on ``use_orig_params``: gradient memory up to the
    amount of not freezing parameters.
    """
    if not (plan.sharding.parameters and shard.software.flat_parameters):
        return trained
    taking_part = [block for block in blocks if block.parameters > block.frozen_parameters]
    experts = sum(block.expert_parameters for block in taking_part)
    return sum(block.parameters for block in taking_part) - experts, experts


def _state(
    chunks: tuple[tuple[Block, ...], ...],
    plan: Plan,
    per: StateBytes,
    shard: Shard,
    calibration: Calibration,
    more: Mapping[str, int],
) -> StageState:
    blocks = tuple(block for chunk in chunks for block in chunk)
    parameters = sum(block.parameters for block in blocks)
    experts = sum(block.expert_parameters for block in blocks)
    frozen = sum(block.frozen_parameters for block in blocks)
    trained_experts = sum(block.expert_parameters for block in blocks if not block.frozen_parameters)
    dense = parameters - frozen - trained_experts
    sharding, axes = plan.sharding, plan.axes
    groups = plan.degree("shard"), plan.degree("expert_data")

    def shares(counts: tuple[int, int], *, sharded: bool) -> int:
        """What one GPU keeps of dense and of routed parameters."""
        return sum(
            -(-count // (ranks if sharded else 1)) for count, ranks in zip(counts, groups, strict=True)
        )

    trained = dense, trained_experts
    accumulated = _accumulated(blocks, trained, plan, shard)
    held = shares(accumulated, sharded=sharding.gradients and sharding.each)
    updated = shares(trained, sharded=sharding.optimizer)
    outside = sum(block.parameters - block.frozen_parameters for block in blocks if block.name != "layer")
    elsewhere = shares((outside, 0), sharded=sharding.optimizer)
    kept = shares((parameters - experts, experts), sharded=sharding.parameters)
    spread = axes.expert_parallel * axes.expert_tensor_parallel
    copies = (parameters - experts) * plan.tensor_parallel + experts * spread
    trained_copies = dense * plan.tensor_parallel + trained_experts * spread
    return StageState(
        parts={
            "parameters": kept * per.parameters,
            "gradients": held * per.gradients,
            "optimizer": updated * per.optimizer + elsewhere * per.elsewhere,
            "gradient_copies": _gradient_copies(per, shard) * updated,
            "gradient_placeholders": placeholder_bytes(blocks, shard),
            BUCKETS: sharding_bytes(plan, shard.software, (dense + trained_experts) * per.communication),
            FRAGMENTATION: fragmentation_bytes(largest_transient(blocks, shard), shard.software, calibration),
            **more,
            **outside_bytes(plan, shard.software, calibration),
        },
        dense=dense,
        expert=trained_experts,
        replicated=sum(block.sequential_parameters for block in blocks),
        updated=updated,
        held_gradients=held,
        checkpoint_bytes=copies * per.parameters + trained_copies * per.optimizer,
        checkpoint_largest=kept * per.parameters + updated * per.optimizer,
        checkpoint_writers=plan.tensor_parallel * (groups[0] if sharding.optimizer else 1),
    )
