"""A few published measurements, each within the error that the cost models claim."""

import pytest

from simulator.catalog import entry
from simulator.cost import RankGroup, capacity_rates, collective_demand, kernel_demand, link_rates
from simulator.specs import AcceleratorSpec, Calibration, LinkSpec
from simulator.workload.kernels import AttentionShape, Kernel, MatmulShape

CALIBRATION = Calibration.load()
MAMF = "https://github.com/stas00/ml-engineering/blob/master/compute/accelerator/README.md"
FLASH_2, FLASH_3 = "https://arxiv.org/abs/2307.08691", "https://arxiv.org/abs/2407.08608"


def accelerator(name: str) -> AcceleratorSpec:
    return AcceleratorSpec.model_validate(entry("accelerators", name))


def tflops(kernel: Kernel, name: str) -> float:
    gpu = accelerator(name)
    rates = capacity_rates(gpu) | {"host": 1e9}
    return kernel.flops / kernel_demand(kernel, gpu, CALIBRATION).seconds(rates) / 1e12


@pytest.mark.parametrize(
    ("name", "precision", "shape", "measured", "tolerance"),
    [
        ("A100-SXM4-80GB", "bf16", (1024, 10240, 5120), 271.2, 0.12),
        ("A100-PCIe-80GB", "bf16", (2048, 5120, 6144), 252.9, 0.12),
        ("H100-SXM5-80GB", "bf16", (2048, 2048, 13312), 794.5, 0.12),
        ("H100-SXM5-80GB", "fp8", (1024, 9216, 14336), 1402.6, 0.16),
        ("Gaudi2", "bf16", (14336, 15360, 2048), 418.7, 0.16),
        ("Gaudi2", "fp8", (6144, 11264, 5120), 826.5, 0.16),
        # Half the peak, power aside: what software leaves.
        ("MI300X", "bf16", (10240, 15360, 8192), 668.4, 0.35),
    ],
)
def test_the_best_matmuls_that_a_search_found(
    name: str, precision: str, shape: tuple[int, int, int], measured: float, tolerance: float
):
    m, n, k = shape
    operand = 1 if precision == "fp8" else 2
    kernel = Kernel(
        MAMF, "matmul", 2 * m * n * k, operand * (m + n) * k, 2 * m * n, precision, MatmulShape(m, n, k)
    )
    assert tflops(kernel, name) == pytest.approx(measured, rel=tolerance)


@pytest.mark.parametrize(
    ("source", "name", "head_dim", "causal", "direction", "length", "measured", "tolerance"),
    [
        (FLASH_2, "A100-SXM4-80GB", 64, True, "forward", 16384, 185, 0.25),
        (FLASH_2, "A100-SXM4-80GB", 128, False, "backward", 8192, 196, 0.18),
        (FLASH_2, "A100-SXM4-80GB", 128, True, "backward", 4096, 165, 0.18),
        (FLASH_3, "H100-SXM5-80GB", 128, True, "forward", 16384, 616, 0.18),
        (FLASH_3, "H100-SXM5-80GB", 128, True, "forward", 2048, 521, 0.20),
        (FLASH_3, "H100-SXM5-80GB", 64, False, "forward", 8192, 496, 0.18),
        (FLASH_3, "H100-SXM5-80GB", 128, False, "backward", 8192, 559, 0.18),
    ],
)
def test_attention_of_the_flash_papers(
    source: str,
    name: str,
    head_dim: int,
    causal: bool,
    direction: str,
    length: int,
    measured: float,
    tolerance: float,
):
    batch, heads = 16384 // length, 2048 // head_dim
    shape = AttentionShape(batch, heads, heads, length, length, head_dim, causal, direction)
    flops = (4 if direction == "forward" else 10) * batch * heads * length**2 * head_dim // (1 + causal)
    tensor = 2 * batch * heads * length * head_dim
    kernel = Kernel(source, "attention", flops, 3 * tensor, tensor, "fp16", shape)
    assert tflops(kernel, name) == pytest.approx(measured, rel=tolerance)


def link(name: str) -> LinkSpec:
    if name == "DGX-1":  # NVLink 2 without a switch
        return LinkSpec.model_validate(entry("interconnects", "NVLink2") | {"topology": "mesh"})
    return LinkSpec.model_validate(entry("interconnects", name))


@pytest.mark.parametrize(
    ("name", "up", "out", "ranks", "size", "microseconds", "tolerance"),
    [
        # 1x p5.48xlarge: aws-samples/awsome-distributed-training, micro-benchmarks/nccl-tests
        ("H100-SXM5-80GB", "NVLink4", "EFA-v2", 8, 2**33, 31289, 0.10),
        ("H100-SXM5-80GB", "NVLink4", "EFA-v2", 8, 2**24, 124, 0.15),
        # 8x A100-SXM4-40GB: microsoft/superbenchmark, tests/data/nccl_allreduce.log
        ("A100-SXM4-40GB", "NVLink3", "InfiniBand-HDR", 8, 2**33, 63896, 0.10),
        # 2x BM.GPU.H100.8 with 16x 200 Gb/s RoCE a node: Oracle Cloud Infrastructure
        ("H100-SXM5-80GB", "NVLink4", "InfiniBand-NDR", 16, 2**34, 69338, 0.10),
        # 4x DGX A100: nccl-tests on 8x HDR InfiniBand a node
        ("A100-SXM4-80GB", "NVLink3", "InfiniBand-HDR", 32, 2**32, 43557, 0.25),
        # 8x V100-SXM2 in a hybrid cube mesh: VIA-Research/vTrain
        ("V100-SXM2-32GB", "DGX-1", "InfiniBand-EDR", 8, 2**30, 13969, 0.10),
    ],
)
def test_all_reduces_of_nccl_tests(
    name: str, up: str, out: str, ranks: int, size: int, microseconds: float, tolerance: float
):
    group = RankGroup(ranks, 8, accelerator(name), link(up), link(out), 8)
    seconds = collective_demand("all_reduce", size, group, CALIBRATION).seconds(link_rates(group))
    assert seconds * 1e6 == pytest.approx(microseconds, rel=tolerance)
