"""What kernels demand: which capacity, in what unit, and what is refused."""

import pytest

from simulator.cost import Demand, access_demand, capacity_rates, kernel_demand, tensor_rate
from simulator.cost.step import in_step
from simulator.errors import UnsupportedError
from simulator.specs import AcceleratorSpec, Calibration, StorageSpec
from simulator.workload.kernels import AttentionShape, Kernel, MatmulShape


def accelerator(**changes: object) -> AcceleratorSpec:
    figures: dict[str, object] = {
        "name": "GPU",
        "peak_flops": {"bf16": "1000 TFLOP/s", "fp8": "2000 TFLOP/s"},
        "vector_flops": "60 TFLOP/s",
        "memory_capacity": "80 GB",
        "memory_bandwidth": "3 TB/s",
        "num_compute_units": 132,
    }
    return AcceleratorSpec.model_validate(figures | changes)


def matmul(m: int, n: int, k: int, precision: str = "bf16", kind: str = "matmul") -> Kernel:
    return Kernel("x", kind, 2 * m * n * k, 2 * (m + n) * k, 2 * m * n, precision, MatmulShape(m, n, k))


CALIBRATION = Calibration.load()


def test_a_large_matmul_is_bound_by_the_matrix_units_near_their_peak():
    demand = kernel_demand(matmul(8192, 8192, 8192), accelerator(), CALIBRATION)
    rates = capacity_rates(accelerator())
    share = {kind: amount / rates[kind] for kind, amount in demand.amounts.items()}
    assert max(share, key=share.__getitem__) == "tensor"
    assert 0.6 < 2 * 8192**3 / demand.amounts["tensor"] < 0.95


def test_a_matmul_with_few_rows_is_bound_by_the_weights_that_it_reads():
    demand = kernel_demand(matmul(16, 16384, 16384), accelerator(), CALIBRATION)
    rates = capacity_rates(accelerator())
    assert demand.amounts["memory_bandwidth"] / 3e12 > demand.amounts["tensor"] / rates["tensor"]


def test_fp8_asks_the_same_capacity_for_less():
    wide = kernel_demand(matmul(8192, 8192, 8192), accelerator(), CALIBRATION)
    narrow = kernel_demand(matmul(8192, 8192, 8192, "fp8"), accelerator(), CALIBRATION)
    assert 1.5 < wide.amounts["tensor"] / narrow.amounts["tensor"] < 2.0
    assert tensor_rate(accelerator()) == 1e15


def test_a_precision_without_a_figure_is_refused_by_name():
    with pytest.raises(UnsupportedError, match='GPU has no matrix rate for "fp4"; it has: bf16, fp8'):
        kernel_demand(matmul(64, 64, 64, "fp4"), accelerator(), CALIBRATION)


def test_element_wise_kernels_ask_for_traffic_vector_work_and_no_matrix_units():
    kernel = Kernel("norm", "norm", 10**9, 2 * 10**9, 10**9, "bf16", launches=3)
    demand = kernel_demand(kernel, accelerator(), CALIBRATION)
    constants = CALIBRATION.kernels
    assert set(demand.amounts) == {"vector", "memory_bandwidth", "host"}
    assert demand.amounts["memory_bandwidth"] == pytest.approx(3e9 / constants.memory_fraction)
    assert demand.amounts["host"] == pytest.approx(3 * constants.host_launch_time)
    assert demand.delay == pytest.approx(3 * constants.kernel_latency)


def test_a_step_of_tiny_kernels_is_bound_by_the_host():
    demand = kernel_demand(Kernel("add", "elementwise", 1000, 8000, 4000, "fp32"), accelerator(), CALIBRATION)
    rates = capacity_rates(accelerator())
    assert max(demand.amounts, key=lambda kind: demand.amounts[kind] / rates[kind]) == "host"


def test_a_low_design_power_slows_full_load_but_not_a_starved_kernel():
    cool, hot = accelerator(tdp="350 W"), accelerator(tdp="5 kW")
    large, small = matmul(8192, 8192, 8192), matmul(128, 128, 128)
    assert (
        kernel_demand(large, cool, CALIBRATION).amounts["tensor"]
        > 1.1 * kernel_demand(large, hot, CALIBRATION).amounts["tensor"]
    )
    assert kernel_demand(small, cool, CALIBRATION) == kernel_demand(small, hot, CALIBRATION)


def test_where_power_limits_half_the_bits_take_the_cube_root_of_half_the_bits_energy_at_twice_the_rate():
    """t = (energy / power)^(1/3) t_peak^(2/3), with an energy of sqrt(1/2) and half the time at the peak."""
    cool = accelerator(tdp="50 W")
    sharp = CALIBRATION.with_values(roofline_softness=0.0)
    wide, narrow = (
        kernel_demand(matmul(32768, 32768, 32768, precision), cool, sharp).amounts["tensor"]
        for precision in ("bf16", "fp8")
    )
    assert narrow / wide == pytest.approx((1 / 2) ** (1 / 6) * (1 / 2) ** (2 / 3), rel=0.02)


def test_a_convolution_keeps_its_own_traffic():
    shape = MatmulShape(100_000, 512, 4608)
    kernel = Kernel("conv", "convolution", 2 * 100_000 * 512 * 4608, 10**8, 10**8, "bf16", shape)
    demand = kernel_demand(kernel, accelerator(), CALIBRATION.with_values(roofline_softness=0.0))
    assert demand.amounts["memory_bandwidth"] == pytest.approx(2e8 / CALIBRATION.kernels.memory_fraction)


def test_attention_backward_costs_more_than_twice_the_forward_pass():
    times = []
    for direction, flops in (("forward", 4), ("backward", 10)):
        shape = AttentionShape(4, 32, 8, 4096, 4096, 128, True, direction)
        work = flops * 4 * 32 * 4096 * 4096 * 128 // 2
        kernel = Kernel("attention", "attention", work, 10**8, 10**8, "bf16", shape)
        times.append(kernel_demand(kernel, accelerator(), CALIBRATION).amounts["tensor"])
    assert 2.0 < times[1] / times[0] < 4.0


def test_a_demand_alone_takes_its_delay_and_its_slowest_capacity():
    demand = Demand(delay=1.0, amounts={"tensor": 10.0, "memory_bandwidth": 3.0})
    assert demand.seconds({"tensor": 5.0, "memory_bandwidth": 1.0}) == 4.0
    assert Demand(delay=2.0).seconds({}) == 2.0


def test_storage_spreads_bytes_and_requests_over_its_servers():
    storage = StorageSpec.model_validate(
        {
            "name": "s",
            "servers": 4,
            "read_bandwidth": "2 GB/s",
            "write_bandwidth": "1 GB/s",
            "read_iops": "100 kIOPS",
            "write_iops": "50 kIOPS",
            "latency": "1 ms",
        }
    )
    read = access_demand("read", 8e9, 1000, storage)
    assert read.delay == pytest.approx(1e-3)
    assert read.amounts == {"storage_read": 2e9, "storage_read_operations": 250.0}
    assert access_demand("write", 8e9, 0, storage).amounts == {"storage_write": 2e9}
    assert access_demand("read", 0, 0, storage) == Demand(delay=0.0)
    with pytest.raises(ValueError, match="negative"):
        access_demand("write", -1, 0, storage)


@pytest.mark.parametrize(("precision", "slower"), [("bf16", True), ("fp8", True), ("fp32", False)])
def test_a_step_slows_products_of_matrix_units_only(precision: str, slower: bool):
    gpu = accelerator(
        peak_flops={"bf16": "1000 TFLOP/s", "fp8": "2000 TFLOP/s", "fp32": "60 TFLOP/s"},
        vector_flops="60 TFLOP/s",
    )
    kernel = matmul(8192, 8192, 8192, precision)
    alone = kernel_demand(kernel, gpu, CALIBRATION)
    inside = in_step(kernel, alone, gpu, CALIBRATION, launched_ahead=True)
    share = CALIBRATION.kernels.step_matrix_fraction if slower else 1.0
    assert inside.amounts["tensor"] == pytest.approx(alone.amounts["tensor"] / share)
