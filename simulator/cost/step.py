"""What kernels ask for inside a training step, beyond what they ask for in a benchmark of their own."""

from __future__ import annotations

from dataclasses import replace

from simulator.cost.demand import Demand
from simulator.cost.kernels import MATRIX_KINDS
from simulator.specs.calibration import Calibration
from simulator.workload.kernels import Kernel


def in_step(kernel: Kernel, demand: Demand, calibration: Calibration, *, launched_ahead: bool) -> Demand:
    """The demand of a kernel between others, after hours at full load.

    Matrix kernels are fitted to tuned libraries in a loop: operands warm in the cache, a cool chip, the best
    of several algorithms. Inside a step they reach `step_matrix_fraction` of that rate:
    ``tensor / step_matrix_fraction``.

    Args:
        kernel: The kernel.
        demand: What it demands alone.
        calibration: Constants that all accelerators share.
        launched_ahead: Whether the launching thread works ahead, and is accounted for elsewhere.

    Valid: steps of a millisecond and more.
    """
    amounts = dict(demand.amounts)
    if launched_ahead:
        amounts.pop("host", None)
    if kernel.kind in MATRIX_KINDS and "tensor" in amounts:
        amounts["tensor"] /= calibration.kernels.step_matrix_fraction
    return replace(demand, amounts=amounts)
