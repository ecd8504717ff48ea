"""Capacities of the cluster as the representatives see them, and the way from one GPU to another.

Every stage has one representative GPU with the same slots, so a capacity's id is
``stage * len(SLOTS) + slot``; what all share (the fabric's core, the storage servers) comes behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.cost import STORAGE_CAPACITIES, capacity_rates, storage_rates
from simulator.engine import Capacities
from simulator.program.planning.nodes import nodes_of
from simulator.program.planning.outline import ClusterShape
from simulator.program.planning.plan import Plan
from simulator.specs.hardware import ClusterSpec

SLOTS: tuple[tuple[str, str, str], ...] = (
    ("tensor", "tensor", "FLOP"),
    ("vector", "vector", "FLOP"),
    ("memory_bandwidth", "memory_bandwidth", "B"),
    ("launch", "host", "ns"),
    ("scale_up.send", "scale_up", "B"),
    ("scale_up.receive", "scale_up", "B"),
    ("scale_out.send", "scale_out", "B"),
    ("scale_out.receive", "scale_out", "B"),
    ("pcie.to_gpu", "pcie", "B"),
    ("pcie.to_host", "pcie", "B"),
    ("storage_network.read", "storage_network", "B"),
    ("storage_network.write", "storage_network", "B"),
    ("loader_cpu", "loader_cpu", "ns"),
    ("host_memory", "host_memory", "B"),
    ("nvme.read", "storage_read", "B"),
    ("nvme.write", "storage_write", "B"),
)
"""Name, kind and unit of what every representative GPU (and its node) has."""

SLOT = {name: index for index, (name, _, _) in enumerate(SLOTS)}
"""Slot by name."""

NANOSECONDS = 1_000_000_000
"""Capacities of time (launching threads, loader cores) count nanoseconds."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Where capacities are and how transfers reach one another; how fast they are is not known here.

    Attributes:
        plan: The plan on the cluster.
        names: Name of each capacity.
        kinds: Kind of each.
        owners: What each belongs to.
        units: Unit of an amount of each.
        shared: Id of each shared capacity by name: ``core``, ``storage_read``, ...
        same: For each capacity the one that is drawn on in its place: stages on one node share its memory and
            its drives.
        drives: Whether GPUs use the drives of their nodes besides what all share.
    """

    plan: Plan
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    owners: tuple[str, ...]
    units: tuple[str, ...]
    shared: dict[str, int]
    same: NDArray[np.int32]
    drives: bool = False

    def slot(self, stage: int, name: str) -> int:
        """Id of one slot of a stage's representative."""
        return stage * len(SLOTS) + SLOT[name]

    def same_domain(self, source: int, destination: int) -> bool:
        """Whether two stages' neighbouring ranks share a scale-up domain."""
        stride, domain = self.plan.axes.stride("pipeline"), self.plan.group.domain
        return source * stride // domain == destination * stride // domain

    def path(self, source: int, destination: int) -> tuple[int, ...]:
        """Capacities that a transfer from one stage's GPU to another stage's GPU passes, in order."""
        kind = "scale_up" if self.same_domain(source, destination) else "scale_out"
        core = (self.shared["core"],) if kind == "scale_out" and "core" in self.shared else ()
        return (self.slot(source, f"{kind}.send"), *core, self.slot(destination, f"{kind}.receive"))

    def storage(self) -> tuple[tuple[str, int], ...]:
        """Name and id of each of the storage's capacities."""
        return tuple((name, id_) for name, id_ in self.shared.items() if name != "core")

    def capacities(self, cluster: ClusterSpec, *, loader_cores: int) -> Capacities:
        """The capacities with the rates of a cluster of this shape.

        Args:
            cluster: The cluster.
            loader_cores: Cores that the loaders of one node may use.
        """
        own = slot_rates(cluster, loader_cores=loader_cores, drives=self.drives)
        rates = own * self.plan.pipeline_parallel
        if "core" in self.shared:
            rates.append(core_rate(cluster))
        if cluster.storage is not None:
            rates += storage_rates(cluster.storage).values()
        whole = whole_rates(rates)
        whole[self.same != np.arange(len(whole))] = 1  # nothing draws on them
        return Capacities(self.names, self.kinds, self.owners, whole, self.units)


def slot_rates(cluster: ClusterSpec, *, loader_cores: int, drives: bool) -> list[float]:
    """Rates of the slots of one representative; nothing draws on drives that are not there."""
    group = cluster.node_groups[0]
    compute = capacity_rates(group.accelerator)
    read = write = 1.0
    if drives and cluster.node_drives is not None:
        stored = storage_rates(cluster.node_drives)
        read, write = stored["storage_read"], stored["storage_write"]
    return [
        compute["tensor"],
        compute["vector"],
        compute["memory_bandwidth"],
        NANOSECONDS * compute["host"],
        group.scale_up.bandwidth,
        group.scale_up.bandwidth,
        group.scale_out.bandwidth,
        group.scale_out.bandwidth,
        group.host.pcie_bandwidth,
        group.host.pcie_bandwidth,
        group.host.storage_bandwidth,
        group.host.storage_bandwidth,
        float(NANOSECONDS * loader_cores),
        group.host.memory_bandwidth,
        read,
        write,
    ]


def core_rate(cluster: ClusterSpec) -> float:
    """What the fabric's core carries [B/s]."""
    injection = cluster.node_groups[0].scale_out.bandwidth * cluster.num_gpus
    return injection / cluster.fabric.oversubscription


def whole_rates(rates: Sequence[float]) -> NDArray[np.int64]:
    """Rates as the engine wants them: positive integers."""
    return np.maximum(1, np.rint(np.array(rates, dtype=np.float64))).astype(np.int64)


def make_topology(cluster: ClusterShape, plan: Plan, *, drives: bool = False) -> Topology:
    """The capacities of a plan's representatives and of what they share.

    The fabric's core is a capacity only where it is oversubscribed: a non-blocking one never limits.

    Args:
        cluster: Shape of the cluster.
        plan: The plan on it.
        drives: Whether GPUs use the drives of their nodes besides what all share.
    """
    named = _named(plan.pipeline_parallel, cluster.oversubscribed, cluster.storage is not None)
    same = _shared_in_nodes(plan, len(named.names), named.shared if cluster.storage == "local" else {})
    return Topology(plan, *named, same, drives=drives)


class _Named(NamedTuple):
    """Columns of a topology that are the same for all plans with as many stages."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    owners: tuple[str, ...]
    units: tuple[str, ...]
    shared: dict[str, int]


@lru_cache(maxsize=64)
def _named(stages: int, oversubscribed: bool, storage: bool) -> _Named:
    """Names and the like of the slots of all stages, and behind them of what all share."""
    names = [f"stage{stage}.{name}" for stage in range(stages) for name, _, _ in SLOTS]
    kinds = [kind for _, kind, _ in SLOTS] * stages
    owners = [f"stage{stage}" for stage in range(stages) for _ in SLOTS]
    units = [unit for _, _, unit in SLOTS] * stages
    shared: dict[str, int] = {}

    def share(name: str, kind: str, owner: str, unit: str) -> None:
        shared[name] = len(names)
        names.append(f"{owner}.{name}")
        kinds.append(kind)
        owners.append(owner)
        units.append(unit)

    if oversubscribed:
        share("core", "fabric_core", "fabric", "B")
    if storage:
        for name in STORAGE_CAPACITIES:
            share(name, name, "storage", "op" if name.endswith("operations") else "B")
    return _Named(tuple(names), tuple(kinds), tuple(owners), tuple(units), shared)


def _shared_in_nodes(plan: Plan, count: int, shared: dict[str, int]) -> NDArray[np.int32]:
    """What is drawn on for each capacity; the loader reads the drives of the first stage's node."""
    drives = shared.get("storage_read", SLOT["nvme.read"]), shared.get("storage_write", SLOT["nvme.write"])
    return _drawn_on(nodes_of(plan).home, count, drives)


@lru_cache(maxsize=64)
def _drawn_on(home: tuple[int, ...], count: int, drives: tuple[int, int]) -> NDArray[np.int32]:
    """The same, by the first stage on each stage's node and the capacities of the first node's drives."""
    same = np.arange(count, dtype=np.int32)
    first = np.array(home)
    slots = same[: len(first) * len(SLOTS)].reshape(-1, len(SLOTS))
    for name in ("host_memory", "nvme.read", "nvme.write"):
        slots[:, SLOT[name]] = first * len(SLOTS) + SLOT[name]
    for name, place in zip(("nvme.read", "nvme.write"), drives, strict=True):
        slots[first == 0, SLOT[name]] = place
    same.flags.writeable = False
    return same
