"""The hardware that a row of a benchmark names, from the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from simulator.measurements._names import accelerator, interconnect, words
from simulator.specs import AcceleratorSpec, LinkSpec

_SECOND_GENERATION: Final = {16: "NVLink2", 8: "NVLink2-Cube", 4: "NVLink-V100-4GPU"}
"""How NVLink 2 joins the GPUs of a node of so many: a switch (DGX-2), a hybrid cube mesh (DGX-1), a mesh."""

_REFERENCE_SYSTEMS: Final = {
    "V100": "dgx-1",
    "A100": "dgx-a100",
    "H100": "dgx-h100",
    "H200": "dgx-h200",
    "B200": "dgx-b200",
    "B300": "dgx-b300",
    "GB200": "gb200-nvl72",
    "GB300": "gb300-nvl72",
    "Trainium2": "aws-trn2",
}
"""The maker's own system for a generation of cards; of other cards the one system that the catalogue has."""

_EARLY: Final = frozenset({"V100", "A100"})
"""Accelerators that public tables timed with the libraries of their day, 2020 to 2022."""

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
def scale_up_link(name: str, gpus_per_node: int, card: str) -> LinkSpec:
    """The links inside a node of an accelerator of the catalogue.

    Raises:
        UnsupportedError: Not in the catalogue.
    """
    from simulator.catalog import entry

    home = str(reference_system(card).get("scale_up", ""))
    return LinkSpec.model_validate(entry("interconnects", node_interconnect(name, gpus_per_node, home)))


def node_interconnect(name: str, gpus_per_node: int, home: str = "") -> str:
    """The catalogue's interconnect inside a node of that many GPUs.

    Args:
        name: As other people write it.
        gpus_per_node: GPUs of the node.
        home: Interconnect of the accelerator's own system, if known.

    Raises:
        UnsupportedError: Not in the catalogue.
    """
    found = interconnect(name, home)
    return _SECOND_GENERATION.get(gpus_per_node, found) if found == "NVLink2" else found


@cache
def reference_system(card: str, gpus_per_node: int = 0) -> Mapping[str, Any]:
    """The system that a card is at home in, or where its nodes are too small another with that card.

    Empty where the catalogue has none, or several of equal right.
    """
    from simulator.catalog import entry, names

    home = next((_REFERENCE_SYSTEMS[part] for part in card.split("-") if part in _REFERENCE_SYSTEMS), None)
    known: Mapping[str, Any] = entry("systems", home) if home is not None else {}
    if known and known["gpus_per_node"] >= gpus_per_node:
        return known
    systems: list[Mapping[str, Any]] = [entry("systems", name) for name in names("systems")]
    with_card = [system for system in systems if system.get("accelerator") == card]
    if known:
        return next((system for system in with_card if system["gpus_per_node"] >= gpus_per_node), known)
    return with_card[0] if len(with_card) == 1 else {}


def has_early_library(gpu: AcceleratorSpec) -> bool:
    """Whether a table of this accelerator was taken with a library of 2020 to 2022."""
    return not _EARLY.isdisjoint(gpu.name.split("-"))


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
    port = LinkSpec.model_validate(sheet)
    if not gigabits:
        return port
    sheet["bandwidth"] = f"{gigabits} Gb/s"
    link = LinkSpec.model_validate(sheet)
    if link.transport != "software":
        return link
    return link.model_copy(update={"shared_by": max(1, round(port.bandwidth / link.bandwidth))})
