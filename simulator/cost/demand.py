"""What an activity asks of the capacities that it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from simulator.specs import AcceleratorSpec

ELEMENT_BYTES: Mapping[str, float] = {
    "fp64": 8.0,
    "fp32": 4.0,
    "tf32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
}
"""Bytes of one operand by precision."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What an activity needs; alone it takes ``delay + max(amount / rate of its capacity)``.

    Amounts are *effective*: capacities have the rates of the data sheet, so a kernel that reaches
    80 % of the peak asks for flops / 0.8.

    Attributes:
        delay: Time before the demands begin: latencies that no capacity shortens [s].
        amounts: Amount by kind of capacity: ``tensor`` and ``vector`` [FLOP], ``memory_bandwidth``,
            ``scale_up``, ``scale_out``, ``pcie``, ``storage_read``, ``storage_write`` [B], ``host`` [s of the
            launching thread], ``storage_read_operations``, ``storage_write_operations`` [op].
        compute_units: Compute units taken from other kernels for the activity's lifetime.
        detail: How it is done, such as ``ring, bulk``.
    """

    delay: float
    amounts: Mapping[str, float] = field(default_factory=dict)
    compute_units: int = 0
    detail: str = ""

    def seconds(self, rates: Mapping[str, float]) -> float:
        """Time on idle capacities with the given rates: ``delay + max(amount / rate)`` [s]."""
        return self.delay + max((amount / rates[kind] for kind, amount in self.amounts.items()), default=0.0)


def tensor_rate(accelerator: AcceleratorSpec) -> float:
    """Rate of the capacity ``tensor``: the 16-bit peak, or the highest if there is none [FLOP/s].

    One capacity serves kernels of any precision: a kernel of another one asks for
    flops * tensor_rate / peak of its precision.
    """
    peaks = accelerator.peak_flops
    return peaks.get("bf16") or peaks.get("fp16") or max(peaks.values())


def capacity_rates(accelerator: AcceleratorSpec) -> dict[str, float]:
    """Rates of one accelerator's capacities that kernels draw on, as the data sheet gives them.

    Returns:
        ``tensor`` and ``vector`` [FLOP/s], ``memory_bandwidth`` [B/s], ``host`` [s/s].
    """
    return {
        "tensor": tensor_rate(accelerator),
        "vector": accelerator.vector_flops,
        "memory_bandwidth": accelerator.memory_bandwidth,
        "host": 1.0,
    }
