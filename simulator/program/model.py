"""The model laid out on the stages: which blocks each chunk holds, and what each GPU keeps between steps."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.program.plan import Plan
from simulator.scenario import Scenario
from simulator.specs.model import TransformerSpec
from simulator.workload import (
    Block,
    Shard,
    StateBytes,
    embedding_block,
    head_block,
    layer_block,
    layer_list_blocks,
    state_bytes,
)


@dataclass(frozen=True, slots=True)
class StageState:
    """What one GPU of a stage keeps from step to step, and what a checkpoint of the stage holds.

    Attributes:
        parts: Part -> bytes: ``parameters``, ``gradients``, ``optimizer``.
        parameters: Parameters that the GPU holds.
        replicated: Of them, those that tensor parallelism replicates.
        updated: Parameters that the GPU updates: its share if the optimizer is sharded.
        checkpoint_bytes: Checkpoint of the whole stage [B].
        checkpoint_largest: The most that one GPU writes of it [B].
        checkpoint_writers: GPUs that write.
    """

    parts: dict[str, int]
    parameters: int
    replicated: int
    updated: int
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
        tied_across: Whether first and last stage hold copies of one embedding.
    """

    blocks: tuple[tuple[tuple[Block, ...], ...], ...]
    states: tuple[StageState, ...]
    state_bytes: StateBytes
    shard: Shard
    tied_across: bool


def build_parts(scenario: Scenario, plan: Plan) -> ModelParts:
    """The model's blocks on the plan's stages.

    Raises:
        UnsupportedError: The model has something that is not modelled.
    """
    training = scenario.training
    states = state_bytes(training.precision, training.gradient_precision, training.optimizer)
    shard = Shard(
        micro_batch_size=training.micro_batch_size,
        sequence_length=training.sequence_length,
        tensor_parallel=plan.tensor_parallel,
        sequence_parallel=scenario.parallelism.sequence_parallel and plan.tensor_parallel > 1,
        precision=training.precision,
        attention=training.attention or scenario.software.attention,
        gradient_bytes=states.gradients,
        dropout=_dropout(scenario),
        software=scenario.software,
    )
    model, stages = scenario.model, plan.pipeline_parallel
    tied = isinstance(model, TransformerSpec) and model.tie_word_embeddings
    blocks: tuple[tuple[tuple[Block, ...], ...], ...]
    if isinstance(model, TransformerSpec):
        blocks = _transformer(model, plan, shard)
    else:
        blocks = ((tuple(layer_list_blocks(model, shard)),),)
    sharded = scenario.parallelism.data_parallel_sharding == "optimizer"
    return ModelParts(
        blocks=blocks,
        states=tuple(_state(chunks, plan, states, sharded=sharded) for chunks in blocks),
        state_bytes=states,
        shard=shard,
        tied_across=tied and stages > 1,
    )


def _dropout(scenario: Scenario) -> bool:
    """As training says; else the software's default, which is for models without a gated MLP."""
    if scenario.training.dropout is not None:
        return scenario.training.dropout
    model = scenario.model
    return scenario.software.dropout and isinstance(model, TransformerSpec) and not model.gated_mlp


def _transformer(
    model: TransformerSpec, plan: Plan, shard: Shard
) -> tuple[tuple[tuple[Block, ...], ...], ...]:
    stages, chunks = plan.pipeline_parallel, plan.virtual_pipeline
    layer = layer_block(model, shard)
    embedding = embedding_block(model, shard)
    head = head_block(model, shard, shares_embedding=model.tie_word_embeddings and stages == 1)
    whole: list[tuple[tuple[Block, ...], ...]] = []
    for stage in range(stages):
        held = []
        for chunk in range(chunks):
            virtual = chunk * stages + stage
            front = (embedding,) if virtual == 0 else ()
            back = (head,) if virtual == stages * chunks - 1 else ()
            held.append((*front, *(layer,) * plan.layers_per_chunk[virtual], *back))
        whole.append(tuple(held))
    return tuple(whole)


def _state(
    chunks: tuple[tuple[Block, ...], ...], plan: Plan, per: StateBytes, *, sharded: bool
) -> StageState:
    parameters = sum(block.parameters for chunk in chunks for block in chunk)
    replicated = sum(block.sequential_parameters for chunk in chunks for block in chunk)
    share = plan.data_parallel if sharded else 1
    updated = -(-parameters // share)
    return StageState(
        parts={
            "parameters": parameters * per.parameters,
            "gradients": parameters * per.gradients,
            "optimizer": updated * per.optimizer,
        },
        parameters=parameters,
        replicated=replicated,
        updated=updated,
        checkpoint_bytes=parameters * plan.tensor_parallel * (per.parameters + per.optimizer),
        checkpoint_largest=parameters * per.parameters + updated * per.optimizer,
        checkpoint_writers=plan.tensor_parallel * share,
    )
