"""What collectives demand: which links, which algorithm, what is refused."""

import pytest

from simulator.cost import Demand, RankGroup, collective_demand, link_rates, send_demand
from simulator.specs import AcceleratorSpec, Calibration, LinkSpec

GPU = AcceleratorSpec.model_validate(
    {
        "name": "GPU",
        "peak_flops": {"bf16": "989 TFLOP/s"},
        "vector_flops": "67 TFLOP/s",
        "memory_capacity": "80 GB",
        "memory_bandwidth": "3.35 TB/s",
    }
)
CALIBRATION = Calibration.load()
GIB = 2**30


def link(bandwidth: str, latency: str = "1 us", **more: object) -> LinkSpec:
    return LinkSpec.model_validate({"name": "l", "bandwidth": bandwidth, "latency": latency, **more})


NVLINK = link("450 GB/s", num_links=18, in_network_reduction=True)
INFINIBAND = link("50 GB/s", "2 us")


def group(
    ranks: int, local: int, up: LinkSpec = NVLINK, out: LinkSpec = INFINIBAND, **more: int
) -> RankGroup:
    return RankGroup(ranks, local, GPU, up, out, **more)


def seconds(collective: str, size: int, members: RankGroup) -> float:
    return collective_demand(collective, size, members, CALIBRATION).seconds(link_rates(members))


def test_a_group_inside_a_domain_leaves_the_network_alone():
    assert "scale_out" not in collective_demand("all_reduce", GIB, group(8, 8), CALIBRATION).amounts


def test_one_rank_or_nothing_to_send_costs_nothing():
    assert collective_demand("all_reduce", GIB, group(1, 1), CALIBRATION) == Demand(delay=0.0)
    assert collective_demand("all_gather", 0, group(8, 8), CALIBRATION) == Demand(delay=0.0)


def test_large_all_reduces_use_the_switches_and_small_ones_do_not():
    assert collective_demand("all_reduce", GIB, group(8, 8), CALIBRATION).detail == "in-network"
    assert collective_demand("all_reduce", 2**14, group(8, 8), CALIBRATION).detail == "ring, low latency"


def test_two_ranks_gain_nothing_from_the_switches():
    assert collective_demand("all_reduce", GIB, group(2, 2), CALIBRATION).detail == "ring, bulk"


def test_small_all_reduces_over_many_nodes_take_the_tree():
    demand = collective_demand("all_reduce", 2**16, group(4096, 8), CALIBRATION)
    assert demand.detail.startswith("tree")
    assert demand.delay < 1e-3


def test_members_in_a_domain_share_the_way_out():
    alone = collective_demand("all_gather", GIB, group(16, 1), CALIBRATION).amounts["scale_out"]
    together = collective_demand("all_gather", GIB, group(16, 8), CALIBRATION).amounts["scale_out"]
    assert alone / together == pytest.approx(8)


def test_a_mesh_gives_a_group_only_the_links_between_its_members():
    mesh = link("448 GB/s", topology="mesh", num_links=7)
    two = seconds("all_reduce", GIB, group(2, 2, mesh))
    eight = seconds("all_reduce", GIB, group(8, 8, mesh))
    assert two > 3 * eight


def test_the_same_members_elsewhere_on_a_mesh_find_other_links():
    pairs = [[0, 2, 1, 1], [2, 0, 1, 1], [1, 1, 0, 2], [1, 1, 2, 0]]
    mesh = link("100 GB/s", topology="mesh", num_links=4, pair_links=pairs)
    near = RankGroup(2, 2, GPU, mesh, INFINIBAND, 4, (0, 1))
    far = RankGroup(2, 2, GPU, mesh, INFINIBAND, 4, (0, 2))
    assert seconds("all_reduce", GIB, far) / seconds("all_reduce", GIB, near) == pytest.approx(2, rel=0.05)


def test_the_128_byte_protocol_needs_more_than_pcie():
    bus = link("31.5 GB/s", topology="bus")
    sizes = [2**exponent for exponent in range(10, 30)]
    details = {collective_demand("all_gather", size, group(8, 8, bus), CALIBRATION).detail for size in sizes}
    assert details == {"ring, low latency", "ring, bulk"}


def test_start_ups_go_with_the_clock():
    slow = GPU.model_copy(update={"boost_clock": 0.915e9})
    times = [
        collective_demand("send", 1, RankGroup(2, 2, gpu, NVLINK, INFINIBAND), CALIBRATION).delay - 1e-6
        for gpu in (GPU, slow)
    ]
    assert times[1] / times[0] == pytest.approx(2)


def test_all_to_all_on_a_torus_pays_for_its_detours():
    torus, switch = link("300 GB/s", topology="torus", num_links=6), link("300 GB/s")
    assert seconds("all_to_all", GIB, group(4096, 4096, torus)) > 5 * seconds(
        "all_to_all", GIB, group(4096, 4096, switch)
    )
    assert seconds("all_gather", GIB, group(4096, 4096, torus)) < seconds(
        "all_gather", GIB, group(4096, 4096, switch)
    )


@pytest.mark.parametrize("ranks", [2, 3, 7, 8, 64, 1000, 100_000])
@pytest.mark.parametrize(
    "collective", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"]
)
def test_any_number_of_ranks_gives_a_time_above_the_bandwidth_bound(collective: str, ranks: int):
    members = group(ranks, min(8, ranks))
    bound = (ranks - 1) / ranks * GIB / 450e9 if collective != "broadcast" else GIB / 450e9
    assert bound < seconds(collective, GIB, members) < 10


def test_large_collectives_hold_compute_units_and_small_ones_hardly_any():
    assert collective_demand("all_gather", GIB, group(8, 8), CALIBRATION).compute_units == 16
    assert collective_demand("all_gather", 1024, group(8, 8), CALIBRATION).compute_units == 1


def test_a_send_takes_the_link_between_its_ends():
    inside = send_demand(GIB, True, NVLINK, INFINIBAND, CALIBRATION)
    outside = send_demand(GIB, False, NVLINK, INFINIBAND, CALIBRATION)
    assert set(inside.amounts) == {"scale_up", "memory_bandwidth"}
    assert set(outside.amounts) == {"scale_out", "memory_bandwidth"}
    assert send_demand(0, True, NVLINK, INFINIBAND, CALIBRATION) == Demand(delay=0.0)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="negative"):
        collective_demand("all_reduce", -1, group(8, 8), CALIBRATION)
    with pytest.raises(ValueError, match="negative"):
        send_demand(-1, True, NVLINK, INFINIBAND, CALIBRATION)
    with pytest.raises(ValueError, match='"gossip" is not one of all_reduce'):
        collective_demand("gossip", 1, group(8, 8), CALIBRATION)
    with pytest.raises(ValueError, match="cannot have 16"):
        group(8, 16)


def test_libraries_of_their_day_start_later_and_do_not_reduce_in_the_switches():
    old = RankGroup(8, 8, GPU, NVLINK, INFINIBAND, early_library=True)
    late = CALIBRATION.constants["early_launch"].value
    assert seconds("all_gather", GIB, old) - seconds("all_gather", GIB, group(8, 8)) == pytest.approx(late)
    assert collective_demand("all_reduce", GIB, old, CALIBRATION).detail == "ring, bulk"


def test_what_is_staged_in_the_host_draws_on_pcie_at_both_ends():
    staged = link("25 GB/s", transport="staged")
    sent = send_demand(GIB, False, NVLINK, staged, CALIBRATION)
    share = CALIBRATION.constants["pcie_fraction"].value
    assert sent.amounts["pcie"] == pytest.approx(GIB / share)
    assert "pcie" not in send_demand(GIB, True, NVLINK, staged, CALIBRATION).amounts
    assert sent.delay > send_demand(GIB, False, NVLINK, link("25 GB/s"), CALIBRATION).delay
