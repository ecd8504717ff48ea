"""Links that groups can use: rings packed into meshes by exhaustive search, and data staged in the host."""

from itertools import permutations

import pytest

from simulator.catalog import entry
from simulator.cost import RankGroup, collective_demand, link_rates
from simulator.cost.groups import Members, Pairs, ends, least_links, ring_links
from simulator.specs import AcceleratorSpec, Calibration, LinkSpec

CUBE = LinkSpec.model_validate(entry("interconnects", "NVLink2-Cube"))
V100 = AcceleratorSpec.model_validate(entry("accelerators", "V100-SXM2-32GB"))
CONSTANTS = Calibration.load().constants
GIB = 2**30


def chosen(places: tuple[int, ...]) -> Pairs:
    pairs = CUBE.pair_links
    assert pairs is not None
    return tuple(tuple(pairs[a][b] for b in places) for a in places)


def packed(pairs: Pairs) -> int:
    """Most directed rings through all members that fit on the links at once, by trying all."""
    count = len(pairs)
    rings = [(0, *rest) for rest in permutations(range(1, count))]
    steps = [tuple(zip(ring, (*ring[1:], 0), strict=True)) for ring in rings]

    def most(left: dict[tuple[int, int], int], first: int) -> int:
        best = 0
        for place in range(first, len(steps)):
            if all(left[step] > 0 for step in steps[place]):
                for step in steps[place]:
                    left[step] -= 1
                best = max(best, 1 + most(left, place))
                for step in steps[place]:
                    left[step] += 1
        return best

    return most({(a, b): pairs[a][b] for a in range(count) for b in range(count)}, 0)


@pytest.mark.parametrize("places", [(0, 1), (0, 3), (0, 1, 2), (1, 2, 3), (0, 1, 2, 3), (4, 5, 6, 7)])
def test_rings_on_a_hybrid_cube_mesh_are_as_many_as_fit(places: tuple[int, ...]):
    assert ring_links(chosen(places)) == packed(chosen(places))


def test_rings_on_a_full_mesh_use_every_link():
    for count in (3, 4):
        pairs = tuple(tuple(2 * (a != b) for b in range(count)) for a in range(count))
        assert ring_links(pairs) == packed(pairs) == 2 * (count - 1)


@pytest.mark.parametrize(
    ("members", "bus_bandwidth"),
    [(2, 22.55), (3, 45.15), (4, 85.36), (6, 45.75), (7, 87.0), (8, 134.5)],
)
def test_rings_reach_what_eight_v100_without_a_switch_reached(members: int, bus_bandwidth: float):
    # All-reduces of 1 GiB on the first GPUs of such a node: look-up tables of vTrain (arXiv:2312.12391).
    group = RankGroup(members, members, V100, CUBE, CUBE, 8)
    seconds = collective_demand("all_reduce", GIB, group, Calibration.load()).seconds(link_rates(group))
    assert 2 * (members - 1) / members * GIB / seconds / 1e9 == pytest.approx(bus_bandwidth, rel=0.12)


def test_members_without_a_link_go_over_a_third():
    assert ring_links(chosen((0, 5))) == 1
    assert least_links(chosen((0, 5))) == 0.5
    assert least_links(chosen((0, 1, 2, 3))) == 1.0


def test_a_place_outside_the_mesh_is_refused():
    with pytest.raises(ValueError, match="place 8 of a mesh of 8"):
        _ = Members(2, ends(CUBE), 8, (0, 8)).ring_share


def link(**more: object) -> LinkSpec:
    return LinkSpec.model_validate({"name": "l", "bandwidth": "25 GB/s", "latency": "1 us", **more})


def bound(out: LinkSpec, ranks: int = 4) -> float:
    """Bytes a second of an all-gather's ring over nodes of one accelerator, 4 GiB."""
    group = RankGroup(ranks, 1, V100, link(), out, pcie_bandwidth=15.75e9)
    seconds = collective_demand("all_gather", 4 * GIB, group, Calibration.load()).seconds(link_rates(group))
    return (ranks - 1) / ranks * 4 * GIB / seconds


def test_what_is_staged_in_the_host_crosses_pcie():
    assert bound(link(transport="staged")) == pytest.approx(
        15.75e9 * CONSTANTS["pcie_fraction"].value, rel=0.02
    )
    assert bound(link()) > 1.3 * bound(link(transport="staged"))


def test_software_moves_what_one_core_moves_and_adapters_share_it():
    core = CONSTANTS["host_protocol_rate"].value
    assert bound(link(transport="software")) == pytest.approx(core / 2, rel=0.01)
    assert bound(link(transport="software", shared_by=2)) == pytest.approx(core / 4, rel=0.01)
    slow = link(transport="software", bandwidth="1 GB/s")
    assert bound(slow) == pytest.approx(1e9 * CONSTANTS["scale_out_fraction"].value, rel=0.01)


def test_a_mesh_that_contradicts_itself_is_refused():
    for pairs, complaint in (
        ([[0, 1], [2, 0]], "unlike what its peer says"),
        ([[1, 1], [1, 0]], "links an accelerator to itself"),
        ([[0, 1, 1], [1, 0, 1]], "3 entries for 2"),
        ([[0, 9], [9, 0]], "9 links of 6"),
    ):
        with pytest.raises(ValueError, match=complaint):
            link(topology="mesh", num_links=6, pair_links=pairs)
    with pytest.raises(ValueError, match="topology: mesh"):
        link(pair_links=[[0, 1], [1, 0]])
