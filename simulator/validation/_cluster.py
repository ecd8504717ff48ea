"""The hardware of a row: its GPUs in nodes, with the links, network and host of the maker's own system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from simulator.errors import UnsupportedError
from simulator.measurements import accelerator, node_interconnect, reference_system

Mapped = dict[str, Any]

_ANY_NETWORK: Final = "InfiniBand-NDR"
"""Whose latency is taken where no system is known, and what stands in the block of a single node."""

_ANY_HOST: Final = "generic-2socket"
"""Host where no system is known."""

_GPUS_PER_NODE: Final = 8

_SIXTEEN: Final = 16
_MODULES_OF_SIXTEEN: Final = {"V100-SXM2-32GB": "V100-SXM3-32GB"}
"""What the accelerators of nodes of sixteen are, whatever they are called: boards for SXM2 carry eight, the
DGX-2 has SXM3."""


def cluster(cells: Mapping[str, str]) -> Mapped:
    """The block `cluster` of a row's scenario.

    A job on a few GPUs of a single node is taken to leave the others of the usual eight idle: where the links
    of a node differ from pair to pair, it runs on those of the first.

    Raises:
        UnsupportedError: Unequal nodes, or links that neither the row nor a system tells.
    """
    gpus, node_size = count(cells, "num_gpus", 1), count(cells, "gpus_per_node", _GPUS_PER_NODE)
    per_node = min(node_size, gpus)
    nodes, rest = divmod(gpus, per_node)
    if rest:
        message = f"{gpus} GPUs in nodes of {per_node} leave {rest}; unequal nodes are not expressed"
        raise UnsupportedError(("cluster", "nodes"), message)
    card = accelerator(cells["gpu"], cells.get("scale_up", ""))
    if node_size == _SIXTEEN:
        card = _MODULES_OF_SIXTEEN.get(card, card)
    system = reference_system(card, count(cells, "gpus_per_node", per_node))
    domain = int(system.get("scale_up_domain", 0))
    return {
        "accelerator": card,
        "nodes": nodes,
        "gpus_per_node": per_node,
        "scale_up": _scale_up(
            cells, system, card, node_size if nodes > 1 else max(node_size, _GPUS_PER_NODE)
        ),
        # A rack-wide domain joins whole nodes, and only as many as there are.
        **({"scale_up_domain": min(domain, gpus)} if domain > per_node and domain % per_node == 0 else {}),
        "scale_out": _scale_out(cells, system, card, nodes),
        "host": system.get("host", _ANY_HOST),
    }


def count(cells: Mapping[str, str], column: str, default: int) -> int:
    """A whole number of a row."""
    return int(float(cells[column])) if column in cells else default


def _scale_up(cells: Mapping[str, str], system: Mapping[str, Any], card: str, node_size: int) -> str:
    home = str(system.get("scale_up", ""))
    if "scale_up" in cells:
        return node_interconnect(cells["scale_up"], node_size, home)
    if home:
        return home
    if count(cells, "num_gpus", 1) > 1:
        raise UnsupportedError(("cluster", "scale_up"), f"not given, and no system with {card} is known")
    return "PCIe4"


def _scale_out(cells: Mapping[str, str], system: Mapping[str, Any], card: str, nodes: int) -> Mapped | str:
    network = str(system.get("scale_out", _ANY_NETWORK))
    if "scale_out_gbps_per_gpu" in cells:
        return {"base": network, "bandwidth": f"{cells['scale_out_gbps_per_gpu']} Gb/s"}
    if nodes > 1 and not system:
        message = f"scale_out_gbps_per_gpu is not given, and no system with {card} is known"
        raise UnsupportedError(("cluster", "scale_out"), message)
    return network
