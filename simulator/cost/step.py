"""What kernels ask for inside a training step, beyond what they ask for in a benchmark of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from simulator.cost.demand import Demand, tensor_rate
from simulator.cost.matmul import FALLBACK_UNITS, FEW_UNITS
from simulator.specs import AcceleratorSpec
from simulator.specs.calibration import Calibration
from simulator.workload.kernels import Kernel

AttentionGeneration = Literal["first", "second", "native"]


def in_step(
    kernel: Kernel,
    demand: Demand,
    accelerator: AcceleratorSpec,
    calibration: Calibration,
    *,
    attention: AttentionGeneration = "native",
    launched_ahead: bool,
) -> Demand:
    """The demand of a kernel between others, after hours at full load.

    Matrix products are fitted to tuned libraries in a loop: operands warm in the cache, a cool chip, the best
    of several algorithms. Inside a step they reach `step_matrix_fraction` of that rate:
    ``tensor / step_matrix_fraction``. Fused attention has one algorithm, and its operands stream; but it is
    slower where its kernels were not written for the accelerator (`attention_slowdown`).

    Args:
        kernel: The kernel.
        demand: What it demands alone.
        accelerator: Where it runs.
        calibration: Constants that all accelerators share.
        attention: Generation of the kernels of fused attention.
        launched_ahead: Whether the launching thread works ahead, and is accounted for elsewhere.

    Valid: steps of a millisecond and more.
    """
    amounts = dict(demand.amounts)
    if launched_ahead:
        amounts.pop("host", None)
    if kernel.kind == "attention":
        amounts["tensor"] *= attention_slowdown(attention, accelerator, calibration)
    elif "tensor" in amounts:
        amounts["tensor"] /= calibration.kernels.step_matrix_fraction
    return replace(demand, amounts=amounts)


def attention_slowdown(
    generation: AttentionGeneration, accelerator: AcceleratorSpec, calibration: Calibration
) -> float:
    """How much longer fused attention takes than kernels that were written for the accelerator.

    Kernels in the instructions of 2020 feed a compute unit with no more than `portable_unit_rate`; the first
    FlashAttention reaches `attention_first_fraction` of the second's rate.

    Source: Dao, FlashAttention-2, arXiv:2307.08691; Shah et al., FlashAttention-3, arXiv:2407.08608.
    Valid: GPUs up to Hopper.
    """
    if generation == "native":
        return 1.0
    units = accelerator.num_compute_units or FALLBACK_UNITS
    units = units if units >= FEW_UNITS else FALLBACK_UNITS
    slowdown = max(1.0, tensor_rate(accelerator) / units / calibration.kernels.portable_unit_rate)
    return slowdown / (calibration.kernels.attention_first_fraction if generation == "first" else 1.0)
