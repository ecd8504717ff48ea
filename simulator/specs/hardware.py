"""What a cluster is made of: accelerators, links, hosts, storage, and how they are put together."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from simulator.specs._base import (
    Bandwidth,
    Bytes,
    Compute,
    Count,
    CountOrZero,
    Frequency,
    Latency,
    MoneyRate,
    Rate,
    Spec,
    Watts,
)
from simulator.specs.figures import Figure
from simulator.specs.uncertainty import SlowGpusSpec

Precision = Literal["fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8", "fp4"]

Process = Literal["16FF", "12FFN", "8N", "N7", "N6", "N5", "4N", "4NP", "N3P", "N2"]
"""Processes that dies are made in: TSMC's, those that it calls ..N after NVIDIA, and Samsung's 8N."""


class AcceleratorSpec(Spec):
    """One accelerator as its data sheet gives it: dense rates, bandwidths per direction."""

    name: str
    """Name, as shown in reports."""
    vendor: str = "unknown"
    """Maker."""
    peak_flops: dict[Precision, Compute] = Field(min_length=1)
    """Dense matrix throughput by precision [FLOP/s]; a precision that is missing is not supported."""
    any_fp8_layout: bool = False
    """Whether matrix units read operands in fp8 by rows and by columns alike; else products need copies in
    both layouts."""
    vector_flops: Compute
    """Throughput of the general (non-matrix) units in fp32 [FLOP/s]."""
    memory_capacity: Bytes
    """Capacity of the device memory (HBM) [B]."""
    memory_bandwidth: Bandwidth
    """Bandwidth of the device memory [B/s]."""
    l2_capacity: Bytes | None = None
    """Last-level on-chip cache [B]."""
    num_compute_units: Count | None = None
    """Streaming multiprocessors, compute units or cores."""
    boost_clock: Frequency | None = None
    """Clock of the compute units at boost, for which peak rates are quoted [Hz]; start-ups go with it."""
    highest_clock: Frequency | None = None
    """Highest clock of the compute units where power allows, if above `boost_clock` [Hz]."""
    tdp: Watts | None = None
    """Thermal design power [W]."""
    exponentials_per_cycle: Count | None = None
    """Exponentials of one compute unit a cycle, which fused attention waits for; 16, as of GPUs from Volta to
    Blackwell, if not given."""
    process: Process | None = None
    """Process of the dies that compute, which sets the energy of an operation; taken for that of Hopper (4N)
    if not given."""
    price_per_hour: MoneyRate | None = None
    """Rent of one accelerator."""
    figures: dict[str, Figure] = Field(default_factory=dict)
    """Source and basis by figure."""


LinkTopology = Literal["switch", "mesh", "torus", "bus"]


def _listed(rows: object) -> object:
    return tuple(rows) if type(rows) is list else rows


_Row = Annotated[tuple[CountOrZero, ...], BeforeValidator(_listed)]

Transport = Literal["direct", "staged", "software"]
"""Who moves data between accelerator and network: ``direct``, the adapter reads and writes the accelerators'
memory (GPUDirect RDMA); ``staged``, it reads and writes buffers in the host's memory, which data reach over
PCIe; ``software``, a processor core moves every byte besides (TCP, adapters without offload)."""


class LinkSpec(Spec):
    """One accelerator's attachment to an interconnect, per direction."""

    name: str
    """Name, as shown in reports."""
    bandwidth: Bandwidth
    """Bandwidth per accelerator and direction [B/s]."""
    latency: Latency
    """Time of flight of a small message between two ends, without software [s]."""
    topology: LinkTopology = "switch"
    """`switch` (any pair at full rate), `mesh` (a link a pair), `torus` or `bus` (through the host)."""
    num_links: Count | None = None
    """Links that the bandwidth is made of."""
    in_network_reduction: bool = False
    """Whether switches reduce (NVLink SHARP, InfiniBand SHARP)."""
    pair_links: Annotated[tuple[_Row, ...], BeforeValidator(_listed)] | None = None
    """Links between each two accelerators of a mesh, one row an accelerator; equal pairs if not given."""
    transport: Transport = "direct"
    """How data get from an accelerator into the network: `direct`, `staged` in the host's memory, or moved by
    `software` on top of that."""
    shared_by: Count = 1
    """Accelerators that share an adapter which software drives; `bandwidth` is the part of one."""
    figures: dict[str, Figure] = Field(default_factory=dict)
    """Source and basis by figure."""

    @field_validator("pair_links")
    @classmethod
    def _symmetric(
        cls, pairs: tuple[tuple[int, ...], ...] | None, info: ValidationInfo
    ) -> tuple[tuple[int, ...], ...] | None:
        if pairs is None:
            return None
        if info.data.get("topology") != "mesh" or not info.data.get("num_links"):
            raise ValueError("goes with topology: mesh and num_links")
        for a, row in enumerate(pairs):
            if len(row) != len(pairs):
                raise ValueError(f"row {a + 1} has {len(row)} entries for {len(pairs)} accelerators")
            if row[a] or any(row[b] != pairs[b][a] for b in range(a)):
                raise ValueError(f"row {a + 1} links an accelerator to itself, or unlike what its peer says")
            if sum(row) > info.data["num_links"]:
                raise ValueError(f"row {a + 1} has {sum(row)} links of {info.data['num_links']} (num_links)")
        return pairs

    @field_validator("shared_by")
    @classmethod
    def _where_it_counts(cls, shared: int, info: ValidationInfo) -> int:
        if shared > 1 and info.data.get("transport") != "software":
            raise ValueError("goes with transport: software; elsewhere bandwidth alone counts")
        return shared


class HostSpec(Spec):
    """The computer that the accelerators of one node sit in."""

    name: str
    """Name, as shown in reports."""
    cpu_cores: Count
    """Cores that loader workers may use, the whole node together."""
    memory_capacity: Bytes
    """Main memory of the node [B]."""
    memory_bandwidth: Bandwidth
    """Main memory bandwidth of the node [B/s]."""
    pcie_bandwidth: Bandwidth
    """Bandwidth between host and one accelerator, per direction [B/s]."""
    storage_bandwidth: Bandwidth
    """Bandwidth of the node's path to shared storage, per direction [B/s]."""
    figures: dict[str, Figure] = Field(default_factory=dict)
    """Source and basis by figure."""


class StorageSpec(Spec):
    """Storage that training data are read from and checkpoints written to."""

    name: str
    """Name, as shown in reports."""
    kind: Literal["local", "shared"] = "shared"
    """`local`: one set of drives in every node; `shared`: one system for all nodes."""
    servers: Count = 1
    """Equal servers (or drives, if local) that the load is spread over."""
    read_bandwidth: Bandwidth
    """Reading, one server [B/s]."""
    write_bandwidth: Bandwidth
    """Writing, one server [B/s]."""
    read_iops: Rate
    """Read requests per second, one server."""
    write_iops: Rate
    """Write requests per second, one server."""
    latency: Latency
    """Time to the first byte of one request on an idle server [s]."""
    capacity: Bytes | None = None
    """Bytes that one server holds, of drives in a node [B]; offloading is not held to any if not given."""
    figures: dict[str, Figure] = Field(default_factory=dict)
    """Source and basis by figure."""

    @field_validator("capacity")
    @classmethod
    def _of_drives(cls, capacity: float | None, info: ValidationInfo) -> float | None:
        if capacity is not None and info.data.get("kind") == "shared":
            raise ValueError("how much storage of kind: shared holds is not looked at, only drives in nodes")
        return capacity


class FabricSpec(Spec):
    """The network between nodes, above the NICs."""

    oversubscription: float = Field(default=1.0, ge=1.0, le=1000.0)
    """Injection bandwidth of all nodes over the bandwidth of the core; 1 is non-blocking."""


class NodeGroupSpec(Spec):
    """Equal nodes."""

    name: str = "nodes"
    """Name of the group."""
    nodes: Count
    """Nodes in the group."""
    gpus_per_node: Count
    """Accelerators in one node."""
    accelerator: AcceleratorSpec
    """The accelerator, by catalogue name, `base:` plus changed figures, or in full."""
    scale_up: LinkSpec
    """Interconnect within the scale-up domain (NVLink, xGMI, ICI, PCIe), per accelerator."""
    scale_up_domain: Count | None = None
    """Accelerators that the scale-up interconnect joins; the node if not given."""
    scale_out: LinkSpec
    """Network between nodes, per accelerator."""
    host: HostSpec
    """The node's host."""

    @model_validator(mode="after")
    def _mesh_is_large_enough(self) -> Self:
        pairs = self.scale_up.pair_links
        if pairs is not None and len(pairs) < self.domain:
            raise ValueError(
                f"scale_up.pair_links joins {len(pairs)} accelerators, "
                f"but the scale-up domain has {self.domain}"
            )
        return self

    @field_validator("scale_up_domain")
    @classmethod
    def _whole_nodes(cls, domain: int | None, info: ValidationInfo) -> int | None:
        held = info.data.get("gpus_per_node")
        if domain is not None and held is not None and domain % held and held % domain:
            raise ValueError(
                f"{domain} is neither a part nor a multiple of the {held} accelerators of a node"
            )
        return domain

    @property
    def num_gpus(self) -> int:
        """Accelerators in the group."""
        return self.nodes * self.gpus_per_node

    @property
    def domain(self) -> int:
        """Accelerators in one scale-up domain."""
        return self.scale_up_domain or self.gpus_per_node


class ClusterSpec(Spec):
    """Node groups, the fabric that joins them, and storage."""

    name: str = "cluster"
    """Name, as shown in reports."""
    node_groups: tuple[NodeGroupSpec, ...] = Field(min_length=1)
    """Groups of equal nodes; the short form of the scenario is one group."""
    fabric: FabricSpec = FabricSpec()
    """The network above the NICs."""
    storage: StorageSpec | None = None
    """Where data and checkpoints live."""
    drives: StorageSpec | None = None
    """Drives in every node that offloading to `nvme` uses, where `storage` is shared; of `kind: local`."""
    slow_gpus: SlowGpusSpec | None = None
    """GPUs that are slower than the others."""

    @field_validator("drives")
    @classmethod
    def _in_every_node(cls, drives: StorageSpec | None, info: ValidationInfo) -> StorageSpec | None:
        storage = info.data.get("storage")
        if drives is not None and drives.kind != "local":
            raise ValueError(f"{drives.name} is shared by all nodes; drives are of kind: local")
        if drives is not None and storage is not None and storage.kind == "local":
            raise ValueError(f"cluster.storage is drives in every node already: {storage.name}")
        return drives

    @property
    def node_drives(self) -> StorageSpec | None:
        """Drives in every node, if there are any."""
        if self.drives is None and self.storage is not None and self.storage.kind == "local":
            return self.storage
        return self.drives

    @property
    def num_gpus(self) -> int:
        """Accelerators in the whole cluster."""
        return sum(group.num_gpus for group in self.node_groups)
