"""Kernels and communications priced: demands on the slots of one GPU."""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.cost import Demand, RankGroup, collective_demand, in_step, kernel_demand, tensor_rate
from simulator.engine import Label
from simulator.program.plan import Plan
from simulator.program.rows import Row, picoseconds, whole
from simulator.program.topology import NANOSECONDS, SLOT
from simulator.specs.calibration import Calibration
from simulator.specs.software import SoftwareSpec
from simulator.workload import STANDARD, Communication, Kernel

_DEMAND_SLOTS = {
    "tensor": ((SLOT["tensor"], 1.0),),
    "vector": ((SLOT["vector"], 1.0),),
    "memory_bandwidth": ((SLOT["memory_bandwidth"], 1.0),),
    "host": ((SLOT["launch"], float(NANOSECONDS)),),
    "scale_up": ((SLOT["scale_up.send"], 1.0), (SLOT["scale_up.receive"], 1.0)),
    "scale_out": ((SLOT["scale_out.send"], 1.0), (SLOT["scale_out.receive"], 1.0)),
}


@dataclass(frozen=True, slots=True)
class Pricer:
    """Turns kernels and communications into rows: the only caller of the cost models here.

    Attributes:
        plan: The plan.
        calibration: Constants of the cost models.
        core: Id of the fabric's core, None where it is non-blocking.
        software: How kernels are launched.
        groups: Ranks that meet, by axis; filled as they are asked for.
    """

    plan: Plan
    calibration: Calibration
    core: int | None = None
    software: SoftwareSpec = STANDARD
    groups: dict[tuple[str, bool], RankGroup] = field(default_factory=dict)

    def kernel(self, kernel: Kernel, phase: str, *, counted: bool = True) -> Row:
        """The row of a kernel; recomputation does not count towards the model's arithmetic."""
        alone = kernel_demand(kernel, self.plan.group.accelerator, self.calibration)
        demand = in_step(
            kernel,
            alone,
            self.plan.group.accelerator,
            self.calibration,
            attention=self.software.attention_generation,
            launched_ahead=phase != "optimizer",
        )
        return Row(
            Label(kernel.name, f"compute.{kernel.kind}" if phase != "optimizer" else "optimizer", phase),
            delay=picoseconds(demand.delay),
            demands=_slots(demand),
            flops=kernel.flops,
            model_flops=kernel.model_flops if counted else 0,
            traffic=kernel.read_bytes + kernel.write_bytes,
            precision=kernel.precision,
        )

    def communication(
        self,
        item: Communication,
        phase: str,
        *,
        group: RankGroup | None = None,
        take: int = 0,
        give: int = 0,
    ) -> Row:
        """The row of a collective along an axis of the plan."""
        group = group or self.rank_group(item.axis, neighbours=item.collective == "send")
        demand = collective_demand(item.collective, item.message_bytes, group, self.calibration)
        demands = _slots(demand)
        if self.core is not None and "scale_out" in demand.amounts:
            demands += ((self.core, whole(demand.amounts["scale_out"] * self.plan.num_gpus_per_stage)),)
        return Row(
            Label(item.name, f"communication.{item.collective}", phase),
            delay=picoseconds(demand.delay),
            demands=demands,
            holds=self._holds(demand),
            take=take,
            give=give,
            axis=item.axis,
        )

    def rank_group(self, axis: str, *, neighbours: bool = False) -> RankGroup:
        """Who takes part in a collective along an axis, or in a send between neighbours of it.

        A ring is as slow as its slowest link, so neighbours are in one domain only if all members are.
        """
        found = self.groups.get((axis, neighbours))
        if found is None:
            group = self.plan.group
            ranks, near = self.plan.degree(axis), self.plan.ranks_per_domain(axis)
            if neighbours:
                ranks, near = 2, 2 if near == ranks else 1
            found = RankGroup(ranks, near, group.accelerator, group.scale_up, group.scale_out, group.domain)
            self.groups[axis, neighbours] = found
        return found

    def launching(self, operators: int, phase: str) -> Row:
        """The row of the launching thread's work for some operators."""
        constants = self.calibration.kernels
        python = self.software.launcher == "python"
        seconds = operators * (constants.python_operator_time if python else constants.host_launch_time)
        return Row(
            Label("launch", "host.launch", phase), demands=((SLOT["launch"], whole(seconds * NANOSECONDS)),)
        )

    def _holds(self, demand: Demand) -> tuple[tuple[int, int], ...]:
        accelerator = self.plan.group.accelerator
        if not demand.compute_units or not accelerator.num_compute_units:
            return ()
        part = min(0.5, demand.compute_units / accelerator.num_compute_units)
        return (
            (SLOT["tensor"], whole(tensor_rate(accelerator) * part)),
            (SLOT["vector"], whole(accelerator.vector_flops * part)),
        )


def _slots(demand: Demand) -> tuple[tuple[int, int], ...]:
    return tuple(
        (slot, whole(amount * scale))
        for kind, amount in demand.amounts.items()
        for slot, scale in _DEMAND_SLOTS[kind]
    )
