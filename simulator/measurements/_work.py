"""What a benchmark timed, as the cost models understand it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.cost import Demand, RankGroup, capacity_rates, collective_demand, kernel_demand, link_rates
from simulator.cost.step import AttentionGeneration, attention_slowdown
from simulator.specs import AcceleratorSpec, Calibration
from simulator.workload.kernels import Collective, Kernel

_NO_HOST = 1e12
"""Rate of the launching thread: benchmarks replay a graph or queue launches ahead, so it costs nothing."""


@dataclass(frozen=True, slots=True)
class KernelWork:
    """Kernels that ran one after another on one accelerator.

    Attributes:
        accelerator: Where.
        kernels: What.
        attention: Generation of the kernels of fused attention.
    """

    accelerator: AcceleratorSpec
    kernels: tuple[Kernel, ...]
    attention: AttentionGeneration = "native"

    def seconds(self, calibration: Calibration) -> float:
        """Time on an idle accelerator, the host's launch time left out [s]."""
        rates = capacity_rates(self.accelerator) | {"host": _NO_HOST}
        return sum(self._demand(each, calibration).seconds(rates) for each in self.kernels)

    def _demand(self, kernel: Kernel, calibration: Calibration) -> Demand:
        demand = kernel_demand(kernel, self.accelerator, calibration)
        if kernel.kind != "attention" or self.attention == "native":
            return demand
        slower = attention_slowdown(kernel, self.attention, self.accelerator, calibration)
        return replace(demand, amounts={**demand.amounts, "tensor": slower * demand.amounts["tensor"]})


@dataclass(frozen=True, slots=True)
class CollectiveWork:
    """One collective on idle links.

    Attributes:
        collective: Which one.
        message_bytes: Full buffer [B].
        group: Who took part.
    """

    collective: Collective
    message_bytes: int
    group: RankGroup

    @property
    def accelerator(self) -> AcceleratorSpec:
        """The members' accelerator."""
        return self.group.accelerator

    def seconds(self, calibration: Calibration) -> float:
        """Time on idle links [s]."""
        demand = collective_demand(self.collective, self.message_bytes, self.group, calibration)
        return demand.seconds(link_rates(self.group))


Work = KernelWork | CollectiveWork
