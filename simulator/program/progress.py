"""How far a stage has come in its step, and what the next pass there waits for."""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.program.templates import Assembly, Template


@dataclass(slots=True)
class StageSoFar:
    """Where a stage stands in its step: activities that what follows must wait for.

    Attributes:
        tails: Those behind which gathered parameters are let go; the end of the step before at first.
        compute: End of the last pass.
        reduced: The last of what replicas communicated.
        blocked: A send that the stage waits for.
        turns: Ends of the last but one and the last block, behind which the next pass's fetches begin.
        gone: The last that gradients which leave the GPU wait for.
        in_flight: Buckets of gradients that may be filled or reduced at a time.
        drains: The last so many reductions that free a bucket.
    """

    tails: list[int]
    in_flight: int
    compute: int = -1
    reduced: int = -1
    blocked: int = -1
    turns: tuple[int, int] = (-1, -1)
    gone: int = -1
    drains: list[int] = field(default_factory=list)

    def waits(self, *, on_communication: bool) -> list[int]:
        """What the next pass waits for on this stage, beyond the order of its compute lane."""
        if self.compute < 0:
            return [*self.tails, self.blocked]
        return [self.compute if on_communication else -1, self.blocked]

    def ran(self, assembly: Assembly, shape: Template, base: int) -> None:
        """Takes note of a pass: its gathers follow the tails of the one before, its buckets the drains."""
        if shape.fills or shape.drains:
            self._filled(assembly, shape, base)
        if shape.heads:
            late = 1 + max(place for _, place in shape.heads) - len(self.tails)
            for head, place in shape.heads:
                tail = self.tails[min(max(place - late, 0), len(self.tails) - 1)]
                if tail >= 0:
                    assembly.wait(base + head, tail)
        if shape.tails:
            self.tails = [base + tail for tail in shape.tails]
        self.compute = base + shape.exit
        last = shape.last_on_data_parallel
        if last >= 0:
            self.reduced = base + last
        transfers = shape.transfers
        if transfers.heads:
            for turn, fetch in transfers.heads:
                if self.turns[turn] >= 0:
                    assembly.wait(base + fetch, self.turns[turn])
        before, end = transfers.turns
        self.turns = (base + before if before > 0 else base, base + end if end > 0 else base)
        if transfers.gradients >= 0:
            self.gone = base + transfers.gradients

    def _filled(self, assembly: Assembly, shape: Template, base: int) -> None:
        """The first buckets wait for the last that are drained."""
        for number, fill in enumerate(shape.fills[: self.in_flight]):
            if len(self.drains) >= self.in_flight - number:
                assembly.wait(base + fill, self.drains[number - self.in_flight])
        self.drains = [*self.drains, *(base + drain for drain in shape.drains)][-self.in_flight :]
