"""More work is never faster, on any sweep of sizes."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost import RankGroup, capacity_rates, collective_demand, kernel_demand, link_rates
from simulator.cost.attention import FLASH, AttentionKernel
from simulator.specs import AcceleratorSpec, Calibration, LinkSpec
from simulator.workload.kernels import AttentionShape, Kernel, MatmulShape

CALIBRATION = Calibration.load()
GPU = AcceleratorSpec.model_validate(
    {
        "name": "GPU",
        "peak_flops": {"bf16": "989.4 TFLOP/s"},
        "vector_flops": "66.9 TFLOP/s",
        "memory_capacity": "80 GB",
        "memory_bandwidth": "3.35 TB/s",
        "num_compute_units": 132,
        "tdp": "700 W",
    }
)
RATES = capacity_rates(GPU)
SIZES = st.integers(1, 20_000)


def matmul_seconds(m: int, n: int, k: int, batch: int, gpu: AcceleratorSpec = GPU) -> float:
    kernel = Kernel(
        "x",
        "matmul",
        2 * batch * m * n * k,
        2 * batch * (m + n) * k,
        2 * batch * m * n,
        "bf16",
        MatmulShape(m, n, k, batch),
    )
    return kernel_demand(kernel, gpu, CALIBRATION).seconds(capacity_rates(gpu))


def attention_seconds(shape: AttentionShape, layout: AttentionKernel = FLASH) -> float:
    scores = sum(range(1, shape.query_length + 1)) if shape.causal else shape.query_length * shape.key_length
    flops = 4 * shape.batch * shape.heads * scores * shape.head_dim
    traffic = 2 * shape.batch * shape.query_length * shape.heads * shape.head_dim
    kernel = Kernel("x", "attention", flops, 3 * traffic, traffic, "bf16", shape)
    return kernel_demand(kernel, GPU, CALIBRATION, layout).seconds(RATES)


@given(st.tuples(SIZES, SIZES, SIZES, st.integers(1, 64)), st.integers(0, 3), st.integers(1, 3000))
@settings(max_examples=150)
def test_a_larger_matmul_is_never_faster(shape: tuple[int, int, int, int], which: int, more: int):
    larger = list(shape)
    larger[which] += more
    assert matmul_seconds(*larger) >= matmul_seconds(*shape) * (1 - 1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_matmul_steps_only_where_a_further_tile_begins(axis: int):
    shape = [4096, 4096, 4096, 1]
    sizes = range(1024, 4096, 16)
    times = [matmul_seconds(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    for size, before, after in zip(sizes, times, times[1:], strict=False):
        if size % 32:
            assert after / before < 1.02, f"a step from {size} to {size + 16}"


def test_a_matmul_is_smooth_along_k():
    times = [matmul_seconds(4096, 4096, k, 1) for k in range(1024, 4096, 16)]
    assert all(1.0 < after / before < 1.02 for before, after in pairwise(times))


@given(
    st.integers(1, 16),
    st.integers(1, 96),
    st.integers(1, 5000),
    st.sampled_from([32, 64, 128, 256]),
    st.booleans(),
    st.sampled_from(["batch", "heads", "length", "head_dim"]),
    st.integers(1, 1000),
)
@settings(max_examples=150)
def test_larger_attention_is_never_faster(
    batch: int, heads: int, length: int, head_dim: int, causal: bool, what: str, more: int
):
    shape = AttentionShape(batch, heads, heads, length, length, head_dim, causal)
    larger = {
        "batch": replace(shape, batch=batch + more % 7 + 1),
        "heads": replace(shape, heads=heads + more % 7 + 1),
        "length": replace(shape, query_length=length + more, key_length=length + more),
        "head_dim": replace(shape, head_dim=2 * head_dim),
    }[what]
    assert attention_seconds(larger) >= attention_seconds(shape) * (1 - 1e-12)


@given(
    st.integers(1, 16),
    st.integers(1, 16),
    st.sampled_from([1, 2, 3, 8, 64, 200]),
    st.integers(1, 5000),
    st.sampled_from([64, 128, 256]),
    st.booleans(),
    st.sampled_from(["batch", "heads", "length", "head_dim"]),
    st.sampled_from([AttentionKernel(scheduled=True), AttentionKernel(64, interleaved=False)]),
    st.integers(1, 1000),
)
@settings(max_examples=150)
def test_larger_attention_is_never_faster_in_the_kernels_of_inference_engines(
    batch: int,
    kv_heads: int,
    together: int,
    length: int,
    head_dim: int,
    causal: bool,
    what: str,
    layout: AttentionKernel,
    more: int,
):
    shape = AttentionShape(batch, together * kv_heads, kv_heads, length, length, head_dim, causal)
    larger = {
        "batch": replace(shape, batch=batch + more % 7 + 1),
        "heads": replace(shape, heads=(kv_heads + more % 7) * together, kv_heads=kv_heads + more % 7),
        "length": replace(shape, query_length=length + more, key_length=length + more),
        "head_dim": replace(shape, head_dim=2 * head_dim),
    }[what]
    assert attention_seconds(larger, layout) >= attention_seconds(shape, layout) * (1 - 1e-12)


@given(
    st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"]),
    st.integers(2, 5000),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(["switch", "mesh", "torus", "bus"]),
    st.integers(1, 2**33),
    st.integers(1, 2**33),
)
@settings(max_examples=150)
def test_more_bytes_are_never_faster(
    collective: str, ranks: int, local: int, topology: str, size: int, more: int
):
    up = LinkSpec.model_validate(
        {"name": "u", "bandwidth": "300 GB/s", "latency": "1 us", "topology": topology, "num_links": 8}
    )
    out = LinkSpec.model_validate({"name": "o", "bandwidth": "25 GB/s", "latency": "2 us"})
    group = RankGroup(ranks, min(local, ranks), GPU, up, out)
    rates = link_rates(group)
    small = collective_demand(collective, size, group, CALIBRATION).seconds(rates)
    large = collective_demand(collective, size + more, group, CALIBRATION).seconds(rates)
    assert large >= small * (1 - 1e-12)


@given(st.integers(2, 300), st.floats(1.1, 10.0))
@settings(max_examples=60)
def test_faster_links_are_never_slower(ranks: int, factor: float):
    times = []
    for bandwidth in (25.0, 25.0 * factor):
        out = LinkSpec.model_validate({"name": "o", "bandwidth": f"{bandwidth:.3f} GB/s", "latency": "2 us"})
        up = LinkSpec.model_validate({"name": "u", "bandwidth": "300 GB/s", "latency": "1 us"})
        group = RankGroup(ranks, 1, GPU, up, out)
        demand = collective_demand("all_reduce", 10**8, group, CALIBRATION)
        times.append(demand.seconds(link_rates(group)))
    assert times[1] <= times[0]


@given(
    st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]),
    st.integers(1, 20_000),
    st.integers(1, 1000),
    st.sampled_from([1, 4, 8, 72]),
    st.integers(1, 2**33),
    st.sampled_from(["direct", "staged", "software"]),
)
@settings(max_examples=150)
def test_more_nodes_are_never_faster_behind_a_switch(
    collective: str, nodes: int, more: int, local: int, size: int, transport: str
):
    up = LinkSpec.model_validate({"name": "u", "bandwidth": "300 GB/s", "latency": "1 us"})
    out = LinkSpec.model_validate(
        {"name": "o", "bandwidth": "25 GB/s", "latency": "2 us", "transport": transport}
    )
    times = []
    for count in (nodes, nodes + more):
        group = RankGroup(count * local, local, GPU, up, out, pcie_bandwidth=30e9)
        demand = collective_demand(collective, size, group, CALIBRATION)
        times.append(demand.seconds(link_rates(group)))
    assert times[1] >= times[0] * (1 - 1e-12)


def test_a_better_accelerator_is_never_slower():
    base = GPU.model_dump()
    for figure, value in (
        ("memory_bandwidth", "5 TB/s"),
        ("tdp", "1 kW"),
        ("peak_flops", {"bf16": "1500 TFLOP/s"}),
    ):
        better = AcceleratorSpec.model_validate({**base, figure: value})
        for shape in ((8192, 8192, 8192, 1), (128, 16384, 4096, 1), (512, 512, 512, 8)):
            assert matmul_seconds(*shape, gpu=better) <= matmul_seconds(*shape) * (1 + 1e-12), (figure, shape)
