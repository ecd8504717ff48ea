"""Memory that a simulation will take, estimated before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simulator.errors import PlanError
from simulator.program.drafting.model import ModelParts
from simulator.program.planning.plan import Plan
from simulator.scenario import Scenario
from simulator.units import human

BYTES_PER_ACTIVITY: Final = 150
"""Program (24), record (44), player (8), and what analysis and checks hold at once."""
BYTES_PER_DEPENDENCY: Final = 12
"""A dependency, and the edge that it is made from."""
BYTES_PER_CLASS: Final = 250
"""Label, delay, three demands, holds and pool deltas, and the player's tables."""
BYTES_PER_SIMPY_ACTIVITY: Final = 700
"""What an activity costs the reference player beside that: Python numbers in lists."""

BYTES_PER_PASS: Final = 2000
"""A pass in the schedule, in the order of all stages, and in the lists that its activities are made from."""

_NEVER_MIND: Final = 100e6
"""What every machine has [B]."""

_PART_OF_FREE: Final = 0.8
"""Part of the free memory that a simulation may take unasked."""


def check_memory(
    scenario: Scenario, activities: int, dependencies: int, *, classes: int = 0, passes: int = 0
) -> None:
    """Refuses what would not fit in memory.

    Args:
        scenario: Names the player and the limit.
        activities: Activities of the Program.
        dependencies: Its dependencies.
        classes: Its classes.
        passes: Passes that are laid out one by one.

    Raises:
        PlanError: The estimate exceeds `simulation.max_memory`, or what the machine has free.
    """
    needed = estimate(activities, dependencies, classes, passes, player=scenario.simulation.player)
    limit, given = scenario.simulation.max_memory, True
    if limit is None and needed < _NEVER_MIND:
        return
    if limit is None:
        limit, given = _PART_OF_FREE * _free_memory(), False
    if needed > limit:
        allowed = "simulation.max_memory is" if given else "the machine has room for"
        raise PlanError(
            ("simulation", "max_memory"),
            f"the program of about {activities:,} activities would take about {human(needed, 'bytes')}, "
            f"but {allowed} {human(limit, 'bytes')}; "
            "simulate fewer micro-batches or steps, and leave simulation.fold at auto",
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """What a Program will consist of, before a single pass of it is laid out."""

    activities: int
    passes: int

    def check(self, scenario: Scenario) -> None:
        """Refuses it if it would not fit in memory.

        Raises:
            PlanError: As `check_memory`.
        """
        check_memory(scenario, self.activities, self.activities, passes=self.passes)


def expected(plan: Plan, parts: ModelParts, steps: int) -> Expected:
    """What the Program of so many steps will consist of."""
    blocks = [block for stage in parts.blocks for chunk in stage for block in chunk]
    nodes = sum(len(block.forward) + len(block.backward) + 2 for block in blocks)
    repeats = steps * plan.num_micro_batches
    passes = repeats * 2 * plan.virtual_pipeline * plan.pipeline_parallel
    return Expected(repeats * nodes + 2 * passes, passes)


def estimate(activities: int, dependencies: int, classes: int, passes: int, *, player: str) -> float:
    """Bytes that a simulation takes at its peak, Python itself left out."""
    each = BYTES_PER_ACTIVITY + (BYTES_PER_SIMPY_ACTIVITY if player == "reference" else 0)
    arrays = activities * each + dependencies * BYTES_PER_DEPENDENCY
    return float(arrays + classes * BYTES_PER_CLASS + passes * BYTES_PER_PASS)


def _free_memory() -> float:
    """Memory that can be had without swapping [B]."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return float(text.partition("MemAvailable:")[2].split(maxsplit=1)[0]) * 1024
    except (OSError, IndexError, ValueError):
        return float("inf")
