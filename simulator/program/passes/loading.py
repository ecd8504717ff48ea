"""Samples on their way in and checkpoints on their way out: activities on storage, hosts and PCIe."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from simulator.engine import Label
from simulator.errors import PlanError
from simulator.program.planning.plan import Plan
from simulator.program.pricing.prices import whole
from simulator.program.pricing.rows import Row
from simulator.program.pricing.templates import LANE, Template, TemplateBuilder
from simulator.program.pricing.topology import NANOSECONDS, SLOT, Topology
from simulator.program.pricing.works import Drawing, Storing
from simulator.specs.hardware import HostSpec
from simulator.specs.training import DataSpec

READ_LANE, DECODE_LANE = 0, 1
"""Lanes of the loader, behind those of all stages."""


@dataclass(frozen=True, slots=True)
class Loader:
    """Rows and template of one micro-batch's way from storage to the first stage of every replica.

    Attributes:
        rows: Rows, capacities absolute.
        template: Read, decode, copy; its exit is the copy into device memory.
    """

    rows: tuple[Row, ...]
    template: Template


def loader_cores(data: DataSpec | None, plan: Plan, host: HostSpec) -> int:
    """Cores that the loaders of one node keep busy: workers of all its GPUs, no more than it has."""
    if data is None:
        return 1
    return min(host.cpu_cores, data.loader_workers * _readers_per_node(plan))


def make_loader(
    data: DataSpec, plan: Plan, topology: Topology, *, micro_batch_size: int, loader_lane: int
) -> Loader:
    """How one micro-batch is loaded: all replicas at once, each GPU's workers sharing its samples.

    Reading waits `latency` for each request that one worker makes after the other, and draws bytes and
    requests of all replicas on the storage servers and those of one node on its storage network; decoding
    draws core time on the node's loader cores; the copy draws on PCIe. Samples pass through the host's memory
    on the way in and on the way out.

    Raises:
        PlanError: There is no storage.
    """
    storage = plan.group.storage
    if storage is None:
        raise PlanError(("data",), "samples need storage: cluster.storage is not given")
    readers, local = plan.data_parallel, _readers_per_node(plan)
    own = micro_batch_size * data.sample_size
    requests = _requests(data) * micro_batch_size
    spread = readers if storage == "shared" else local
    reading = Storing(
        "read",
        num_bytes=own * spread,
        requests=requests * spread,
        own_requests=requests,
        workers=data.loader_workers,
        ids=topology.storage(),
        beside=(
            *(((SLOT["storage_network.read"], whole(own * local)),) if storage == "shared" else ()),
            (SLOT["host_memory"], whole(own * local)),
        ),
    )
    copied = ((SLOT["pcie.to_gpu"], whole(own)), (SLOT["host_memory"], whole(own * local)))
    decode = (data.decode_time or 0.0) * micro_batch_size
    decoding = ((SLOT["loader_cpu"], whole(decode * local * NANOSECONDS)),) if decode else ()
    rows = (
        Row(Label("data.read", "data.read", "data"), reading),
        Row(Label("data.decode", "data.decode", "data"), Drawing(decoding)),
        Row(Label("data.copy", "data.copy", "data"), Drawing(copied)),
    )
    into = TemplateBuilder()
    read = into.add(loader_lane + READ_LANE, 0)
    decoded = into.add(loader_lane + DECODE_LANE, 1, after=(read,))
    into.add(LANE["copy"], 2, after=(decoded,))
    return Loader(rows, into.build())


def checkpoint_row(
    topology: Topology, state: int, largest: int, writers: int, copied: int
) -> tuple[Row, Row]:
    """A stage's part of a checkpoint: off the device, then onto storage.

    Args:
        topology: Capacities.
        state: Bytes of the whole stage, all its writers together; all of it is written once.
        largest: Bytes of the GPU that writes most.
        writers: GPUs of the stage that write.
        copied: Bytes of it that lie in its device memory.

    Raises:
        PlanError: There is no storage.
    """
    plan = topology.plan
    storage = plan.group.storage
    if storage is None:
        raise PlanError(("checkpoint",), "a checkpoint needs storage: cluster.storage is not given")
    per_node = min(writers, plan.group.gpus_per_node)
    writing = Storing(
        "write",
        num_bytes=state if storage == "shared" else largest * per_node,
        requests=max(1, writers),
        ids=topology.storage(),
        beside=((SLOT["storage_network.write"], whole(largest * per_node)),) if storage == "shared" else (),
    )
    through = (SLOT["pcie.to_host"], whole(copied)), (SLOT["host_memory"], whole(copied * per_node))
    copying = Drawing(through if copied else ())
    return (
        Row(Label("checkpoint.copy", "checkpoint", "checkpoint"), copying),
        Row(Label("checkpoint.write", "checkpoint", "checkpoint"), writing),
    )


def _readers_per_node(plan: Plan) -> int:
    """GPUs of one node that load samples: one a tensor-parallel group of the first stage."""
    per_node = max(1, plan.group.gpus_per_node // plan.tensor_parallel)
    return min(plan.data_parallel, per_node)


def _requests(data: DataSpec) -> float:
    """Read requests for one sample."""
    size = data.sample_size * data.samples_per_file
    return (ceil(size / data.read_size) if data.read_size else 1) / data.samples_per_file
