"""What a kernel demands of the accelerator that it runs on."""

from __future__ import annotations

from simulator.cost.attention import FLASH, AttentionKernel, attention_seconds
from simulator.cost.demand import ELEMENT_BYTES, Demand, tensor_rate
from simulator.cost.device import REFERENCE_CLOCK, MatrixUnit, highest_clock, matrix_unit
from simulator.cost.matmul import matmul_seconds, reloaded_elements, sustained_seconds
from simulator.cost.roofline import blurred
from simulator.specs import AcceleratorSpec
from simulator.specs.calibration import Calibration, KernelConstants
from simulator.workload.kernels import AttentionShape, Kernel, MatmulShape

MATRIX_KINDS = frozenset({"matmul", "convolution", "attention", "recurrent"})
"""Kinds of kernels whose arithmetic runs on the matrix units."""


def kernel_demand(
    kernel: Kernel,
    accelerator: AcceleratorSpec,
    calibration: Calibration,
    attention: AttentionKernel = FLASH,
) -> Demand:
    """What a kernel demands of an accelerator.

    Every launch costs `kernel_latency` cycles on the device (delay) and `host_launch_time` on the launching
    thread (capacity ``host``). Matrix kernels occupy ``tensor`` as long as tiling or attention says, and
    overlap it with their traffic but for what fills and drains (`blurred`): both amounts are larger by that.
    All others ask ``vector`` for their FLOPs; all ask ``memory_bandwidth`` for their traffic.

    Args:
        kernel: The kernel.
        accelerator: Where it runs.
        calibration: Constants that all accelerators share.
        attention: How fused attention is laid out.

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
        device = matrix_unit(accelerator, kernel.precision)
        bandwidth = accelerator.memory_bandwidth
        seconds = _matrix_seconds(kernel, device, bandwidth, constants, attention)
        moving = (traffic + _reloaded_bytes(kernel, device)) / (constants.memory_fraction * bandwidth)
        longer = blurred(seconds, moving, constants.roofline_softness) / max(seconds, moving, 1e-30)
        amounts["tensor"] = seconds * longer * tensor_rate(accelerator)
        if moving:
            amounts["memory_bandwidth"] = moving * longer * bandwidth
    else:
        if kernel.flops:
            # Data sheets count two FLOP for an instruction of each lane, as a multiply-add has.
            work = max(kernel.flops / constants.vector_peak_fraction, 2.0 * kernel.instructions)
            amounts["vector"] = work
        if traffic:
            amounts["memory_bandwidth"] = traffic / constants.memory_fraction
    amounts["host"] = kernel.launches * constants.host_launch_time
    latency = constants.kernel_latency * REFERENCE_CLOCK / highest_clock(accelerator)
    # A step of a recurrence is a product and a kernel for its gates, both launched by the library.
    kernels = kernel.launches if kernel.steps == 1 else 2 * kernel.steps
    return Demand(delay=kernels * latency, amounts=amounts)


def _matrix_seconds(
    kernel: Kernel,
    device: MatrixUnit,
    bandwidth: float,
    constants: KernelConstants,
    attention: AttentionKernel,
) -> float:
    """Seconds on the matrix units."""
    shape = kernel.shape
    if isinstance(shape, AttentionShape):
        return attention_seconds(shape, kernel.flops, device, constants, attention)
    if isinstance(shape, MatmulShape):
        once = matmul_seconds(shape.m, shape.n, shape.k, shape.batch, device, bandwidth, constants)
        return kernel.steps * once
    seconds = kernel.flops / (device.peak * constants.matmul_peak_fraction)
    return sustained_seconds(seconds, kernel.flops, device, constants)


def _reloaded_bytes(kernel: Kernel, device: MatrixUnit) -> float:
    """Bytes of operands that a matrix product reads again [B]."""
    shape = kernel.shape
    if kernel.kind != "matmul" or not isinstance(shape, MatmulShape):
        return 0.0
    elements = reloaded_elements(shape.m, shape.n, shape.k, shape.batch, device.units)
    return elements * ELEMENT_BYTES[kernel.precision]
