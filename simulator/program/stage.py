"""What one pipeline stage does in a pass: blocks of the workload as templates over priced rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from simulator.cost import Demand, RankGroup, collective_demand, in_step, kernel_demand, tensor_rate
from simulator.engine import Label
from simulator.program.plan import Plan
from simulator.program.rows import Row, RowTable, picoseconds, whole
from simulator.program.templates import LANE, Template, TemplateBuilder
from simulator.program.topology import NANOSECONDS, SLOT
from simulator.specs.calibration import Calibration
from simulator.workload import Block, Communication, Kernel, Node, Shard, Transients, transients

_AXIS_LANE = {
    "tensor": LANE["tensor_parallel"],
    "data": LANE["data_parallel"],
    "pipeline": LANE["data_parallel"],
}

_DEMAND_SLOTS = {
    "tensor": ((SLOT["tensor"], 1.0),),
    "vector": ((SLOT["vector"], 1.0),),
    "memory_bandwidth": ((SLOT["memory_bandwidth"], 1.0),),
    "host": ((SLOT["launch"], float(NANOSECONDS)),),
    "scale_up": ((SLOT["scale_up.send"], 1.0), (SLOT["scale_up.receive"], 1.0)),
    "scale_out": ((SLOT["scale_out.send"], 1.0), (SLOT["scale_out.receive"], 1.0)),
}


LAYER_INPUT = "layer.input"
"""Keeper of what full recomputation starts from."""


@dataclass(frozen=True, slots=True)
class Pricer:
    """Turns kernels and communications into rows: the only caller of the cost models here.

    Attributes:
        plan: The plan.
        calibration: Constants of the cost models.
        core: Id of the fabric's core, None where it is non-blocking.
    """

    plan: Plan
    calibration: Calibration
    core: int | None = None

    def kernel(self, kernel: Kernel, phase: str, *, counted: bool = True) -> Row:
        """The row of a kernel; recomputation does not count towards the model's arithmetic."""
        alone = kernel_demand(kernel, self.plan.group.accelerator, self.calibration)
        demand = in_step(kernel, alone, self.calibration)
        return Row(
            Label(kernel.name, f"compute.{kernel.kind}" if phase != "optimizer" else "optimizer", phase),
            delay=picoseconds(demand.delay),
            demands=_slots(demand),
            flops=kernel.flops,
            model_flops=kernel.model_flops if counted else 0,
            traffic=kernel.read_bytes + kernel.write_bytes,
            precision=kernel.precision,
        )

    def communication(self, item: Communication, phase: str, *, group: RankGroup | None = None) -> Row:
        """The row of a collective along an axis of the plan."""
        group = group or self.rank_group(item.axis)
        demand = collective_demand(item.collective, item.message_bytes, group, self.calibration)
        demands = _slots(demand)
        if self.core is not None and "scale_out" in demand.amounts:
            demands += ((self.core, whole(demand.amounts["scale_out"] * self.plan.num_gpus_per_stage)),)
        return Row(
            Label(item.name, f"communication.{item.collective}", phase),
            delay=picoseconds(demand.delay),
            demands=demands,
            holds=self._holds(demand),
            axis=item.axis,
        )

    def rank_group(self, axis: str) -> RankGroup:
        """Who takes part in a collective along an axis."""
        group = self.plan.group
        return RankGroup(
            self.plan.degree(axis),
            self.plan.ranks_per_domain(axis),
            group.accelerator,
            group.scale_up,
            group.scale_out,
            group.domain,
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


@dataclass(frozen=True, slots=True)
class Bucket:
    """Gradients reduced together once the blocks behind them are done.

    Attributes:
        after_block: Index of the block, counted from the end of the model, whose backward pass fills it.
        communication: The reduction.
    """

    after_block: int
    communication: Communication


@dataclass(slots=True)
class StageCompiler:
    """Compiles the passes of one kind of stage into templates over one table of rows."""

    pricer: Pricer
    recompute: str
    table: RowTable
    shard: Shard
    needs: dict[int, Transients] = field(default_factory=dict)

    def forward(self, blocks: Sequence[Block], prefix: Sequence[Communication] = ()) -> Template:
        """The forward pass through the blocks; layers count from 0 in blocks named ``layer``."""
        into = TemplateBuilder()
        self._receive(into, prefix, "forward")
        for layer, block in _numbered(blocks):
            whole_layer = self.recompute == "full" and block.name == "layer"
            base = len(into.lanes)
            for number, (node, need) in enumerate(
                zip(block.forward, self._needs(block).forward, strict=True)
            ):
                take, keeper = node.kept_bytes, ""
                if whole_layer:
                    take, keeper = (block.input_bytes, LAYER_INPUT) if number == 0 else (0, "")
                    need += node.kept_bytes
                elif self.recompute == "selective" and node.role == "core":
                    take, need = 0, need + node.kept_bytes
                self._add(into, node, "forward", layer, take=take, need=need, keeper=keeper, base=base)
        return into.build()

    def backward(
        self, blocks: Sequence[Block], buckets: Sequence[Bucket] = (), prefix: Sequence[Communication] = ()
    ) -> Template:
        """The backward pass through the blocks, last block first, with what is computed again before each."""
        into = TemplateBuilder()
        self._receive(into, prefix, "backward")
        waiting = list(buckets)
        numbered = list(_numbered(blocks))
        for position, (layer, block) in enumerate(reversed(numbered)):
            again = self._recomputed(block)
            base = len(into.lanes)
            for node, need in again:
                self._add(into, node, "recompute", layer, take=node.kept_bytes, need=need, base=base)
            into.exit = len(into.lanes) - 1 if again else into.exit
            base = len(into.lanes)
            for number, (node, need) in enumerate(
                zip(block.backward, self._needs(block).backward, strict=True)
            ):
                give = node.freed_bytes
                if self.recompute == "full" and block.name == "layer" and number == len(block.backward) - 1:
                    give += block.input_bytes
                self._add(into, node, "backward", layer, give=give, need=need, base=base)
            into.exit = len(into.lanes) - 1
            while waiting and waiting[0].after_block == position:
                bucket = waiting.pop(0)
                row = self.table.add(self.pricer.communication(bucket.communication, "gradient_reduction"))
                into.add(LANE["data_parallel"], row, after=(into.exit,), layer=layer)
        return into.build()

    def update(
        self, before: Sequence[tuple[Communication, RankGroup | None]], kernels: Iterable[Kernel]
    ) -> TemplateBuilder:
        """Reductions that are left, then kernels of the optimizer's phase, one after the other."""
        into = TemplateBuilder()
        for item, group in before:
            self.reduce(into, item, group)
        for kernel in kernels:
            row = self.table.add(self.pricer.kernel(kernel, "optimizer"))
            into.add(LANE["compute"], row, after=(len(into.lanes) - 1,))
        return into

    def reduce(self, into: TemplateBuilder, item: Communication, group: RankGroup | None) -> None:
        """Appends a collective of the step's end, after all that stands before it."""
        row = self.table.add(self.pricer.communication(item, "optimizer", group=group))
        into.add(LANE["data_parallel"], row, after=(len(into.lanes) - 1,))

    def _receive(self, into: TemplateBuilder, prefix: Sequence[Communication], phase: str) -> None:
        for item in prefix:
            into.add(_AXIS_LANE[item.axis], self.table.add(self.pricer.communication(item, phase)))

    def _add(
        self,
        into: TemplateBuilder,
        node: Node,
        phase: str,
        layer: int,
        *,
        base: int,
        take: int = 0,
        give: int = 0,
        need: int = 0,
        keeper: str = "",
    ) -> int:
        """Adds a node; a block's first node follows the block before it, not the reductions in between."""
        first = len(into.lanes) == base
        before = into.exit if into.exit is not None else base - 1
        after = (before,) if first else tuple(base + a for a in node.after)
        if isinstance(node.op, Kernel):
            row = self.pricer.kernel(node.op, phase, counted=phase != "recompute")
            lane = LANE["compute"]
        else:
            row = self.pricer.communication(node.op, phase)
            lane = _AXIS_LANE[node.op.axis]
        if take or give or need:
            row = replace(row, take=take + need, give=give + need, transient=need, keeper=keeper)
        return into.add(lane, self.table.add(row), after, layer)

    def _needs(self, block: Block) -> Transients:
        """What the block's operators need while they run; worked out once for each block."""
        found = self.needs.get(id(block))
        if found is None:
            found = self.needs[id(block)] = transients(block, self.shard)
        return found

    def _recomputed(self, block: Block) -> list[tuple[Node, int]]:
        """What is computed again before the block's backward pass, and what each node needs."""
        if block.name != "layer" or self.recompute == "none":
            return []
        everything = list(zip(block.forward, self._needs(block).forward, strict=True))
        if self.recompute == "full":
            return everything
        return [
            (replace(node, after=(), kept_bytes=node.kept_bytes if node.role == "core" else 0), need)
            for node, need in everything
            if node.role in ("core", "core_output")
        ]


def _numbered(blocks: Sequence[Block]) -> Iterable[tuple[int, Block]]:
    layer = 0
    for block in blocks:
        if block.name == "layer":
            yield layer, block
            layer += 1
        else:
            yield -1, block
