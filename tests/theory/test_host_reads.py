"""Results that the launching thread reads: it launches what follows only when they are there."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import simulate
from simulator.scenario import scenario_from_mapping
from simulator.specs import Calibration

LAYERS, BATCHES = 3, 4


def scenario(**software: Any) -> dict[str, Any]:
    """Experts on eight GPUs, layers of milliseconds."""
    return {
        "cluster": {"system": "dgx-h100"},
        "model": {
            "kind": "transformer",
            "name": "experts",
            "max_position_embeddings": 4096,
            "num_hidden_layers": LAYERS,
            "hidden_size": 4096,
            "intermediate_size": 8192,
            "num_attention_heads": 32,
            "vocab_size": 1024,
            "gated_mlp": True,
            "hidden_act": "silu",
            "mixture": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8192},
        },
        "training": {"sequence_length": 4096, "micro_batch_size": 1, "global_batch_size": 8 * BATCHES},
        "parallelism": {"data_parallel": 8, "expert_parallel": 8},
        "software": {"base": "megatron-core", **software},
    }


def seconds(operator: float, **software: Any) -> float:
    calibration = Calibration.load().with_values(python_operator_time=operator)
    return simulate(scenario_from_mapping(scenario(**software)), calibration=calibration).step_time_s


def test_where_the_device_is_behind_each_read_costs_the_first_launch_after_it() -> None:
    quick, slow = seconds(1e-6), seconds(3e-6)
    layers = LAYERS * BATCHES
    assert slow - quick == pytest.approx(layers * 2e-6, rel=0.2)
    ahead = seconds(3e-6, host_counts_tokens=False) - seconds(1e-6, host_counts_tokens=False)
    assert ahead < 0.2 * (slow - quick)


def test_the_exchange_behind_a_read_waits_for_its_own_launch() -> None:
    """Four kernels of the permute and the exchange; the permute itself is quicker than their launching."""
    more = seconds(3e-5) - seconds(2e-5)
    assert more == pytest.approx(LAYERS * BATCHES * 5 * 1e-5, rel=0.2)


def test_where_the_host_is_behind_the_device_idles_in_turn() -> None:
    waiting, ahead = (seconds(2e-4, host_counts_tokens=reads) for reads in (True, False))
    assert waiting > ahead


def test_slots_that_a_capacity_fixes_are_not_read() -> None:
    fixed = scenario()
    fixed["parallelism"]["expert_capacity_factor"] = 1.0
    names = simulate(scenario_from_mapping(fixed)).operators["name"]
    assert not names.str.startswith("experts.counts").any()
    told = simulate(scenario_from_mapping(scenario())).operators
    reads = told[told["name"] == "experts.counts"]
    assert int(reads["count"].sum()) == LAYERS * BATCHES


def test_reading_launches_what_is_read_and_nothing_twice() -> None:
    """Ten kernels and copies, and the exchange of the numbers, a layer and micro-batch."""
    operator, calibration = 1e-5, Calibration.load().with_values(python_operator_time=1e-5)

    def launching(**software: Any) -> float:
        found = simulate(scenario_from_mapping(scenario(**software)), calibration=calibration).operators
        return float(found[found["cause"] == "host.launch"]["time_s"].sum())

    more = launching() - launching(host_counts_tokens=False)
    assert more == pytest.approx(LAYERS * BATCHES * 11 * operator, rel=1e-4)


def test_launches_in_loops_of_compiled_code_take_no_interpreter() -> None:
    """Two experts a GPU: two products forward and two of inputs' gradients have one launch in a loop each."""
    found = []
    for operator, bare in ((1e-5, 1e-6), (2e-5, 1e-6), (1e-5, 2e-6)):
        values = {"python_operator_time": operator, "host_launch_time": bare}
        given = scenario()
        given["parallelism"]["expert_parallel"] = 4
        calibration = Calibration.load().with_values(**values)
        told = simulate(scenario_from_mapping(given), calibration=calibration).operators
        found.append(float(told[told["cause"] == "host.launch"]["time_s"].sum()))
    base, slower, loops = found
    assert loops - base == pytest.approx(LAYERS * BATCHES * 4 * 1e-6, rel=1e-3)
    assert slower - base == pytest.approx(base - LAYERS * BATCHES * 4 * 1e-6, rel=1e-3)


def test_passes_side_by_side_are_run_piece_by_piece() -> None:
    """Four exchanges a layer, each a piece of its own with one behind it: eight operators more."""

    def launching(overlap: bool) -> float:
        given = scenario()
        given["parallelism"]["overlap_expert_exchange"] = overlap
        calibration = Calibration.load().with_values(python_operator_time=1e-5)
        told = simulate(scenario_from_mapping(given), calibration=calibration).operators
        return float(told[told["cause"] == "host.launch"]["time_s"].sum())

    more = launching(overlap=True) - launching(overlap=False)
    assert more == pytest.approx(LAYERS * BATCHES * 8 * 1e-5, rel=1e-3)


def test_recorded_parts_are_launched_as_one_each() -> None:
    """A layer's attention and router, forward and backward, take one operator each."""

    def launching(**software: Any) -> float:
        calibration = Calibration.load().with_values(python_operator_time=1e-5)
        told = simulate(scenario_from_mapping(scenario(**software)), calibration=calibration).operators
        return float(told[told["cause"] == "host.launch"]["time_s"].sum())

    eager, router = launching(), launching(recorded_parts=["router"])
    both = launching(recorded_parts=["attention", "router"])
    per_layer = LAYERS * BATCHES * 1e-5
    # Norm, product, choice, counts and their exchange; the gradients of choice, product (two) and norm.
    assert eager - router == pytest.approx(per_layer * (1 + 1 + 17 + 1 + 10 - 1 + 11 + 2 + 1 - 1), rel=1e-3)
    parts = launching(recorded_parts=["attention"])
    assert eager - parts == pytest.approx(router - both, rel=1e-4)
    assert eager - parts > per_layer * 10
