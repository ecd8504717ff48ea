"""Copies of a pass: activations that leave behind a block and are fetched ahead of its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from simulator.program.passes.offload import ACTIVATIONS, Leg, StageOffload
from simulator.program.pricing.rows import RowTable
from simulator.program.pricing.templates import TemplateBuilder

AHEAD = 1
"""Blocks that a fetch runs ahead of its own; in a forward pass, a block waits for the copy of that before the
last.

Source: Rajbhandari et al., ZeRO-Infinity, arXiv:2104.07857, section 6.2; TransformerEngine,
``AsyncDoubleBufferGroupOffloadHandler`` (transformer_engine/pytorch/cpu_offload.py).
"""


def add_legs(into: TemplateBuilder, table: RowTable, legs: Sequence[Leg], after: int, layer: int = -1) -> int:
    """Appends the legs of a way, one behind the other; returns the last."""
    for lane, row in legs:
        after = into.add(lane, table.add(row), (after,), layer)
    return after


@dataclass(slots=True)
class Stores:
    """What leaves the GPU in a forward pass, behind the blocks that keep it.

    Attributes:
        offload: What is copied where.
        table: Takes the rows.
        into: Takes the copies.
        kept: Bytes that each block of the pass keeps and that leave; 0 for what stays.
        ends: Copies so far.
    """

    offload: StageOffload
    table: RowTable
    into: TemplateBuilder
    kept: Sequence[int]
    ends: list[int] = field(default_factory=list)

    def room(self, position: int) -> int:
        """The copy that a block waits for, whose room in device memory it takes; -1 for none."""
        waits = self.kept[position] and len(self.ends) > AHEAD
        return self.ends[-1 - AHEAD] if waits else -1

    def behind(self, position: int, layer: int, last: int) -> None:
        """Sends off what a block has kept."""
        size = self.kept[position]
        if not size:
            return
        legs = self.offload.out(
            ACTIVATIONS, "forward", size, self.offload.settings.activations or "", give=size
        )
        copied = add_legs(self.into, self.table, legs[:1], last, layer)
        self.ends.append(copied)
        stored = add_legs(self.into, self.table, legs[1:], copied, layer)
        self.into.transfers = replace(
            self.into.transfers, stored=(*self.into.transfers.stored, (position, stored))
        )


@dataclass(slots=True)
class Fetches:
    """What comes back in a backward pass, one block ahead of the one that needs it.

    Attributes:
        offload: What is copied where.
        table: Takes the rows.
        into: Takes the copies.
        kept: Bytes of each block of the part, in the order of the forward pass, that have left.
        needed: For each turn of the backward pass, the places whose bytes it needs.
        layers: Layer of each place.
        nodes: The copy that each turn waits for.
    """

    offload: StageOffload
    table: RowTable
    into: TemplateBuilder
    kept: Sequence[int]
    needed: Sequence[Sequence[int]]
    layers: Sequence[int]
    nodes: dict[int, int] = field(default_factory=dict)

    def start(self) -> None:
        """The first fetches wait for the pass before this one on the stage."""
        for turn in range(min(AHEAD + 1, len(self.needed))):
            self._issue(turn, -1)

    def done(self, turn: int, last: int) -> None:
        """A turn is done: the next fetch may begin."""
        if turn + AHEAD + 1 < len(self.needed):
            self._issue(turn + AHEAD + 1, last)

    def _issue(self, turn: int, after: int) -> None:
        transfers = self.into.transfers
        for place in self.needed[turn]:
            size, first = self.kept[place], len(self.into.lanes)
            if not size:
                continue
            legs = self.offload.back(
                ACTIVATIONS, "backward", size, self.offload.settings.activations or "", take=size
            )
            self.nodes[turn] = add_legs(self.into, self.table, legs, after, self.layers[place])
            transfers = replace(transfers, fetched=(*transfers.fetched, (place, first)))
            if after < 0:
                # Blocks without a backward pass let nothing begin; what follows begins with the pass.
                transfers = replace(transfers, heads=(*transfers.heads, (min(turn, AHEAD), first)))
        self.into.transfers = transfers


def leaving(
    offload: StageOffload | None, names: Sequence[str], kept: Callable[[int], int]
) -> tuple[int, ...]:
    """Bytes of each block of a part that leave the GPU between its passes; 0 for what stays.

    Args:
        offload: What is copied where; None for nothing.
        names: Names of the blocks.
        kept: Bytes that a block keeps, by its place.
    """
    if offload is None or not offload.settings.activations:
        return (0,) * len(names)
    layers = [place for place, name in enumerate(names) if name == "layer"]
    chosen = set(layers[: offload.settings.activation_layers])
    return tuple(kept(place) if place in chosen else 0 for place in range(len(names)))
