"""What replicas communicate: gradients that are reduced, parameters that are gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from simulator.program.exchanges import Gathering, Reduction
from simulator.program.offload import Leg, StageOffload
from simulator.program.plan import Plan
from simulator.workload import Block, Communication, StateBytes
from simulator.workload.kernels import Axis

DEFAULT_BUCKET_GRADIENTS = 40_000_000
"""Gradients in a bucket, unless there are more than 40 replicas: then a million for each.

Source: Megatron-Core, ``DistributedDataParallelConfig.bucket_size``.
"""


def gradient_collectives(plan: Plan, per: StateBytes, dense: int, expert: int) -> tuple[Communication, ...]:
    """How gradients of so many dense parameters and parameters of routed experts are reduced.

    Gradients whose update is shared out are reduced and scattered within the group that shares it, and then
    summed over the groups (HSDP); others are summed over all replicas.
    """
    found: list[Communication] = []
    if not plan.sharding.optimizer:
        groups: tuple[tuple[Axis, str, int], ...] = (
            ("data", "gradients", dense),
            ("expert_data", "expert_gradients", expert),
        )
        for axis, name, count in groups:
            if count and plan.degree(axis) > 1:
                found.append(
                    Communication(f"{name}.all_reduce", "all_reduce", axis, count * per.communication)
                )
        return tuple(found)
    shard, replica = plan.degree("shard"), plan.degree("replica")
    size = dense * per.communication
    if dense and shard > 1:
        found.append(Communication("gradients.reduce_scatter", "reduce_scatter", "shard", size))
    if dense and replica > 1:
        found.append(Communication("gradients.all_reduce", "all_reduce", "replica", -(-size // shard)))
    shard, replica = plan.degree("expert_shard"), plan.degree("expert_replica")
    size = expert * per.communication
    if expert and shard > 1:
        found.append(Communication("expert_gradients.reduce_scatter", "reduce_scatter", "expert_shard", size))
    if expert and replica > 1:
        size = -(-size // shard)
        found.append(Communication("expert_gradients.all_reduce", "all_reduce", "expert_replica", size))
    return tuple(found)


def parameter_collectives(plan: Plan, per: StateBytes, dense: int, expert: int) -> tuple[Communication, ...]:
    """How updated parameters come back to all that read them, where only the update is shared out."""
    if not plan.sharding.optimizer or plan.sharding.parameters:
        return ()
    return _gathers(plan, per, dense, expert)


def gathering(
    plan: Plan, per: StateBytes, offload: StageOffload | None = None, *, teacher_bytes: int = 2
) -> Gathering | None:
    """How parameters that are sharded, or lie outside, come to their block; None if all are there.

    Args:
        plan: The plan.
        per: Bytes per parameter.
        offload: What lies outside.
        teacher_bytes: Bytes of a teacher's parameter.
    """
    sharding = plan.sharding
    place = offload.settings.parameters if offload else None
    several = max(plan.degree("shard"), plan.degree("expert_shard")) > 1
    sharded, teacher = sharding.parameters and several, sharding.teacher and several
    if not sharded and not teacher and place is None:
        return None
    of_teacher = replace(per, parameters=teacher_bytes)

    def parameters(block: Block) -> tuple[int, int]:
        return block.parameters - block.expert_parameters + block.read_parameters, block.expert_parameters

    def of(block: Block) -> tuple[Communication, ...]:
        if block.teacher:
            return _gathers(plan, of_teacher, *parameters(block)) if teacher else ()
        return _gathers(plan, per, *parameters(block)) if sharded else ()

    def fetched(block: Block, phase: str) -> tuple[Leg, ...]:
        size = _share(plan, *parameters(block), sharded=sharded) * per.parameters
        if offload is None or place is None or not size or block.teacher:
            return ()  # a teacher stays where it is
        return tuple(offload.back("parameters", phase, size, place, take=size))

    return Gathering(of, sharding.prefetch, sharding.prefetch_backward, sharding.reshard, fetched)


def _share(plan: Plan, dense: int, expert: int, *, sharded: bool) -> int:
    """What one GPU keeps of dense parameters and of those of routed experts."""
    if not sharded:
        return dense + expert
    return -(-dense // plan.degree("shard")) + -(-expert // plan.degree("expert_shard"))


def _gathers(plan: Plan, per: StateBytes, dense: int, expert: int) -> tuple[Communication, ...]:
    found = []
    if dense and plan.degree("shard") > 1:
        size = dense * per.parameters
        found.append(Communication("parameters.all_gather", "all_gather", "shard", size))
    if expert and plan.degree("expert_shard") > 1:
        size = expert * per.parameters
        found.append(Communication("expert_parameters.all_gather", "all_gather", "expert_shard", size))
    return tuple(found)


@dataclass(slots=True)
class _Bucket:
    first: int = -1
    dense: int = 0
    expert: int = 0


def reductions(
    plan: Plan,
    per: StateBytes,
    blocks: Sequence[Block],
    *,
    limit: float | None,
    overlaps: bool,
    offload: StageOffload | None = None,
) -> tuple[Reduction, ...]:
    """Reductions in the order in which the backward pass fills them; the last one takes what is left.

    Sharded parameters are reduced block by block, as they are gathered; others in buckets, or all at the end
    of the pass where reductions do not overlap it.

    Args:
        plan: The plan.
        per: Bytes per parameter.
        blocks: Blocks in the order of the forward pass.
        limit: Bytes of a bucket; a default if not given.
        overlaps: Whether reductions overlap the backward pass.
        offload: Where gradients go that leave the GPU.
    """
    if not overlaps and not plan.sharding.each:
        return ()
    if limit is None:
        limit = float(per.gradients * max(DEFAULT_BUCKET_GRADIENTS, 1_000_000 * plan.degree("data")))
    if plan.sharding.parameters:
        limit = 1.0
    if not overlaps:
        limit = float("inf")
    found: list[Reduction] = []
    bucket = _Bucket()
    for position, block in enumerate(reversed(blocks)):
        dense, expert = block.trained
        if dense + expert and bucket.first < 0:
            bucket.first = position
        bucket.dense += dense
        bucket.expert += expert
        size = (bucket.dense + bucket.expert) * per.gradients
        if size and (size >= limit or position == len(blocks) - 1):
            items = gradient_collectives(plan, per, bucket.dense, bucket.expert)
            held = size if plan.sharding.gradients and plan.sharding.each else 0
            share, legs = 0, tuple[Leg, ...]()
            if offload is not None and offload.settings.gradients:
                share = per.gradients * _share(
                    plan, bucket.dense, bucket.expert, sharded=plan.sharding.gradients
                )
                held, legs = size, _leaving(plan, offload, share)
            if items or legs:
                found.append(Reduction(bucket.first, position, items, held, legs, share))
            bucket = _Bucket()
    return tuple(found)


def _leaving(plan: Plan, offload: StageOffload, size: int) -> tuple[Leg, ...]:
    """The way of gradients out; the host adds those of several micro-batches: two reads and a write."""
    legs = offload.out("gradients", "gradient_reduction", size, "host")
    if plan.num_micro_batches > 1:
        legs.append(offload.worked("gradients.accumulate", "gradient_reduction", 3 * size))
    return tuple(legs)
