"""One training from its first step to its last, failure by failure."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from simulator.campaign.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

TRAINING: Final = "training"
CHECKPOINTS: Final = "checkpoints"
LOST_WORK: Final = "lost_work"
DETECTION: Final = "detection"
RESTART: Final = "restart"
RESTORE: Final = "restore"
NO_NODE: Final = "no_node"
PARTS: Final = (TRAINING, CHECKPOINTS, LOST_WORK, DETECTION, RESTART, RESTORE, NO_NODE)
"""Where the time of a campaign goes: steps that last, stalls at checkpoints, what failures undid, until they
were noticed, starting again, reading the checkpoint, waiting for a node."""

_BLOCK: Final = 512


@dataclass(frozen=True, slots=True)
class Drawn:
    """One training.

    Attributes:
        parts: One of `PARTS` -> time [ns]; adds up to the length of the training.
        failures: How often each of the hazards interrupted it.
        lost: Time that the failures of each took [ns].
    """

    parts: dict[str, int]
    failures: tuple[int, ...]
    lost: tuple[int, ...]

    @property
    def length(self) -> int:
        """The whole training [ns]."""
        return sum(self.parts.values())


def draw(pace: Pace, generator: np.random.Generator) -> Drawn:
    """Draws one training.

    From the last checkpoint on the job runs until it is done or something fails. Then what was done since
    that checkpoint is lost; the failure is noticed; if it took a node, a spare takes its place, or the first
    node that comes back from repair; the job starts again, which another failure may end.
    Nothing fails between a failure and its being noticed, or while the job waits for a node. Spares are
    sound.
    """
    job, done = _Job(pace, generator), 0
    while True:
        gap, hazard = job.next_failure(pace.undisturbed(pace.steps - done))
        if hazard is None:
            return job.finished(gap, pace.steps - done)
        legs = max(0, gap - pace.write) // job.leg
        done += legs * pace.interval
        job.ran(legs, gap - legs * job.leg, hazard)
        while hazard is not None:
            hazard = job.start_again(hazard)


class _Job:
    """The machine that one training runs on, its luck, and where its time went."""

    def __init__(self, pace: Pace, generator: np.random.Generator) -> None:
        self.pace, self.leg = pace, pace.leg
        self._now, self._stall = 0, pace.stall
        self._away: list[int] = []  # when nodes come back from repair
        self._rate = pace.rate
        self._shares = list(accumulate(hazard.rate / pace.rate for hazard in pace.hazards))[:-1]
        self._luck = _luck(generator)
        self._parts = dict.fromkeys(PARTS, 0)
        self._failures = [0] * len(pace.hazards)
        self._lost = [0] * len(pace.hazards)

    def next_failure(self, ahead: int) -> tuple[int, int | None]:
        """Time until the job fails and which hazard it is, or what lies ahead and None if it does not."""
        if not self._rate:
            return ahead, None
        wait, which = next(self._luck)
        gap = int(wait / self._rate)
        return (ahead, None) if gap >= ahead else (gap, bisect(self._shares, which))

    def ran(self, legs: int, undone: int, hazard: int) -> None:
        """Notes what a run came to that a failure ended."""
        pace = self.pace
        self._now += legs * self.leg + undone
        self._parts[TRAINING] += legs * pace.interval * pace.step
        self._parts[CHECKPOINTS] += legs * self._stall
        self._parts[LOST_WORK] += undone
        self._lost[hazard] += undone

    def start_again(self, hazard: int) -> int | None:
        """From a failure to the first step after it, or to the next failure, which is returned."""
        pace, failed, cause = self.pace, self._now, self.pace.hazards[hazard]
        self._now += cause.detection
        waited = self._wait_for_node(failed + cause.repair) if cause.repair else 0
        gap, other = self.next_failure(pace.restart + pace.restore)
        starting = min(gap, pace.restart)
        self._now += gap
        parts = self._parts
        parts[DETECTION] += cause.detection
        parts[NO_NODE] += waited
        parts[RESTART] += starting
        parts[RESTORE] += gap - starting
        self._failures[hazard] += 1
        self._lost[hazard] += self._now - failed
        return other

    def finished(self, ahead: int, steps: int) -> Drawn:
        """The training, after its last run of so many steps."""
        self._parts[TRAINING] += steps * self.pace.step
        self._parts[CHECKPOINTS] += ahead - steps * self.pace.step
        return Drawn(self._parts, tuple(self._failures), tuple(self._lost))

    def _wait_for_node(self, back: int) -> int:
        """Lets a node go until `back`; how long the job waits for another [ns]."""
        away = self._away
        heappush(away, back)
        while away and away[0] <= self._now:
            heappop(away)
        if len(away) <= self.pace.spare_nodes:
            return 0
        waited = away[0] - self._now
        self._now = heappop(away)
        return waited


def _luck(generator: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Waits of mean 1, and where in the sum of all rates the cause lies."""
    while True:
        waits = generator.standard_exponential(_BLOCK).tolist()
        yield from zip(waits, generator.random(_BLOCK).tolist(), strict=True)
