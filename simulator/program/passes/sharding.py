"""What replicas communicate: gradients that are reduced, parameters that are gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from operator import add

from simulator.program.passes.exchanges import Gathering, Item, Reduction
from simulator.program.passes.offload import Leg, StageOffload
from simulator.program.passes.reductions import converted, reduced
from simulator.program.planning.plan import Plan
from simulator.workload import Block, Communication, Parameters, StateBytes
from simulator.workload.blocks import BLOCKS_KNOWN
from simulator.workload.kernels import Axis
from simulator.workload.state import NO_PARAMETERS, Width

Kinds = tuple[Parameters, Parameters]
"""Parameters that all replicas hold, and those of routed experts."""

DEFAULT_BUCKET_GRADIENTS = 40_000_000
"""Gradients in a bucket, unless there are more than 40 replicas: then a million for each.

Source: Megatron-Core, ``DistributedDataParallelConfig.bucket_size``.
"""


def gradient_collectives(
    plan: Plan, per: StateBytes, dense: Parameters, expert: Parameters
) -> tuple[Item, ...]:
    """How gradients of so many dense parameters and parameters of routed experts are reduced.

    Gradients whose update is shared out are reduced and scattered within the group that shares it, and then
    summed over the groups (HSDP); others are summed over all replicas.
    """
    found: list[Item] = []
    groups: tuple[tuple[str, Parameters, Axis, Axis, Axis], ...] = (
        ("gradients", dense, "data", "shard", "replica"),
        ("expert_gradients", expert, "expert_data", "expert_shard", "expert_replica"),
    )
    for name, count, everyone, shard, replica in groups:
        if not count.total:
            continue
        if not plan.sharding.optimizer:
            found += reduced(plan, per, name, "all_reduce", everyone, count)
            continue
        found += reduced(plan, per, name, "reduce_scatter", shard, count)
        found += reduced(plan, per, name, "all_reduce", replica, count.share(plan.degree(shard)))
    return tuple(found)


def parameter_collectives(
    plan: Plan, per: StateBytes, dense: Parameters, expert: Parameters
) -> tuple[Item, ...]:
    """How updated parameters come back to all that read them, where only the update is shared out."""
    if not plan.sharding.optimizer or plan.sharding.parameters:
        return ()
    found: list[Item] = []
    for kinds in ((dense, NO_PARAMETERS), (NO_PARAMETERS, expert)):
        if not kinds[0].total + kinds[1].total:
            continue
        way = _gathers(plan, per, *kinds, layouts=per.layouts)
        sent, kept = (per.gathered, per.gathers), (per.kept, per.parameters)
        found += way
        if way:
            count = sum(kinds, NO_PARAMETERS)
            found += converted("parameters.cast_back", count, sent, kept, freed=way[0])
    return tuple(found)


def gathering(plan: Plan, per: StateBytes, offload: StageOffload | None = None) -> Gathering | None:
    """How parameters that are sharded, or lie outside, come to their block; None if all are there.

    Args:
        plan: The plan.
        per: Bytes per parameter.
        offload: What lies outside.
    """
    sharding = plan.sharding
    place = offload.settings.parameters if offload else None
    several = max(plan.degree("shard"), plan.degree("expert_shard")) > 1
    sharded, teacher = sharding.parameters and several, sharding.teacher and several
    if not sharded and not teacher and place is None:
        return None
    of_teacher = replace(per, kept=per.passes, gathered=per.passes)

    @cache
    def of(block: Block) -> tuple[Item, ...]:
        if block.teacher:
            return _gathers(plan, of_teacher, *_read(block)) if teacher else ()
        return _gathers(plan, per, *_read(block)) if sharded else ()

    @cache
    def fetched(block: Block, phase: str) -> tuple[Leg, ...]:
        size = _share(plan, *_read(block), sharded=sharded).size(per.parameters)
        if offload is None or place is None or not size or block.teacher:
            return ()  # a teacher stays where it is
        return tuple(offload.back("parameters", phase, size, place, take=size))

    return Gathering(of, sharding.prefetch, sharding.prefetch_backward, sharding.reshard, fetched)


def _read(block: Block) -> Kinds:
    """Parameters that a block reads, which all replicas hold, and those of its routed experts."""
    experts = block.expert_parameters
    dense = block.parameters - experts + block.read_parameters
    return Parameters(dense, block.matrices[0]), Parameters(experts, block.matrices[1])


def _share(plan: Plan, dense: Parameters, expert: Parameters, *, sharded: bool) -> Parameters:
    """What one GPU keeps of dense parameters and of those of routed experts."""
    if not sharded:
        return dense + expert
    return dense.share(plan.degree("shard")) + expert.share(plan.degree("expert_shard"))


def _gathers(
    plan: Plan, per: StateBytes, dense: Parameters, expert: Parameters, *, layouts: int = 1
) -> tuple[Item, ...]:
    """Gathers of parameters, cast before where they travel in another precision than they are kept in."""
    width = Width(layouts * per.gathers.matrix, per.gathers.other)
    groups: tuple[tuple[str, Parameters, Axis], ...] = (
        ("parameters", dense, "shard"),
        ("expert_parameters", expert, "expert_shard"),
    )
    found: list[Item] = []
    for name, count, axis in groups:
        if not count.total or plan.degree(axis) == 1:
            continue
        own = count.share(plan.degree(axis))
        found += converted(f"{name}.cast", own, (per.kept, per.parameters), (per.gathered, width))
        found.append(Communication(f"{name}.all_gather", "all_gather", axis, count.size(width)))
    return tuple(found)


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
        limit = per.gradients.other * max(DEFAULT_BUCKET_GRADIENTS, 1_000_000 * plan.degree("data"))
    if plan.sharding.parameters:
        limit = 1.0
    if not overlaps:
        limit = float("inf")
    sharding, width = plan.sharding, per.gradients
    found: list[Reduction] = []
    known: dict[Kinds, tuple[Item, ...]] = {}
    for first, last, bucket in _buckets(tuple(blocks), width, limit):
        items = known.get(bucket)
        if items is None:
            items = known[bucket] = gradient_collectives(plan, per, *bucket)
        if not items and offload is None:
            continue
        size = sum(bucket, NO_PARAMETERS).size(width)
        held = size if sharding.gradients and sharding.each else 0
        share, legs = 0, tuple[Leg, ...]()
        if offload is not None and offload.settings.gradients:
            share = _share(plan, *bucket, sharded=sharding.gradients).size(width)
            held, legs = size, _leaving(plan, offload, share)
        if items or legs:
            found.append(Reduction(first, last, items, held, legs, share))
    return tuple(found)


@lru_cache(maxsize=4 * BLOCKS_KNOWN)
def _buckets(blocks: tuple[Block, ...], width: Width, limit: float) -> list[tuple[int, int, Kinds]]:
    """First and last block of each bucket in the order of the backward pass, and its gradients."""
    found = []
    first, totals = -1, [0, 0, 0, 0]
    for position, block in enumerate(reversed(blocks)):
        totals = list(map(add, totals, (*block.trained, *block.trained_matrices)))
        dense, expert, *matrices = totals
        first = position if first < 0 and dense + expert else first
        size = Parameters(dense + expert, sum(matrices)).size(width)
        if size and (size >= limit or position == len(blocks) - 1):
            bucket = Parameters(dense, matrices[0]), Parameters(expert, matrices[1])
            found.append((first, position, bucket))
            first, totals = -1, [0, 0, 0, 0]
    return found


def _leaving(plan: Plan, offload: StageOffload, size: int) -> tuple[Leg, ...]:
    """The way of gradients out; the host adds those of several micro-batches: two reads and a write."""
    legs = offload.out("gradients", "gradient_reduction", size, "host")
    if plan.num_micro_batches > 1:
        legs.append(offload.worked("gradients.accumulate", "gradient_reduction", 3 * size))
    return tuple(legs)
