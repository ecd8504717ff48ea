"""What kernels ask for inside a training step, beyond what they ask for in a benchmark of their own."""

from __future__ import annotations

from typing import Final, Literal, cast

from simulator.cost.attention import FLASH, PORTABLE, attention_seconds
from simulator.cost.demand import Demand
from simulator.cost.device import ASYNCHRONOUS_WIDTH, matrix_unit
from simulator.specs import AcceleratorSpec, Precision
from simulator.specs.calibration import Calibration
from simulator.workload.kernels import AttentionShape, Kernel

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
    ``tensor / step_matrix_fraction``; on vector units (`on_vector_units`) they are slow enough for operands
    to be there in time, and too slow to heat the chip. Fused attention has one algorithm, and its operands
    stream; but it is slower where its kernels were not written for the accelerator (`attention_slowdown`).

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
        amounts["tensor"] *= attention_slowdown(kernel, attention, accelerator, calibration)
    elif "tensor" in amounts and not on_vector_units(kernel.precision, accelerator):
        amounts["tensor"] /= calibration.kernels.step_matrix_fraction
    return Demand(demand.delay, amounts, demand.compute_units, demand.detail)


def on_vector_units(precision: str, accelerator: AcceleratorSpec) -> bool:
    """Whether products of a precision have no rate but that of the vector units (fp32 on GPUs of NVIDIA)."""
    peak = accelerator.peak_flops.get(cast(Precision, precision), 0.0)
    return precision == "fp32" and peak <= accelerator.vector_flops * _SAME_RATE


_SAME_RATE: Final = 1.01
"""Data sheets round the two."""


def attention_slowdown(
    kernel: Kernel, generation: AttentionGeneration, accelerator: AcceleratorSpec, calibration: Calibration
) -> float:
    """How much longer fused attention takes than kernels that were written for the accelerator.

    Kernels in the instructions of 2020 feed a compute unit with no more than `portable_unit_width` FLOP a
    cycle, and their warps read operands out of shared memory themselves; the first FlashAttention reaches
    `attention_first_fraction` of the second's rate. These are instructions of NVIDIA's GPUs up to Hopper: on
    wider units frameworks call the library's own kernels, and so do those for other accelerators.

    Source: Dao, FlashAttention-2, arXiv:2307.08691; Shah et al., FlashAttention-3, arXiv:2407.08608;
        ``check_prefer_cudnn_attention`` in aten/src/ATen/native/transformers/cuda/sdp_utils.cpp of PyTorch.
    Valid: H100 with PyTorch before 2.8, which calls cuDNN there, too.
    """
    if generation == "native":
        return 1.0
    constants, shape = calibration.kernels, kernel.shape
    older = 1.0 / constants.attention_first_fraction if generation == "first" else 1.0
    native = matrix_unit(accelerator, kernel.precision)
    if accelerator.vendor not in _WITH_THEM or native.width > _WIDEST * ASYNCHRONOUS_WIDTH:
        return older
    slowdown = native.peak / native.narrowed(constants.portable_unit_width).peak
    if isinstance(shape, AttentionShape):
        slowdown = attention_seconds(shape, kernel.flops, native, constants, PORTABLE)
        slowdown /= attention_seconds(shape, kernel.flops, native, constants, FLASH)
    return slowdown * older


_WITH_THEM: Final = frozenset({"NVIDIA", "unknown"})
"""Makers of accelerators that have the instructions of 2020."""

_WIDEST: Final = 1.5
"""How much wider than Hopper's a unit may be that is still one of its generation."""
