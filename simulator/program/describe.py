"""Kernels and communications of the workload as rows: who takes part, and what is to be priced."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.engine import Label
from simulator.program.plan import Plan
from simulator.program.rows import Row
from simulator.program.works import Launching, Meeting, Ranks, Running
from simulator.specs.software import SoftwareSpec
from simulator.workload import STANDARD, Communication, Kernel


@dataclass(frozen=True, slots=True)
class Describer:
    """Turns kernels and communications into rows.

    Attributes:
        plan: The plan.
        core: Id of the fabric's core, -1 where it never limits.
        software: How kernels are launched.
    """

    plan: Plan
    core: int = -1
    software: SoftwareSpec = STANDARD

    def kernel(self, kernel: Kernel, phase: str, *, counted: bool = True) -> Row:
        """The row of a kernel; recomputation does not count towards the model's arithmetic."""
        return Row(
            Label(kernel.name, f"compute.{kernel.kind}" if phase != "optimizer" else "optimizer", phase),
            # What has the same price is one work, whatever it is called.
            Running(replace(kernel, name="", model_flops=0), launched_ahead=phase != "optimizer"),
            flops=kernel.flops,
            model_flops=kernel.model_flops if counted else 0,
            traffic=kernel.read_bytes + kernel.write_bytes,
            precision=kernel.precision,
        )

    def communication(
        self, item: Communication, phase: str, *, ranks: Ranks | None = None, take: int = 0, give: int = 0
    ) -> Row:
        """The row of a collective along an axis of the plan."""
        return Row(
            Label(item.name, f"communication.{item.collective}", phase),
            self.meeting(item, ranks),
            take=take,
            give=give,
            buffers=(take, give),
            axis=item.axis,
        )

    def meeting(self, item: Communication, ranks: Ranks | None = None) -> Meeting:
        """A collective among the ranks along its axis, or among others."""
        ranks = ranks or self.ranks(item.axis, neighbours=item.collective == "send")
        return Meeting(
            item.collective,
            item.message_bytes,
            ranks,
            self.core,
            self.plan.num_gpus_per_stage,
            item.routed,
        )

    def ranks(self, axis: str, *, neighbours: bool = False) -> Ranks:
        """Who takes part in a collective along an axis, or in a send between neighbours of it.

        A ring is as slow as its slowest link, so neighbours are in one domain only if all members are.
        """
        shape, members = self.plan.group, self.plan.axes.members(axis)
        near, count = members[members < shape.domain], len(members)
        if neighbours:
            near, count = near[: 2 if len(near) == count else 1], 2
        places = tuple(near.tolist()) if shape.unequal_pairs else ()
        return Ranks(count, max(1, len(near)), shape.domain, places)

    def launching(self, operators: int, phase: str) -> Row:
        """The row of the launching thread's work for some operators."""
        return Row(Label("launch", "host.launch", phase), Launching(operators))
