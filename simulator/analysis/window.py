"""The measured part of a record: from the end of the warm-up to the end of the last measured step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.engine import Record
from simulator.program import Lowered


@dataclass(frozen=True, slots=True)
class Window:
    """Times in picoseconds.

    Attributes:
        begin: End of the last warm-up step; 0 without one.
        end: End of the last measured step.
        steps: Measured steps.
        checkpoint: From the end of the last step until training goes on behind a checkpoint; 0 without one.
        writing: From then until the checkpoint is written; 0 if training waits for that.
    """

    begin: int
    end: int
    steps: int
    checkpoint: int
    writing: int

    @property
    def length(self) -> int:
        """Length of the window."""
        return self.end - self.begin

    def stall(self, interval: int) -> float:
        """What a checkpoint every `interval` steps stops training for, the last one unwritten or not [ps]."""
        return self.checkpoint + max(0.0, self.writing - interval * self.length / self.steps)


def measured_window(lowered: Lowered, record: Record) -> Window:
    """The window of a record."""
    ends = [int(record.end[list(step)].max()) for step in lowered.step_ends]
    begin = ends[lowered.warmup_steps - 1] if lowered.warmup_steps else 0
    checkpoint = writing = 0
    if lowered.checkpoint:
        stopped, written = (
            int(np.max(record.end[list(which)])) for which in (lowered.checkpoint, lowered.saved)
        )
        checkpoint, writing = stopped - ends[-1], written - stopped
    return Window(begin, ends[-1], lowered.measured_steps, checkpoint, writing)
