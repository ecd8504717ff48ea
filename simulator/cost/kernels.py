"""What a kernel demands of the accelerator that it runs on."""

from __future__ import annotations

from typing import cast

from simulator.cost.attention import attention_seconds
from simulator.cost.demand import ELEMENT_BYTES, Demand, tensor_rate
from simulator.cost.matmul import (
    FALLBACK_UNITS,
    FEW_UNITS,
    MatrixUnit,
    matmul_seconds,
    reloaded_elements,
    sustained_seconds,
)
from simulator.errors import UnsupportedError
from simulator.specs import AcceleratorSpec, Precision
from simulator.specs.calibration import Calibration
from simulator.workload.kernels import AttentionShape, Kernel, MatmulShape

MATRIX_KINDS = frozenset({"matmul", "convolution", "attention"})
"""Kinds of kernels whose arithmetic runs on the matrix units."""


def kernel_demand(kernel: Kernel, accelerator: AcceleratorSpec, calibration: Calibration) -> Demand:
    """What a kernel demands of an accelerator.

    Every launch costs `kernel_latency` on the device (delay) and `host_launch_time` on the launching
    thread (capacity ``host``). Matrix kernels occupy ``tensor`` as long as tiling or attention says;
    all others ask ``vector`` for their FLOPs; all ask ``memory_bandwidth`` for their traffic.

    Args:
        kernel: The kernel.
        accelerator: Where it runs.
        calibration: Constants that all accelerators share.

    Returns:
        Delay, and effective amounts of ``tensor`` or ``vector`` [FLOP], ``memory_bandwidth`` [B] and ``host``
        [s]; the rates are those of `capacity_rates`.

    Raises:
        UnsupportedError: The accelerator has no figure for the kernel's precision.
    """
    constants = calibration.kernels
    traffic = float(kernel.read_bytes + kernel.write_bytes)
    amounts: dict[str, float] = {}
    if kernel.kind in MATRIX_KINDS:
        seconds, reloaded = _matrix_seconds(kernel, accelerator, calibration)
        amounts["tensor"] = seconds * tensor_rate(accelerator)
        traffic += reloaded
    elif kernel.flops:
        amounts["vector"] = kernel.flops / constants.vector_peak_fraction
    if traffic:
        amounts["memory_bandwidth"] = traffic / constants.memory_fraction
    amounts["host"] = kernel.launches * constants.host_launch_time
    return Demand(delay=kernel.launches * constants.kernel_latency, amounts=amounts)


def _matrix_seconds(
    kernel: Kernel, accelerator: AcceleratorSpec, calibration: Calibration
) -> tuple[float, float]:
    """Seconds on the matrix units, and bytes read again."""
    constants = calibration.kernels
    units = accelerator.num_compute_units or FALLBACK_UNITS
    device = MatrixUnit(
        peak=_peak(kernel.precision, accelerator),
        vector=accelerator.vector_flops,
        bandwidth=accelerator.memory_bandwidth,
        units=units if units >= FEW_UNITS else FALLBACK_UNITS,
        tdp=accelerator.tdp,
    )
    shape, again = kernel.shape, 0.0
    if isinstance(shape, AttentionShape):
        seconds = attention_seconds(shape, device, constants)
    elif isinstance(shape, MatmulShape):
        seconds = matmul_seconds(shape.m, shape.n, shape.k, shape.batch, device, constants)
        if kernel.kind == "matmul":
            elements = reloaded_elements(shape.m, shape.n, shape.k, shape.batch, device.units)
            again = elements * ELEMENT_BYTES[kernel.precision]
    else:
        seconds = kernel.flops / (device.peak * constants.matmul_peak_fraction)
    return sustained_seconds(seconds, kernel.flops, device, constants), again


def _peak(precision: str, accelerator: AcceleratorSpec) -> float:
    peak = accelerator.peak_flops.get(cast(Precision, precision))
    if peak is None:
        raise UnsupportedError(
            ("training", "precision"),
            f'{accelerator.name} has no matrix rate for "{precision}"; '
            f"it has: {', '.join(accelerator.peak_flops)}",
        )
    return peak
