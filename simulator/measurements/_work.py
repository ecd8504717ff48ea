"""What a benchmark timed, as the cost models understand it."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.cost import RankGroup, capacity_rates, collective_demand, kernel_demand, link_rates
from simulator.cost.attention import FLASH, AttentionKernel
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
        attention: How fused attention is laid out.
        unwritten: Whether operands are memory that nobody wrote, mostly zeros, which draw less power.
    """

    accelerator: AcceleratorSpec
    kernels: tuple[Kernel, ...]
    attention: AttentionKernel = FLASH
    unwritten: bool = False

    def seconds(self, calibration: Calibration) -> float:
        """Time on an idle accelerator, the host's launch time left out [s]."""
        rates = capacity_rates(self.accelerator) | {"host": _NO_HOST}
        accelerator = self._powered(calibration)
        demands = [kernel_demand(each, accelerator, calibration, self.attention) for each in self.kernels]
        return sum(each.seconds(rates) for each in demands)

    def _powered(self, calibration: Calibration) -> AcceleratorSpec:
        """The accelerator; where work draws less, with as much more power for it."""
        tdp = self.accelerator.tdp
        if not self.unwritten or tdp is None:
            return self.accelerator
        more = tdp / calibration.kernels.unwritten_energy_fraction
        return self.accelerator.model_copy(update={"tdp": more})


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
