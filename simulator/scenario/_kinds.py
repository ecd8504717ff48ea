"""What a cluster consists of: its parts, each with its spec and its kind in the catalogue, and its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from simulator.catalog import Kind
from simulator.specs import AcceleratorSpec, HostSpec, LinkSpec, NodeGroupSpec, StorageSpec
from simulator.specs._base import Spec


class Part(NamedTuple):
    """A part of a cluster.

    Attributes:
        spec: What it is in full.
        kind: Where the catalogue has it.
    """

    spec: type[Spec]
    kind: Kind


GROUP_PARTS: Final[Mapping[str, Part]] = {
    "accelerator": Part(AcceleratorSpec, "accelerators"),
    "scale_up": Part(LinkSpec, "interconnects"),
    "scale_out": Part(LinkSpec, "interconnects"),
    "host": Part(HostSpec, "hosts"),
}
"""Parts of each node group, by key."""

PARTS: Final[Mapping[str, Part]] = {
    **GROUP_PARTS,
    "storage": Part(StorageSpec, "storage"),
    "drives": Part(StorageSpec, "storage"),
}
"""All parts, by key."""

GROUP_KEYS: Final = tuple(key for key in NodeGroupSpec.model_fields if key != "name")
"""Keys of a node group, which the short form writes into the cluster."""

CLUSTER_KEYS: Final = ("name", "system", "node_groups", "fabric", "storage", "drives", "slow_gpus")
"""Keys of the cluster that belong to no node group."""
