"""What one pipeline stage does in a pass: blocks of the workload as templates over rows."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from simulator.engine import Label
from simulator.program.passes.exchanges import (
    NOTHING,
    Beside,
    Conversion,
    Gathering,
    Gathers,
    Item,
    Reduction,
    conversion_row,
)
from simulator.program.passes.offload import StageOffload
from simulator.program.passes.stretches import AXIS_LANE, block_stretch, bytes_kept, phase_of
from simulator.program.passes.transfers import Fetches, Stores, add_legs, leaving
from simulator.program.planning.recomputation import Mode, Recomputation, computed_again
from simulator.program.pricing.describe import Describer
from simulator.program.pricing.rows import Row, RowTable
from simulator.program.pricing.templates import LANE, Stretch, Template, TemplateBuilder
from simulator.program.pricing.works import Ranks
from simulator.workload import Block, Communication, Kernel, Shard


@dataclass(slots=True)
class StageCompiler:
    """Compiles the passes of one kind of stage into templates over one table of rows."""

    describe: Describer
    recompute: Recomputation
    table: RowTable
    shard: Shard
    waits_to_launch: bool = False
    offload: StageOffload | None = None
    stretches: dict[tuple[Block, str, Mode, Beside], Stretch | None] = field(default_factory=dict)
    """What blocks do, by block, pass and memory: equal layers are one object and are compiled once."""
    reductions: dict[tuple[Item, int], int] = field(default_factory=dict)

    def forward(
        self,
        blocks: Sequence[Block],
        prefix: Sequence[Communication] = (),
        gathering: Gathering | None = None,
    ) -> Template:
        """The forward pass through the blocks; layers count from 0 in blocks named ``layer``."""
        into = TemplateBuilder()
        numbered = _numbered(blocks)
        gathers = self._gathers(into, numbered, gathering, "forward")
        previous = self._receive(into, prefix, "forward")
        modes = self.recompute.modes(blocks)
        stores = Stores(self.offload, self.table, into, self._leaving(blocks, modes))
        ends = [previous]
        for position, (layer, block) in enumerate(numbered):
            gathered = gathers.nodes.get(position, -1) if gathers else -1
            released = gathers.size(position) if gathers and gathers.gathering.release else 0
            previous = self._run(
                into,
                block,
                "forward",
                layer,
                mode=modes[position],
                after=(previous, gathered, stores.room(position)),
                beside=Beside(let_go=released),
            )
            ends.append(previous)
            if gathers:
                gathers.done(position, previous)
            stores.behind(position, layer, previous)
        into.exit = previous if self.offload else None
        return self._built(into, ends)

    def _built(self, into: TemplateBuilder, ends: Sequence[int]) -> Template:
        """The finished template, with the ends of its blocks for the fetches of the next pass."""
        if self.offload is not None:
            turns = (max(ends[-2:][0], 0), max(ends[-1], 0))
            into.transfers = replace(into.transfers, turns=turns)
        return into.build()

    def _leaving(self, blocks: Sequence[Block], modes: Sequence[Mode]) -> tuple[int, ...]:
        """Bytes of each block's activations that leave the GPU between its passes."""

        def kept(place: int) -> int:
            return bytes_kept(blocks[place], modes[place], self.shard)

        return leaving(self.offload, [block.name for block in blocks], kept)

    def backward(
        self,
        blocks: Sequence[Block],
        reductions: Sequence[Reduction] = (),
        prefix: Sequence[Communication] = (),
        gathering: Gathering | None = None,
        *,
        part: str = "backward",
    ) -> Template:
        """The backward pass through the blocks, last block first, with what is computed again before each.

        Layers that keep one input together are computed again together, before the last of them.

        Args:
            blocks: Blocks in the order of the forward pass.
            reductions: What is reduced behind which blocks.
            prefix: What makes the incoming gradient whole.
            gathering: How parameters are gathered, if they are sharded.
            part: ``backward``, or one half of it: ``input_gradient`` or ``weight_gradient``.
        """
        into = TemplateBuilder()
        in_order = _numbered(blocks)
        numbered = list(reversed(in_order))
        modes = self.recompute.modes(blocks)
        again = computed_again(modes)
        gathers: Gathers | None = None
        places: list[Sequence[int]] = [()] * len(blocks)
        if part != "weight_gradient":
            gathers = self._gathers(into, numbered, gathering, "backward")
            # A group that is computed again needs its input before the backward pass of its last block.
            own = [(place,) if mode == "all" else again[place] for place, mode in enumerate(modes)]
            places = list(reversed(own))
        kept = self._leaving(blocks, modes)
        fetches = Fetches(self.offload, self.table, into, kept, places, [layer for layer, _ in in_order])
        fetches.start()
        previous = self._receive(into, prefix, "backward")
        ends, sent = [previous], list[int]()
        begun, ended = defaultdict[int, int](int), defaultdict[int, list[Reduction]](list)
        for reduction in reductions:
            begun[reduction.first] += reduction.held
            ended[reduction.last].append(reduction)
        for position, (layer, block) in enumerate(numbered):
            place = len(blocks) - 1 - position
            gathered = gathers.nodes.get(position, -1) if gathers else -1
            after: tuple[int, ...] = (previous, gathered, fetches.nodes.get(position, -1))
            for other in again[place] if part != "weight_gradient" else ():
                where, earlier = in_order[other]
                previous = self._run(into, earlier, "recompute", where, after=after, mode=modes[other])
                after = (previous, *after[1:])
            let_go = gathers.size(position) if gathers else 0
            if gathering and not gathering.release and part != "weight_gradient":
                let_go = gathering.size(block)
            kept_input = modes[place] == "input" and part != "weight_gradient"
            take = begun[position]
            beside = Beside(take, block.input_bytes if kept_input else 0, let_go)
            begin, room = len(into.lanes), self._room(into) if take else -1
            if take and len(sent) > 1:
                after = (*after, sent[-2])  # gradients that leave have two buffers
            previous = self._run(into, block, part, layer, after=(*after, room), beside=beside)
            ends.append(previous)
            if take:
                into.fills.append(
                    next(i for i in range(begin, previous + 1) if into.lanes[i] != LANE["launch"])
                )
            if gathers:
                gathers.done(position, previous)
            fetches.done(position, previous)
            into.exit = max(previous, 0)
            for reduction in ended[position]:
                sent += self._reduce_behind(into, reduction, layer)
        if gathering and not gathering.release and part != "weight_gradient":
            into.tails.append(previous)
        if not into.lanes:
            # Frozen blocks have no gradients of weights; the pass has its place in the order all the same.
            into.add(LANE["compute"], self.table.add(Row(Label("frozen.pass", "compute.none", "backward"))))
        return self._built(into, ends)

    def update(
        self, before: Sequence[tuple[Item, Ranks | None]], kernels: Iterable[Kernel]
    ) -> TemplateBuilder:
        """Reductions that are left, then kernels of the optimizer's phase, one after the other."""
        into = TemplateBuilder()
        for item, ranks in before:
            self.reduce(into, item, ranks)
        for kernel in kernels:
            row = self.table.add(self.describe.kernel(kernel, "optimizer"))
            into.add(LANE["compute"], row, after=(len(into.lanes) - 1,))
        return into

    def reduce(self, into: TemplateBuilder, item: Item, ranks: Ranks | None = None) -> None:
        """Appends a collective of the step's end, or what is cast for one, behind all else."""
        if isinstance(item, Conversion):
            row = conversion_row(self.describe, item, "optimizer")
        else:
            row = self.describe.communication(item, "optimizer", ranks=ranks)
        into.add(LANE["data_parallel"], self.table.add(row), after=(len(into.lanes) - 1,))

    def _gathers(
        self,
        into: TemplateBuilder,
        numbered: list[tuple[int, Block]],
        gathering: Gathering | None,
        phase: str,
    ) -> Gathers | None:
        if gathering is None or (phase == "backward" and not gathering.release):
            return None
        gathers = Gathers(self.describe, self.table, into, numbered, gathering, phase)
        gathers.start()
        return gathers

    def _room(self, into: TemplateBuilder) -> int:
        """The reduction behind which one more bucket may be filled, -1 for one of the pass before or none."""
        late = self.describe.software.reductions_in_flight
        return into.drains[-late] if len(into.drains) >= late else -1

    def _reduce_behind(self, into: TemplateBuilder, reduction: Reduction, layer: int) -> list[int]:
        """A reduction once its last block is done; what it held is free when the first collective ends.

        Of what leaves the GPU, the share that is left of it goes when it is copied; that copy is returned.
        """
        give = reduction.held - reduction.share
        after = len(into.lanes) - 1 if into.exit is None else into.exit
        for item in reduction.communications:
            converts = isinstance(item, Conversion)
            key = (item, 0 if converts else give)
            if key not in self.reductions:
                self.reductions[key] = self.table.add(self._reduction_row(*key))
            after = into.add(LANE["data_parallel"], self.reductions[key], (after,), layer)
            if give and not converts:
                into.drains.append(after)
                give = 0
        if not reduction.out:
            return []
        (lane, row), *others = reduction.out
        give += reduction.share
        row = replace(row, give=give, buffers=(0, give))
        copied = add_legs(into, self.table, [(lane, row)], after, layer)
        last = add_legs(into, self.table, others, copied, layer)
        into.transfers = replace(into.transfers, gradients=last)
        return [copied]

    def _reduction_row(self, item: Item, give: int) -> Row:
        if isinstance(item, Conversion):
            return conversion_row(self.describe, item, "gradient_reduction")
        return self.describe.communication(item, "gradient_reduction", give=give)

    def _receive(self, into: TemplateBuilder, prefix: Sequence[Communication], phase: str) -> int:
        """What comes before the blocks; where transfers block, launching begins only when they are done."""
        previous = -1
        if self.waits_to_launch and not self.describe.software.cuda_graphs:
            row = self.table.add(self.describe.launching(1, phase))
            into.entry = previous = into.add(LANE["launch"], row)
        for item in prefix:
            row = self.table.add(self.describe.communication(item, phase))
            previous = into.add(AXIS_LANE[item.axis], row, (previous,))
            into.entry = previous if into.entry is None else into.entry
        return previous

    def _run(
        self,
        into: TemplateBuilder,
        block: Block,
        what: str,
        layer: int,
        *,
        after: tuple[int, ...],
        mode: Mode = "all",
        beside: Beside = NOTHING,
    ) -> int:
        """Adds a block's nodes, the first behind `after`; returns the last one.

        Args:
            into: Takes the nodes.
            block: The block; equal layers are one object, and what they do is worked out once.
            what: ``forward``, ``recompute``, ``backward`` or one half of it.
            layer: Layer in the chunk.
            after: What the first node waits for.
            mode: What its forward pass keeps.
            beside: Memory that comes and goes with it.
        """
        phase = phase_of(what)
        key = (block, what, mode, beside)
        if key not in self.stretches:
            self.stretches[key] = self._stretch(*key)
        stretch = self.stretches[key]
        if stretch is not None:
            return into.add_stretch(stretch, after, layer)
        if beside == NOTHING:
            return after[0]
        row = beside.on(Row(Label("memory.pass", "memory", phase)), first=True, last=True)
        return into.add(LANE["compute"], self.table.add(row), after, layer)

    def _stretch(self, block: Block, what: str, mode: Mode, beside: Beside) -> Stretch | None:
        """A block's nodes in classes of this table; None if there are none."""
        found = block_stretch(self.describe, self.shard, block, what, mode, beside)
        if found is None:
            return None
        places = [self.table.add(row) for row in found.rows]
        shape = found.stretch
        return replace(shape, classes=array("i", [places[row] for row in shape.classes]))


def _numbered(blocks: Sequence[Block]) -> list[tuple[int, Block]]:
    layer, found = 0, []
    for block in blocks:
        found.append((layer if block.name == "layer" else -1, block))
        layer += block.name == "layer"
    return found
