"""Kernels and communications of the workload as rows: who takes part, and what is to be priced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from simulator.engine import Label
from simulator.program.planning.axes import Axes
from simulator.program.planning.plan import Plan
from simulator.program.pricing.rows import Row
from simulator.program.pricing.works import Launching, Meeting, Ranks, Running
from simulator.specs.software import SoftwareSpec
from simulator.workload import STANDARD, Block, Communication, Kernel
from simulator.workload.blocks import BLOCKS_KNOWN


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

    def kernel(
        self,
        kernel: Kernel,
        phase: str,
        *,
        counted: bool = True,
        take: int = 0,
        give: int = 0,
        transient: int = 0,
        keeper: str = "",
    ) -> Row:
        """The row of a kernel; recomputation does not count towards the model's arithmetic."""
        update = phase == "optimizer"
        return Row(
            Label(kernel.name, "optimizer" if update else f"compute.{kernel.kind}", phase),
            _running(kernel, not update),
            take=take,
            give=give,
            transient=transient,
            keeper=keeper,
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
            self.plan.num_gpus_per_stage if self.core >= 0 else 1,
            item.routed,
        )

    def ranks(self, axis: str, *, neighbours: bool = False) -> Ranks:
        """Who takes part in a collective along an axis, or in a send between neighbours of it.

        A ring is as slow as its slowest link, so neighbours are in one domain only if all members are.
        """
        shape = self.plan.group
        return _ranks(self.plan.axes, axis, shape.domain, places=shape.unequal_pairs, neighbours=neighbours)

    def meets(self, block: Block) -> tuple[object, ...]:
        """Who meets inside a block: all of the plan that its rows depend on."""
        through_core = (self.core, self.plan.num_gpus_per_stage) if self.core >= 0 else ()
        return *(self.ranks(axis) for axis in _axes_of(block)), *through_core

    def launching(self, operators: int, phase: str, looped: int = 0) -> Row:
        """The row of the launching thread's work for some operators, and launches in loops inside of them."""
        return Row(Label("launch", "host.launch", phase), Launching(operators, looped))


@lru_cache(maxsize=4096)
def _running(kernel: Kernel, launched_ahead: bool) -> Running:
    """What has the same price is one work, whatever it is called; passes share many."""
    return Running(replace(kernel, name="", model_flops=0), launched_ahead)


@lru_cache(maxsize=4096)
def _ranks(axes: Axes, axis: str, domain: int, *, places: bool, neighbours: bool) -> Ranks:
    members = axes.members(axis)
    near, count = members[members < domain], len(members)
    if neighbours:
        near, count = near[: 2 if len(near) == count else 1], 2
    return Ranks(count, max(1, len(near)), domain, tuple(near.tolist()) if places else ())


@lru_cache(maxsize=BLOCKS_KNOWN)
def _axes_of(block: Block) -> tuple[str, ...]:
    """Axes along which a block communicates."""
    ops = (node.op for node in (*block.forward, *block.backward))
    return tuple(sorted({op.axis for op in ops if not isinstance(op, Kernel)}))
