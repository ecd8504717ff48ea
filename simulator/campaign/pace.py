"""What the campaign is told of the job: how long its parts take, and how often something interrupts it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

NANOSECONDS: Final = 1_000_000_000
"""Nanoseconds in a second: a campaign's clock counts in these, for it lasts longer than the engine's."""


def to_nanoseconds(seconds: float) -> int:
    """Seconds on a campaign's clock."""
    return round(seconds * NANOSECONDS)


@dataclass(frozen=True, slots=True)
class Hazard:
    """A cause of interruptions of the whole job.

    Attributes:
        cause: Its name.
        rate: Interruptions per nanosecond of a job that runs.
        detection: From the failure to its being noticed [ns].
        repair: How long a node is away [ns]; 0 where none is lost.
    """

    cause: str
    rate: float
    detection: int
    repair: int


@dataclass(frozen=True, slots=True)
class Pace:
    """A job, in nanoseconds.

    Attributes:
        steps: Steps of the whole training.
        step: A step without its share of checkpoints [ns].
        interval: Steps between checkpoints.
        copy: What a checkpoint stops training for [ns].
        write: From then until it would survive a failure, beside the training [ns]; 0 if it is synchronous.
        restart: From a failure's being noticed to the first step, without reading the checkpoint [ns].
        restore: Reading the checkpoint [ns].
        hazards: What interrupts the job.
        spare_nodes: Nodes that stand by.
    """

    steps: int
    step: int
    interval: int
    copy: int
    write: int
    restart: int
    restore: int
    hazards: tuple[Hazard, ...]
    spare_nodes: int

    @property
    def rate(self) -> float:
        """Interruptions per nanosecond, whatever the cause."""
        return math.fsum(hazard.rate for hazard in self.hazards)

    @property
    def stall(self) -> int:
        """What a checkpoint stops training for: the copy, and what the last write still takes [ns]."""
        return self.copy + max(0, self.write - self.interval * self.step)

    @property
    def leg(self) -> int:
        """From one checkpoint to the next [ns]."""
        return self.interval * self.step + self.stall

    def undisturbed(self, steps: int) -> int:
        """Time of so many steps with their checkpoints, the last one included, if nothing fails [ns]."""
        return steps * self.step + -(-steps // self.interval) * self.stall

    def every(self, interval: int) -> Pace:
        """The same job with checkpoints at another interval."""
        return replace(self, interval=interval)
