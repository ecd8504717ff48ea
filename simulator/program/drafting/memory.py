"""What lies on a device besides the model's tensors: driver, libraries, buffers of communicators."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from simulator.program.planning.axes import Group
from simulator.program.planning.plan import Plan
from simulator.program.planning.recomputation import Recomputation
from simulator.specs.calibration import Calibration
from simulator.specs.software import SoftwareSpec
from simulator.workload import Block, Shard, transients

FRAMEWORK = "framework"
"""Part of the memory: context of the driver and code of the libraries."""
COMMUNICATION = "communication_buffers"
"""Part of the memory: buffers through which communicators send."""
BUCKETS = "gradient_buckets"
"""Part of the memory: buffers through which gradients are reduced and sharded state is gathered."""
WORKSPACE = "forward_workspace"
"""Part of the memory: what forward operators need, where backward ones cannot use it in turn."""
FRAGMENTATION = "fragmentation"
"""Part of the memory: what the allocator holds and cannot hand out."""
OUTSIDE = (FRAMEWORK, COMMUNICATION)
"""Parts that the framework's allocator does not know of."""


class Overheads(NamedTuple):
    """The constants of a calibration that device memory depends on, and the only ones; see its file."""

    driver_context: float
    kernel_code: float
    channel_buffer: float
    channel_neighbours: float
    channels: float
    fragmentation: float

    @staticmethod
    def of(calibration: Calibration) -> Overheads:
        """Those of a calibration."""
        memory = calibration.memory
        return Overheads(
            driver_context=memory.driver_context,
            kernel_code=memory.kernel_code,
            channel_buffer=memory.channel_buffer,
            channel_neighbours=memory.channel_neighbours,
            channels=calibration.collectives.channels,
            fragmentation=memory.fragmentation,
        )


_GROUPS: tuple[Group, ...] = ("tensor", "data", "pipeline", "context", "expert")


def outside_bytes(plan: Plan, software: SoftwareSpec, overheads: Overheads) -> dict[str, int]:
    """Memory that the framework's allocator does not know of, by part [B].

    A framework that loads the code of all its kernels holds it besides the driver's context; since CUDA 11.7
    code is loaded when it is first used, for which the context has room. Each axis along which the plan
    communicates has a communicator, and all ranks together have one, for what the whole job agrees on;
    PyTorch makes one for every process group, whoever else has the same members. A communicator keeps buffers
    of all protocols for every channel and every neighbour on its ring and its tree. A framework that brings
    its own transport for stages has none along the pipeline.

    Source: NCCL, ``NCCL_BUFFSIZE``, ``NCCL_LL_BUFF_SIZE``, ``NCCL_LL128_BUFF_SIZE`` (src/include/device.h);
        PyTorch, ``ProcessGroupNCCL``; CUDA Programming Guide, Lazy Loading; PyTorch pull request 86509.
    Valid: communicators that have been used; links between nodes as those inside.
    """
    groups = [group for group in _GROUPS if group != "pipeline" or not software.own_transfers]
    used = sum(plan.degree(group) > 1 for group in groups)
    own_group = software.launcher == "python"
    communicators = used + (used > 1 or (own_group and plan.num_gpus > 1))
    channels = overheads.channel_buffer * overheads.channel_neighbours * overheads.channels
    code = overheads.kernel_code if software.loads_all_kernels else 0.0
    return {
        FRAMEWORK: ceil(overheads.driver_context + code),
        COMMUNICATION: ceil(communicators * channels),
    }


def forward_bytes(
    plan: Plan, stage: int, chunks: Sequence[Sequence[Block]], recomputation: Recomputation, shard: Shard
) -> int:
    """What the forward pass of a stage needs while it runs, beside what a backward pass needs [B].

    In a graph laid out before the first step, passes of different micro-batches run beside each other on a
    stage whose activations have slots, so their operators have places of their own.

    Source: OneFlow, memory chains are merged for one micro-batch only
        (oneflow/core/job/intra_job_mem_sharing_util.cpp).
    """
    if not shard.software.pipeline_slots or plan.pipeline_parallel == 1 or plan.num_micro_batches == 1:
        return 0
    placement = plan.placement
    return max(
        (
            need
            for chunk, blocks in enumerate(chunks)
            if placement.part(stage, chunk) < placement.depth - 1
            for block, mode in zip(blocks, recomputation.modes(blocks), strict=True)
            for passes in (transients(block, shard),)
            for need in (passes.forward if mode == "all" else passes.dropping)
        ),
        default=0,
    )


def bucket_bytes(plan: Plan, software: SoftwareSpec, gradients: int) -> int:
    """Buffers through which gradients are reduced and sharded state is gathered [B].

    Where memory is planned ahead, what a reduction on a stream of its own writes shares no memory with the
    passes. With tensor parallelism collectives are part of the compute stream, but for those behind an
    accumulation.

    Args:
        plan: The plan; a framework that shards does so for a single replica, too.
        software: Its bucket, and whether it lays gradients side by side or copies them into buckets first.
        gradients: All gradients of the GPU as they are reduced [B].

    Source: PyTorch, ``gradient_as_bucket_view``; OneFlow, ``nccl_use_compute_stream``
        (oneflow/core/job_rewriter/insert_nccl_logical_op_pass.cpp).
    """
    if not plan.sharding.optimizer:
        in_stream = software.allocator == "planned" and plan.degree("tensor") > 1
        apart = software.bucket_copies and not (in_stream and plan.num_micro_batches == 1)
        return gradients if apart and plan.degree("data") > 1 else 0
    bucket = min(int(software.sharding_buckets or 0), gradients)
    return bucket + (gradients if software.flat_gradients and not plan.sharding.gradients else 0)


def fragmentation_bytes(largest: int, software: SoftwareSpec, overheads: Overheads) -> int:
    """Memory that the allocator holds and cannot hand out [B].

    Blocks of large tensors that come once a pass serve tensors of other sizes badly; what comes back in the
    same sizes, layer by layer and pass by pass, fits.

    Args:
        largest: The most that an operator outside the layers needs while it runs [B].
        software: Whose allocator it is; one that plans ahead holds nothing in vain.
        overheads: How much of it is held in vain.
    """
    if software.allocator == "planned":
        return 0
    return ceil(largest * overheads.fragmentation)
