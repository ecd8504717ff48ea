"""Compute units that communication keeps from kernels: never all of them."""

from __future__ import annotations

import pytest

from simulator import load_scenario, simulate
from simulator.cost import Demand, tensor_rate
from simulator.program.pricing.topology import SLOT
from simulator.program.pricing.works import _holds
from simulator.specs import AcceleratorSpec
from support.inputs import shipped


def accelerator(units: int | None) -> AcceleratorSpec:
    return AcceleratorSpec.model_validate(
        {
            "name": "GPU",
            "peak_flops": {"bf16": "100 TFLOP/s"},
            "vector_flops": "10 TFLOP/s",
            "memory_capacity": "80 GB",
            "memory_bandwidth": "1 TB/s",
            **({"num_compute_units": units} if units else {}),
        }
    )


@pytest.mark.parametrize("units", [16, 17, 40, 58, 80, 108, 132, 1000])
def test_collectives_of_four_axes_and_two_sends_leave_a_unit(units: int) -> None:
    gpu = accelerator(units)
    collective, send = (dict(_holds(Demand(0.0, {}, compute_units=n), gpu))[SLOT["tensor"]] for n in (64, 1))
    assert 4 * collective + 2 * send <= tensor_rate(gpu) * (1 - 1 / units) * (1 + 1e-12)


def test_a_large_gpu_gives_what_is_asked_for() -> None:
    gpu = accelerator(108)
    held = dict(_holds(Demand(0.0, {}, compute_units=16), gpu))
    assert held[SLOT["tensor"]] == pytest.approx(tensor_rate(gpu) * 16 / 108)
    assert held[SLOT["vector"]] == pytest.approx(gpu.vector_flops * 16 / 108)


@pytest.mark.parametrize("units", [None, 1, 2, 8])
def test_large_cores_give_nothing(units: int | None) -> None:
    assert _holds(Demand(0.0, {}, compute_units=16), accelerator(units)) == ()


@pytest.mark.parametrize("name", ["TPU-v5e", "T4", "Trainium1", "L4"])
def test_small_parts_and_large_cores_run_with_communication_on_every_axis(name: str) -> None:
    scenario = load_scenario(
        shipped("quickstart"),
        {
            "cluster.accelerator": name,
            "training.precision": "fp16" if name == "T4" else "bf16",
            "parallelism.data_parallel_sharding": "parameters",
            "parallelism.context_parallel": 2,
        },
    )
    assert simulate(scenario).step_time_s > 0
