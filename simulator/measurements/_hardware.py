"""The hardware that a row of a benchmark names, from the catalogue."""

from __future__ import annotations

from functools import cache
from typing import Final

from simulator.measurements._names import accelerator, interconnect, words
from simulator.specs import AcceleratorSpec, LinkSpec

_LARGEST_MESH: Final = 8
"""GPUs up to which a node with NVLink 2 joins them pairwise (DGX-1); sixteen of DGX-2 share a switch."""

_TECHNOLOGIES: Final = {
    "efa": "EFA-v1",
    "roce": "RoCE-200",
    "rocev": "RoCE-200",
    "omni": "Omni-Path-100",
    "ndr": "InfiniBand-NDR",
    "ib": "InfiniBand-HDR",
}
"""Network that a description of the hardware names -> entry with its latency; the row says the bandwidth."""

_ANY_NETWORK: Final = "InfiniBand-HDR"
"""Whose latency is taken where the row names no network, and what stands in for that of a single node."""


@cache
def device(name: str, scale_up: str = "") -> AcceleratorSpec:
    """The data sheet of an accelerator as other people write its name.

    Raises:
        UnsupportedError: Not in the catalogue, or several could be meant.
    """
    from simulator.catalog import entry

    return AcceleratorSpec.model_validate(entry("accelerators", accelerator(name, scale_up)))


@cache
def scale_up_link(name: str, gpus_per_node: int) -> LinkSpec:
    """The links inside a node.

    Raises:
        UnsupportedError: Not in the catalogue.
    """
    from simulator.catalog import entry

    sheet = entry("interconnects", interconnect(name))
    if sheet["name"] == "NVLink2" and gpus_per_node <= _LARGEST_MESH:
        sheet["topology"] = "mesh"
    return LinkSpec.model_validate(sheet)


@cache
def scale_out_link(gigabits: str, hardware: str, in_network: bool) -> LinkSpec:
    """The network between nodes, of one GPU.

    Args:
        gigabits: Injection bandwidth per GPU and direction [Gb/s]; empty means the catalogue's.
        hardware: Description of the hardware, of which only the name of the network's technology is read.
        in_network: Whether the switches reduced.
    """
    from simulator.catalog import entry

    named = next((_TECHNOLOGIES[word] for word in words(hardware) if word in _TECHNOLOGIES), _ANY_NETWORK)
    sheet = entry("interconnects", named)
    sheet["in_network_reduction"] = in_network
    if gigabits:
        sheet["bandwidth"] = f"{gigabits} Gb/s"
    return LinkSpec.model_validate(sheet)
