"""With ideal constants the cost models are the textbook's formulas, exactly."""

import pytest

from simulator.catalog import entry
from simulator.cost import (
    RankGroup,
    capacity_rates,
    collective_demand,
    kernel_demand,
    link_rates,
    send_demand,
)
from simulator.cost.attention import AttentionKernel
from simulator.cost.device import matrix_unit
from simulator.cost.roofline import blurred
from simulator.specs import AcceleratorSpec, Calibration, LinkSpec
from simulator.workload.kernels import AttentionShape, Kernel, MatmulShape

IDEAL = Calibration.load().with_values(
    **{
        name: 1.0 if name.endswith("_fraction") or name == "channels" else 0.0
        for name in Calibration.load().constants
    }
)
H100 = AcceleratorSpec.model_validate(
    {
        "name": "H100",
        "peak_flops": {"bf16": "989.4 TFLOP/s"},
        "vector_flops": "66.9 TFLOP/s",
        "memory_capacity": "80 GB",
        "memory_bandwidth": "3.35 TB/s",
        "num_compute_units": 128,
    }
)


def link(bandwidth: str, latency: str = "0 s", **more: object) -> LinkSpec:
    return LinkSpec.model_validate({"name": "l", "bandwidth": bandwidth, "latency": latency, **more})


def time(
    collective: str, size: int, ranks: int, up: LinkSpec, out: LinkSpec | None = None, local: int = 0
) -> float:
    group = RankGroup(ranks, local or ranks, H100, up, out or link("50 GB/s"))
    return collective_demand(collective, size, group, IDEAL).seconds(link_rates(group))


@pytest.mark.parametrize(
    ("collective", "seconds"),
    [
        ("all_reduce", 0.006263493973333333),
        ("all_gather", 0.0031317469866666667),
        ("reduce_scatter", 0.0031317469866666667),
        ("all_to_all", 0.0031317469866666667),
    ],
)
def test_eight_ranks_move_a_gibibyte_over_300_gigabytes_a_second(collective: str, seconds: float):
    assert time(collective, 2**30, 8, link("300 GB/s")) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("ranks", [2, 3, 8, 72])
def test_a_ring_all_reduce_takes_two_rounds_of_every_other_rank(ranks: int):
    alpha, size, bandwidth = 1e-6, 10**9, 300e9
    expected = 2 * (ranks - 1) * alpha + 2 * (ranks - 1) / ranks * size / bandwidth
    assert time("all_reduce", size, ranks, link("300 GB/s", "1 us")) == pytest.approx(expected, rel=1e-12)


def test_the_delay_of_eight_ranks_is_fourteen_hops():
    group = RankGroup(8, 8, H100, link("300 GB/s", "1 us"), link("50 GB/s"))
    assert collective_demand("all_reduce", 1, group, IDEAL).delay == pytest.approx(1.4e-5, rel=1e-12)
    assert collective_demand("all_gather", 1, group, IDEAL).delay == pytest.approx(0.7e-5, rel=1e-12)


def test_across_nodes_the_slower_of_links_and_adapters_decides():
    size, nodes, local = 8 * 10**9, 16, 8
    ranks = nodes * local
    expected = max((ranks - 1) / ranks * size / 450e9, (ranks - 1) / ranks * size / local / 25e9)
    measured = time("all_gather", size, ranks, link("450 GB/s"), link("25 GB/s"), local)
    assert measured == pytest.approx(expected, rel=1e-12)


def test_a_tree_over_nodes_has_two_log_hops():
    group = RankGroup(1024, 1, H100, link("450 GB/s"), link("50 GB/s", "3 us"))
    demand = collective_demand("all_reduce", 8, group, IDEAL)
    assert demand.detail.startswith("tree")
    assert demand.delay == pytest.approx(2 * 10 * 3e-6, rel=1e-12)


def test_switches_that_reduce_send_and_receive_the_buffer_once():
    nvls = link("450 GB/s", in_network_reduction=True)
    assert time("all_reduce", 10**9, 8, nvls) == pytest.approx(10**9 * (1 + 1 / 8) / 450e9, rel=1e-12)


def test_a_send_is_latency_plus_bytes_over_bandwidth():
    demand = send_demand(10**9, False, link("450 GB/s"), link("50 GB/s", "2 us"), IDEAL)
    rates = {"scale_out": 50e9, "memory_bandwidth": 3.35e12}
    assert demand.seconds(rates) == pytest.approx(2e-6 + 0.02, rel=1e-12)


def test_a_matmul_is_a_roofline():
    rates = capacity_rates(H100)
    m, n, k = 256 * 16, 128 * 64, 8192
    work = Kernel("x", "matmul", 2 * m * n * k, 2 * (m + n) * k, 2 * m * n, "bf16", MatmulShape(m, n, k))
    assert kernel_demand(work, H100, IDEAL).seconds(rates) == pytest.approx(work.flops / 989.4e12, rel=1e-12)
    thin = Kernel("x", "matmul", 2 * 64 * n * k, 2 * (64 + n) * k, 128 * n, "bf16", MatmulShape(64, n, k))
    traffic = (2 * (64 + n) * k + 128 * n) / 3.35e12
    assert kernel_demand(thin, H100, IDEAL).seconds(rates) == pytest.approx(traffic, rel=0.15)


def test_two_limits_are_their_maximum_or_their_sum_and_between_near_the_ridge_only():
    assert blurred(3.0, 2.0, 0.0) == blurred(2.0, 3.0, 0.0) == 3.0
    assert blurred(3.0, 2.0, 1.0) == pytest.approx(5.0)
    assert blurred(3.0, 4.0, 0.5) == pytest.approx(5.0)  # the Euclidean norm
    assert blurred(1.0, 1.0, 1 / 3) == pytest.approx(2 ** (1 / 3))
    assert blurred(1.0, 0.05, 1 / 3) == pytest.approx(1.0, abs=1e-4)
    assert blurred(1.0, 0.0, 1.0) == 1.0


@pytest.mark.parametrize(
    ("name", "width", "hidden"),
    [
        # FLOP of one streaming multiprocessor a cycle in 16 bit, from the architecture whitepapers: 1024 for
        # Volta and Ada, 2048 for Ampere, 4096 for Hopper, twice that for Blackwell; 2048 for CDNA 3.
        ("V100-SXM2-32GB", 1024, 0.0),
        ("L40S", 1024, 0.0),
        ("A100-SXM4-80GB", 2048, 0.0),
        ("MI300X", 2048, 0.0),
        ("H100-SXM5-80GB", 4096, 1.0),
        ("H100-PCIe-80GB", 4096, 1.0),
        ("B200-SXM-180GB", 8192, 1.0),
        ("GB200", 8192, 1.0),
    ],
)
def test_peak_units_and_clock_give_the_width_of_a_unit(name: str, width: float, hidden: float):
    sheet = AcceleratorSpec.model_validate(entry("accelerators", name))
    unit = matrix_unit(sheet, "bf16" if "bf16" in sheet.peak_flops else "fp16")
    assert unit.width == pytest.approx(width, rel=0.02)
    assert unit.hidden == pytest.approx(hidden, abs=0.02)
    assert unit.peak == pytest.approx(unit.units * unit.width * unit.clock)
    assert unit.narrowed(width / 2).peak == pytest.approx(unit.peak / 2, rel=0.02)
    assert unit.narrowed(4 * width) is unit


def test_the_ridge_lies_at_295_flop_a_byte():
    rates = capacity_rates(H100)
    ridge = 295.34328358208955
    for intensity, bound in ((ridge * 1.001, "tensor"), (ridge * 0.999, "memory_bandwidth")):
        kernel = Kernel("x", "matmul", int(1e12 * intensity), 10**12, 0, "bf16")
        amounts = kernel_demand(kernel, H100, IDEAL).amounts
        assert max(amounts, key=lambda kind: amounts[kind] / rates[kind]) == bound


@pytest.mark.parametrize(("direction", "factor"), [("forward", 4), ("backward", 10)])
def test_attention_without_overheads_is_its_flops(direction: str, factor: int):
    shape = AttentionShape(8, 16, 16, 4096, 4096, 128, False, direction)
    flops = factor * 8 * 16 * 4096 * 4096 * 128
    kernel = Kernel("x", "attention", flops, 10**6, 10**6, "bf16", shape)
    assert kernel_demand(kernel, H100, IDEAL).amounts["tensor"] == pytest.approx(flops, rel=1e-12)


@pytest.mark.parametrize(("heads", "parts"), [(1, 128), (4, 32), (128, 1), (256, 1)])
def test_few_blocks_of_queries_share_out_their_keys(heads: int, parts: int):
    """One block of queries occupies one of 128 units; a kernel that is scheduled divides its keys."""
    shape = AttentionShape(1, heads, heads, 128, 65536, 128, False)
    flops = 4 * heads * 128 * 65536 * 128
    kernel = Kernel("x", "attention", flops, 0, 0, "bf16", shape)
    alone, shared = (
        kernel_demand(kernel, H100, IDEAL, AttentionKernel(scheduled=scheduled)).amounts["tensor"]
        for scheduled in (False, True)
    )
    assert alone == pytest.approx(parts * shared, rel=1e-12)
    assert shared == pytest.approx(flops, rel=1e-12)


@pytest.mark.parametrize("together", [1, 4, 16, 128])
def test_heads_that_share_keys_fill_a_block_of_queries_together(together: int):
    """One query of each of 128 heads: a block for each group of heads."""
    shape = AttentionShape(1024, 128, 128 // together, 1, 4096, 128, False)
    kernel = Kernel("x", "attention", 4 * 1024 * 128 * 4096 * 128, 0, 0, "bf16", shape)
    amount = kernel_demand(kernel, H100, IDEAL, AttentionKernel(scheduled=True)).amounts["tensor"]
    assert amount == pytest.approx(128 / together * kernel.flops, rel=1e-12)


def test_reads_of_operands_cost_their_bytes_where_warps_make_them():
    """Each of 4 warps reads every key and value, 512 B, at 128 B a cycle, for 32 queries or for 16."""
    ada = AcceleratorSpec.model_validate(entry("accelerators", "L40S")).model_copy(update={"tdp": None})
    shape = AttentionShape(142, 64, 64, 4096, 4096, 128, False)
    kernel = Kernel("x", "attention", 4 * 142 * 64 * 4096**2 * 128, 0, 0, "bf16", shape)
    reading = IDEAL.with_values(attention_operand_share=1.0)
    wide, narrow = AttentionKernel(interleaved=False), AttentionKernel(64, interleaved=False)
    rate = capacity_rates(ada)["tensor"]

    def cycles(calibration: Calibration, layout: AttentionKernel) -> float:
        scores = 64 * 4096**2
        return kernel_demand(kernel, ada, calibration, layout).amounts["tensor"] / rate * 2.52e9 / scores

    assert cycles(reading, wide) - cycles(IDEAL, wide) == pytest.approx(4 * 512 / 128 / 128, rel=0.01)
    assert cycles(reading, narrow) - cycles(IDEAL, narrow) == pytest.approx(4 * 512 / 128 / 64, rel=0.01)


def test_long_causal_attention_approaches_half_of_the_square():
    shape = AttentionShape(1, 16, 16, 65536, 65536, 128, True)
    kernel = Kernel("x", "attention", 1, 10**6, 10**6, "bf16", shape)
    half = 4 * 16 * 65536 * 65536 * 128 / 2
    assert kernel_demand(kernel, H100, IDEAL).amounts["tensor"] == pytest.approx(half, rel=0.003)
