"""What one pipeline stage does in a pass: blocks of the workload as templates over rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

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
from simulator.program.passes.stretches import AXIS_LANE, Stretches, bytes_kept, phase_of
from simulator.program.passes.transfers import Fetches, Stores, add_legs, leaving
from simulator.program.planning.recomputation import Mode, Recomputation, computed_again
from simulator.program.pricing.describe import Describer
from simulator.program.pricing.rows import Row, RowTable
from simulator.program.pricing.templates import LANE, Stretch, Template, TemplateBuilder
from simulator.program.pricing.works import Ranks
from simulator.workload import Block, Communication, Kernel


class _Part(NamedTuple):
    """Blocks of a chunk in the order of the forward pass, with what all passes through them go by."""

    numbered: list[tuple[int, Block]]
    """Layer of each block, from 0 in blocks named ``layer``, -1 for others; and the block."""
    modes: tuple[Mode, ...]
    """What its forward pass keeps."""
    again: tuple[tuple[int, ...], ...]
    """Places of the blocks that are computed again before its backward pass."""
    leaving: tuple[int, ...]
    """Bytes of its activations that leave the GPU between its passes."""


@dataclass(slots=True)
class StageCompiler:
    """Compiles the passes of one kind of stage into templates over one table of rows."""

    describe: Describer
    recompute: Recomputation
    table: RowTable
    does: Stretches
    """What blocks do, in classes of their own."""
    waits_to_launch: bool = False
    offload: StageOffload | None = None
    gathering: Gathering | None = None
    """How parameters are gathered, if they are sharded."""
    stretches: dict[tuple[Block, str, Mode, Beside], Stretch | None] = field(default_factory=dict)
    """The same in classes of the table: equal layers are one object and are compiled once."""
    reductions: dict[tuple[Item, int], int] = field(default_factory=dict)
    parts: dict[tuple[Block, ...], _Part] = field(default_factory=dict)

    def forward(self, blocks: tuple[Block, ...], prefix: Sequence[Communication] = ()) -> Template:
        """The forward pass through the blocks."""
        into, part = TemplateBuilder(), self._part(blocks)
        gathers = self._gathers(into, part.numbered, "forward")
        previous = self._receive(into, prefix, "forward")
        stores = Stores(self.offload, self.table, into, part.leaving) if self.offload else None
        ends = [previous]
        for position, (layer, block) in enumerate(part.numbered):
            after, beside = [previous], NOTHING
            if gathers:
                after.append(gathers.nodes.get(position, -1))
                if gathers.gathering.release:
                    beside = Beside(let_go=gathers.size(position))
            if stores:
                after.append(stores.room(position))
            previous = self._run(into, block, "forward", layer, after, part.modes[position], beside)
            ends.append(previous)
            if gathers:
                gathers.done(position, previous)
            if stores:
                stores.behind(position, layer, previous)
        into.exit = previous if self.offload else None
        return self._built(into, ends)

    def _built(self, into: TemplateBuilder, ends: Sequence[int]) -> Template:
        """The finished template, with the ends of its blocks for the fetches of the next pass."""
        if self.offload is not None:
            turns = (max(ends[-2:][0], 0), max(ends[-1], 0))
            into.transfers = replace(into.transfers, turns=turns)
        return into.build()

    def _part(self, blocks: tuple[Block, ...]) -> _Part:
        found = self.parts.get(blocks)
        if found is None:
            modes = self.recompute.modes(blocks)

            def kept(place: int) -> int:
                return bytes_kept(blocks[place], modes[place], self.does.shard)

            away = leaving(self.offload, [block.name for block in blocks], kept)
            found = self.parts[blocks] = _Part(_numbered(blocks), modes, computed_again(modes), away)
        return found

    def backward(
        self,
        blocks: tuple[Block, ...],
        reductions: Sequence[Reduction] = (),
        prefix: Sequence[Communication] = (),
        *,
        kind: str = "backward",
    ) -> Template:
        """The backward pass through the blocks, last block first, with what is computed again before each.

        Layers that keep one input together are computed again together, before the last of them.

        Args:
            blocks: Blocks in the order of the forward pass.
            reductions: What is reduced behind which blocks.
            prefix: What makes the incoming gradient whole.
            kind: ``backward``, or one half of it: ``input_gradient`` or ``weight_gradient``.
        """
        into, part = TemplateBuilder(), self._part(blocks)
        whole = kind != "weight_gradient"  # that half needs nothing again
        turns = part.numbered[::-1]
        gathers = self._gathers(into, turns, "backward") if whole else None
        stays = self.gathering if whole and self.gathering and not self.gathering.release else None
        fetches = self._fetches(into, part, whole=whole)
        previous = self._receive(into, prefix, "backward")
        ends, sent = [previous], list[int]()
        begun, ended = _by_block(reductions)
        for position, (layer, block) in enumerate(turns):
            place, after = len(blocks) - 1 - position, [previous]
            if gathers:
                after.append(gathers.nodes.get(position, -1))
            if fetches:
                after.append(fetches.nodes.get(position, -1))
            for other in part.again[place] if whole else ():
                where, earlier = part.numbered[other]
                after[0] = self._run(into, earlier, "recompute", where, after, part.modes[other])
            let_go = gathers.size(position) if gathers else stays.size(block) if stays else 0
            kept_input = block.input_bytes if whole and part.modes[place] == "input" else 0
            take = begun.get(position, 0)
            beside = Beside(take, kept_input, let_go) if take or kept_input or let_go else NOTHING
            begin = len(into.lanes)
            if take:
                after += (*sent[-2:-1], self._room(into))  # gradients that leave have two buffers
            previous = self._run(into, block, kind, layer, after, beside=beside)
            ends.append(previous)
            if take:
                fill = next(i for i in range(begin, previous + 1) if into.lanes[i] != LANE["launch"])
                into.fills.append(fill)
            if gathers:
                gathers.done(position, previous)
            if fetches:
                fetches.done(position, previous)
            into.exit = max(previous, 0)
            for reduction in ended.get(position, ()):
                sent += self._reduce_behind(into, reduction, layer)
        if stays:
            into.tails.append(previous)
        if not into.lanes:
            # Frozen blocks have no gradients of weights; the pass has its place in the order all the same.
            into.add(LANE["compute"], self.table.add(Row(Label("frozen.pass", "compute.none", "backward"))))
        return self._built(into, ends)

    def _fetches(self, into: TemplateBuilder, part: _Part, *, whole: bool) -> Fetches | None:
        """Activations that come back to a backward pass; None if none are away."""
        if self.offload is None:
            return None
        places: list[Sequence[int]] = [()] * len(part.numbered)
        if whole:
            # A group that is computed again needs its input before the backward pass of its last block.
            own = [(place,) if mode == "all" else part.again[place] for place, mode in enumerate(part.modes)]
            places = list(reversed(own))
        layers = [layer for layer, _ in part.numbered]
        fetches = Fetches(self.offload, self.table, into, part.leaving, places, layers)
        fetches.start()
        return fetches

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

    def _gathers(self, into: TemplateBuilder, turns: list[tuple[int, Block]], phase: str) -> Gathers | None:
        gathering = self.gathering
        if gathering is None or (phase == "backward" and not gathering.release):
            return None
        gathers = Gathers(self.describe, self.table, into, turns, gathering, phase)
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
        # Behind blocks that do nothing, there is nothing yet to wait for.
        after = into.exit if into.lanes and into.exit is not None else len(into.lanes) - 1
        for item in reduction.communications:
            converts = isinstance(item, Conversion)
            key = (item, 0 if converts else give)
            row = self.reductions.get(key)
            if row is None:
                row = self.reductions[key] = self.table.add(self._reduction_row(*key))
            after = into.add(LANE["data_parallel"], row, (after,), layer)
            if give and not converts:
                into.drains.append(after)
                give = 0
        if not reduction.out:
            return []
        (lane, leaves), *others = reduction.out
        give += reduction.share
        leaves = replace(leaves, give=give, buffers=(0, give))
        copied = add_legs(into, self.table, [(lane, leaves)], after, layer)
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
        after: Sequence[int],
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
        key = (block, what, mode, beside)
        try:
            stretch = self.stretches[key]
        except KeyError:
            stretch = self.stretches[key] = self._stretch(*key)
        if stretch is not None:
            return into.add_stretch(stretch, after, layer)
        if beside == NOTHING:
            return after[0]
        row = beside.on(Row(Label("memory.pass", "memory", phase_of(what))), first=True, last=True)
        return into.add(LANE["compute"], self.table.add(row), after, layer)

    def _stretch(self, block: Block, what: str, mode: Mode, beside: Beside) -> Stretch | None:
        """A block's nodes in classes of this table; None if there are none."""
        found = self.does.get(block, what, mode, beside)
        return None if found is None else found.stretch.of(self.table.places(found.rows))


def _by_block(reductions: Sequence[Reduction]) -> tuple[dict[int, int], dict[int, list[Reduction]]]:
    """Bytes that reductions take from a block on, and those behind one, by turns of the backward pass."""
    begun, ended = dict[int, int](), dict[int, list[Reduction]]()
    for reduction in reductions:
        begun[reduction.first] = begun.get(reduction.first, 0) + reduction.held
        ended.setdefault(reduction.last, []).append(reduction)
    return begun, ended


def _numbered(blocks: Sequence[Block]) -> list[tuple[int, Block]]:
    layer, found = 0, []
    for block in blocks:
        found.append((layer if block.name == "layer" else -1, block))
        layer += block.name == "layer"
    return found
