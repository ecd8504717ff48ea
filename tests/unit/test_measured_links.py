"""Links between GPUs as other people write them."""

from __future__ import annotations

import pytest

from simulator.errors import UnsupportedError
from simulator.measurements import node_interconnect


@pytest.mark.parametrize(
    ("written", "home", "meant"),
    [
        ("NVLink4", "", "NVLink4"),
        ("NVLink4 (cut)", "NVLink4-H800", "NVLink4-H800"),
        ("xGMI full mesh", "xGMI-MI300X", "xGMI-MI300X"),
        ("ICI 3D torus, 6 links", "ICI-v5p", "ICI-v5p"),
        ("none", "", "PCIe4"),
        ("none (P2P disabled in driver)", "PCIe5", "PCIe5"),
        ("none, or NVLink3 bridge (pairs)", "NVLink3", "PCIe4"),
    ],
)
def test_a_technology_alone_means_that_of_the_accelerators_own_system(
    written: str, home: str, meant: str
) -> None:
    assert node_interconnect(written, 4, home) == meant


@pytest.mark.parametrize(
    ("written", "home"), [("HCCS full mesh", "NVLink4"), ("xGMI", "NVLink4"), ("xGMI", "")]
)
def test_another_technology_is_refused(written: str, home: str) -> None:
    with pytest.raises(UnsupportedError, match="is not in the catalogue"):
        node_interconnect(written, 8, home)


def test_second_generation_is_told_by_the_size_of_the_node() -> None:
    assert [node_interconnect("NVLink2", gpus) for gpus in (4, 8, 16)] == [
        "NVLink-V100-4GPU",
        "NVLink2-Cube",
        "NVLink2",
    ]
