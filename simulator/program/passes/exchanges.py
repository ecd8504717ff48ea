"""What comes and goes with a block in a pass: parameters that are gathered, gradients that are reduced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from simulator.program.passes.offload import Leg
from simulator.program.passes.transfers import add_legs
from simulator.program.pricing.describe import Describer
from simulator.program.pricing.rows import Row, RowTable
from simulator.program.pricing.templates import LANE, TemplateBuilder
from simulator.workload import Block, Communication, Kernel


class Beside(NamedTuple):
    """Memory that comes and goes with a block besides what it keeps itself.

    Attributes:
        take: Gradients on their way, which come with its first node.
        give: An input that was kept, which goes with its last node.
        let_go: Gathered parameters, which go with it, too.
    """

    take: int = 0
    give: int = 0
    let_go: int = 0

    def on(self, row: Row, *, first: bool, last: bool) -> Row:
        """The row with what comes or goes with it."""
        take, give, let_go = self.take * first, self.give * last, self.let_go * last
        if not take and not give and not let_go:
            return row
        buffers = row.buffers[0] + take, row.buffers[1] + let_go
        return replace(row, take=row.take + take, give=row.give + give + let_go, buffers=buffers)


NOTHING = Beside()


@dataclass(frozen=True, slots=True)
class Conversion:
    """A kernel beside the passes that writes numbers in another precision, before or behind a collective.

    Attributes:
        kernel: The kernel.
        take: Bytes of device memory that it takes.
        give: Bytes that its end gives back.
    """

    kernel: Kernel
    take: int = 0
    give: int = 0


def conversion_row(describe: Describer, item: Conversion, phase: str) -> Row:
    """The row of a conversion."""
    row = describe.kernel(item.kernel, phase)
    return replace(row, take=item.take, give=item.give, buffers=(item.take, item.give))


Item = Communication | Conversion
"""What is done for an exchange, one after the other."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """Gradients that are reduced together; blocks count from the end of the model.

    Attributes:
        first: The block whose backward pass is the first to write them.
        last: The block behind whose backward pass they are complete.
        communications: How they are reduced.
        held: Bytes that they take from the first block until they are reduced, where only a share stays.
        out: The way of that share out of the GPU, if it does not stay; the end of its first leg frees it.
        share: Bytes of it.
    """

    first: int
    last: int
    communications: tuple[Item, ...]
    held: int = 0
    out: tuple[Leg, ...] = ()
    share: int = 0


@dataclass(frozen=True, slots=True)
class Gathering:
    """Parameters that are gathered for a block and let go behind it.

    Attributes:
        of: The collectives for a block; none for a block without parameters.
        prefetch: Blocks gathered ahead in a forward pass.
        prefetch_backward: The same in a backward pass.
        release: Whether they are let go behind the pass; they come back if not.
        fetched: The way of a GPU's own share into its memory, where it lies outside, by block and phase.
    """

    of: Callable[[Block], tuple[Item, ...]]
    prefetch: int
    prefetch_backward: int
    release: bool = True
    fetched: Callable[[Block, str], tuple[Leg, ...]] = lambda _block, _phase: ()

    def size(self, block: Block) -> int:
        """Bytes of device memory that the block's parameters take while they are there."""
        own = sum(row.take for _, row in self.fetched(block, ""))
        return own + sum(item.message_bytes for item in self.of(block) if isinstance(item, Communication))


@dataclass(slots=True)
class Gathers:
    """Gathers of one pass on their way: each waits for the block whose place it takes.

    Attributes:
        describe: Describes the collectives.
        table: Takes the rows.
        into: Takes the gathers.
        blocks: Blocks in the order of the pass, with their layers.
        gathering: How they are gathered.
        phase: Phase of the step.
        nodes: The activity that each block waits for.
    """

    describe: Describer
    table: RowTable
    into: TemplateBuilder
    blocks: list[tuple[int, Block]]
    gathering: Gathering
    phase: str
    nodes: dict[int, int] = field(default_factory=dict)

    @property
    def at_a_time(self) -> int:
        """Blocks whose parameters are there or on their way."""
        gathering = self.gathering
        return 1 + (gathering.prefetch if self.phase == "forward" else gathering.prefetch_backward)

    def start(self) -> None:
        """The first gathers wait for the pass before this one on the stage."""
        for position in range(min(self.at_a_time, len(self.blocks))):
            self._issue(position, -1)

    def done(self, position: int, last: int) -> None:
        """A block is done: the next gather may begin, in this pass or in the one behind it."""
        ahead = position + self.at_a_time
        if ahead < len(self.blocks):
            self._issue(ahead, last)
        else:
            self.into.tails.append(last)

    def size(self, position: int) -> int:
        """Bytes that are gathered for a block."""
        block = self.blocks[position][1]
        return self.gathering.size(block) if self._wanted(block) else 0

    def _wanted(self, block: Block) -> bool:
        return self.phase == "forward" or bool(block.backward)

    def _issue(self, position: int, after: int) -> None:
        layer, block = self.blocks[position]
        if not self._wanted(block):
            return
        legs = self.gathering.fetched(block, self.phase)
        if legs:
            if after < 0:
                self.into.heads.append((len(self.into.lanes), position))
            after = add_legs(self.into, self.table, legs, after, layer)
            self.nodes[position] = after
        cast = 0
        for item in self.gathering.of(block):
            if isinstance(item, Conversion):
                row, cast = conversion_row(self.describe, item, self.phase), item.take
            else:
                row = self.describe.communication(item, self.phase, take=item.message_bytes, give=cast)
                cast = 0
            node = self.into.add(LANE["data_parallel"], self.table.add(row), (after,), layer)
            self.nodes[position] = node
            if after < 0:
                self.into.heads.append((node, position))
