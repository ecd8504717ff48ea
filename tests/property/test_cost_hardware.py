"""No figure of an accelerator, raised alone, makes any kernel slower."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost import capacity_rates, kernel_demand, slowest_of
from simulator.cost.demand import ELEMENT_BYTES
from simulator.cost.step import attention_slowdown
from simulator.specs import AcceleratorSpec, Calibration
from simulator.specs.hardware import Process
from simulator.workload.kernels import AttentionShape, Kernel, MatmulShape

CALIBRATION = Calibration.load()
T, G = 1e12, 1e9


def figures(
    bf16: float, vector: float, bandwidth: float, units: int, clock: float, tdp: float
) -> dict[str, Any]:
    return {
        "name": "GPU",
        "peak_flops": {"bf16": bf16 * T, "fp8": 2 * bf16 * T},
        "vector_flops": vector * T,
        "memory_capacity": 80 * G,
        "memory_bandwidth": bandwidth * T,
        "l2_capacity": 50e6,
        "num_compute_units": units,
        "boost_clock": clock * G,
        "highest_clock": 1.05 * clock * G,
        "tdp": tdp,
    }


BASES = {
    "narrow, fast clock, hot": figures(362.0, 91.6, 0.864, 142, 2.52, 350.0),
    "wide, hot": figures(989.4, 66.9, 3.35, 132, 1.83, 700.0),
    "wider still": figures(2250.0, 80.0, 8.0, 148, 1.856, 1000.0),
    "cool": figures(312.0, 19.5, 2.04, 108, 1.41, 400.0),
}
RAISED = (
    "peak_flops.bf16",
    "peak_flops.fp8",
    "vector_flops",
    "memory_capacity",
    "memory_bandwidth",
    "l2_capacity",
    "highest_clock",
    "tdp",
)
SIZES = st.integers(1, 20_000)
MATMULS = st.builds(
    lambda m, n, k, batch, precision, kind: Kernel(
        "x",
        kind,
        2 * batch * m * n * k,
        int(ELEMENT_BYTES[precision] * batch * (m * k + n * k)),
        2 * batch * m * n,
        precision,
        MatmulShape(m, n, k, batch),
    ),
    SIZES,
    SIZES,
    SIZES,
    st.integers(1, 16),
    st.sampled_from(["bf16", "fp8"]),
    st.sampled_from(["matmul", "convolution"]),
)
ATTENTIONS = st.builds(
    lambda batch, heads, length, head_dim, causal, backward: Kernel(
        "x",
        "attention",
        (10 if backward else 4) * batch * heads * length**2 * head_dim // (1 + causal),
        6 * batch * heads * length * head_dim,
        2 * batch * heads * length * head_dim,
        "bf16",
        AttentionShape(
            batch,
            heads,
            heads,
            length,
            length,
            head_dim,
            causal,
            "backward" if backward else "forward",
        ),
    ),
    st.integers(1, 16),
    st.integers(1, 64),
    st.integers(1, 9000),
    st.sampled_from([32, 64, 128, 256]),
    st.booleans(),
    st.booleans(),
)
OTHERS = st.builds(
    lambda size, flops: Kernel("x", "elementwise", flops * size, 4 * size, 2 * size, "bf16"),
    st.integers(1, 10**9),
    st.integers(0, 40),
)


def accelerator(base: dict[str, Any], raised: str = "", factor: float = 1.0) -> AcceleratorSpec:
    changed = {**base, "peak_flops": dict(base["peak_flops"])}
    outer, _, inner = raised.partition(".")
    if inner:
        changed[outer][inner] *= factor
    elif outer:
        changed[outer] *= factor
    return AcceleratorSpec.model_construct(**changed)


def seconds(kernel: Kernel, gpu: AcceleratorSpec) -> float:
    return kernel_demand(kernel, gpu, CALIBRATION).seconds(capacity_rates(gpu))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("raised", RAISED)
@given(st.one_of(MATMULS, ATTENTIONS, OTHERS), st.floats(1.001, 4.0))
@settings(max_examples=30)
def test_more_of_one_figure_is_never_slower(base: str, raised: str, kernel: Kernel, factor: float) -> None:
    before = seconds(kernel, accelerator(BASES[base]))
    after = seconds(kernel, accelerator(BASES[base], raised, factor))
    assert after <= before * (1 + 1e-9)


@pytest.mark.parametrize("figure", ["tdp", "highest_clock", "boost_clock", "l2_capacity"])
def test_a_figure_that_is_not_given_is_not_in_the_way(figure: str) -> None:
    known = accelerator(BASES["wide, hot"])
    unknown = AcceleratorSpec.model_construct(**{k: v for k, v in BASES["wide, hot"].items() if k != figure})
    kernel = Kernel(
        "x", "matmul", 2 * 4096**3, 4 * 4096**2, 2 * 4096**2, "bf16", MatmulShape(4096, 4096, 4096)
    )
    assert seconds(kernel, unknown) == pytest.approx(seconds(kernel, known), rel=0.35)


def test_power_throttles_to_a_rate_that_the_highest_clock_does_not_change() -> None:
    """What a hot chip sustains is set by its power: a higher clock that it cannot hold buys nothing."""
    kernel = Kernel(
        "x", "matmul", 2 * 16384**3, 4 * 16384**2, 2 * 16384**2, "bf16", MatmulShape(16384, 16384, 16384)
    )
    sharp = CALIBRATION.with_values(roofline_softness=0.0)

    def matrix_time(raised: str = "", factor: float = 1.0) -> float:
        gpu = accelerator(BASES["narrow, fast clock, hot"], raised, factor)
        return kernel_demand(kernel, gpu, sharp).amounts["tensor"]

    assert matrix_time("highest_clock", 1.2) == pytest.approx(matrix_time(), rel=1e-3)
    # Power falls with the cube of the clock: with an eighth of it, half the rate.
    assert matrix_time("tdp", 1 / 8) == pytest.approx(2 * matrix_time(), rel=1e-3)


def test_where_power_limits_time_goes_with_the_cube_root_of_what_a_process_takes() -> None:
    """At the same speed N5 takes 30 % less than N7, which takes 60 % less than 16FF (TSMC)."""
    kernel = Kernel(
        "x", "matmul", 2 * 16384**3, 4 * 16384**2, 2 * 16384**2, "bf16", MatmulShape(16384, 16384, 16384)
    )
    sharp = CALIBRATION.with_values(roofline_softness=0.0)
    hot = BASES["wide, hot"] | {"tdp": 100.0}

    def matrix_time(process: Process) -> float:
        gpu = AcceleratorSpec.model_construct(**hot, process=process)
        return kernel_demand(kernel, gpu, sharp).amounts["tensor"]

    assert matrix_time("N5") == pytest.approx(matrix_time("N7") * 0.7 ** (1 / 3), rel=1e-3)
    assert matrix_time("N7") == pytest.approx(matrix_time("16FF") * 0.4 ** (1 / 3), rel=1e-3)


def test_power_does_not_limit_systolic_arrays() -> None:
    """Energies are those of units that read registers for every operation; a few large cores do not."""
    kernel = Kernel(
        "x", "matmul", 2 * 16384**3, 4 * 16384**2, 2 * 16384**2, "bf16", MatmulShape(16384, 16384, 16384)
    )
    few = BASES["wide, hot"] | {"num_compute_units": 2}
    assert seconds(kernel, accelerator(few, "tdp", 0.1)) == seconds(kernel, accelerator(few))


@given(ATTENTIONS)
@settings(max_examples=60)
def test_attention_for_older_instructions_is_never_faster(kernel: Kernel) -> None:
    for base in BASES.values():
        assert attention_slowdown(kernel, "second", accelerator(base), CALIBRATION) >= 1 - 1e-12


@pytest.mark.parametrize("chips", [1, 2, 8, 64, 4096])
def test_who_waits_for_many_chips_waits_for_the_least_efficient(chips: int) -> None:
    """The largest of so many normal deviates, drawn: energy above the mean costs its cube root in time."""
    draws = np.random.default_rng(1).standard_normal((4000, chips)).max(axis=1)
    hot = AcceleratorSpec.model_construct(**BASES["wide, hot"] | {"tdp": 100.0})
    slowest = slowest_of(hot, chips, 0.05)
    kernel = Kernel(
        "x", "matmul", 2 * 16384**3, 4 * 16384**2, 2 * 16384**2, "bf16", MatmulShape(16384, 16384, 16384)
    )
    sharp = CALIBRATION.with_values(roofline_softness=0.0)
    longer = (
        kernel_demand(kernel, slowest, sharp).amounts["tensor"]
        / kernel_demand(kernel, hot, sharp).amounts["tensor"]
    )
    assert longer == pytest.approx((1 + 0.05 * float(draws.mean())) ** (1 / 3), rel=2e-3)


def test_chips_that_power_does_not_limit_are_alike() -> None:
    cool = accelerator(BASES["cool"])
    kernel = Kernel(
        "x", "matmul", 2 * 4096**3, 4 * 4096**2, 2 * 4096**2, "bf16", MatmulShape(4096, 4096, 4096)
    )
    assert seconds(kernel, slowest_of(cool, 1024, 0.05)) == seconds(kernel, cool)


def test_twice_the_exponentials_take_half_of_what_is_left_of_the_softmax() -> None:
    """Long heads of 128: per score the products, and half of the exponential (two parts in turn)."""
    heads, length = 64, 32768
    shape = AttentionShape(1, heads, heads, length, length, 128, False, "forward")
    kernel = Kernel("x", "attention", 4 * heads * length**2 * 128, 0, 0, "bf16", shape)
    plain = BASES["wider still"] | {"tdp": None}
    one, two = (
        kernel_demand(
            kernel, AcceleratorSpec.model_construct(**plain, exponentials_per_cycle=rate), CALIBRATION
        )
        for rate in (16, 32)
    )
    saved = (one.amounts["tensor"] - two.amounts["tensor"]) / (2250 * T)
    c = CALIBRATION.kernels
    clock = plain["highest_clock"]
    score = c.attention_score_time * 1.83e9 / clock * (1 - c.attention_overlap)
    expected = score / 2 * heads * length**2 / plain["num_compute_units"]
    assert saved == pytest.approx(expected, rel=0.02)
