"""How far a stage has come in its step: what its next pass waits for beyond the order of lanes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from simulator.program.pricing.templates import Template

Edge = tuple[int, int]
"""An activity, and one that waits for it."""


@dataclass(slots=True)
class StageSoFar:
    """Where a stage stands in its step: activities that what follows must wait for.

    Attributes:
        tails: Those behind which gathered parameters are let go; where the step begins at first.
        in_flight: Buckets of gradients that may be filled or reduced at a time.
        turns: Ends of the last but one and the last block, behind which the next pass's fetches begin.
        gone: The last that gradients which leave the GPU wait for.
        drains: The last so many reductions that free a bucket.
    """

    tails: list[int]
    in_flight: int
    turns: tuple[int, int] = (-1, -1)
    gone: int = -1
    drains: list[int] = field(default_factory=list)

    def ran(self, shape: Template, base: int) -> Iterator[Edge]:
        """Takes note of a pass: its gathers follow the tails of the one before, its buckets the drains."""
        if shape.fills or shape.drains:
            yield from self._filled(shape, base)
        if shape.heads:
            late = 1 + max(place for _, place in shape.heads) - len(self.tails)
            for head, place in shape.heads:
                yield self.tails[min(max(place - late, 0), len(self.tails) - 1)], base + head
        if shape.tails:
            self.tails = [base + tail for tail in shape.tails]
        transfers = shape.transfers
        for turn, fetch in transfers.heads:
            if self.turns[turn] >= 0:
                yield self.turns[turn], base + fetch
        before, end = transfers.turns
        self.turns = (base + before if before > 0 else base, base + end if end > 0 else base)
        if transfers.gradients >= 0:
            self.gone = base + transfers.gradients

    def _filled(self, shape: Template, base: int) -> Iterator[Edge]:
        """The first buckets wait for the last that are drained."""
        for number, fill in enumerate(shape.fills[: self.in_flight]):
            if len(self.drains) >= self.in_flight - number:
                yield self.drains[number - self.in_flight], base + fill
        self.drains = [*self.drains, *(base + drain for drain in shape.drains)][-self.in_flight :]
