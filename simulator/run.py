"""simulate(scenario) -> Result: the only place where all rooms are wired together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

from simulator.analysis import Result, summarise
from simulator.engine import Record, play
from simulator.errors import PlanError
from simulator.program import Lowered, lower
from simulator.scenario import Scenario
from simulator.specs.calibration import Calibration

Progress = Callable[[float, str], None]
"""Told the part that is done (0 to 1) and what is going on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that one simulation produced, for those who go on from there.

    Attributes:
        scenario: What was simulated.
        lowered: Its Program.
        record: The record.
        result: The result.
    """

    scenario: Scenario
    lowered: Lowered
    record: Record
    result: Result


def simulate(
    scenario: Scenario, *, progress: Progress | None = None, calibration: Calibration | None = None
) -> Result:
    """Simulates the training steps of a scenario.

    Args:
        scenario: From `load_scenario`.
        progress: Called now and then with the part done and a word about it.
        calibration: Instead of the one that the scenario names.

    Returns:
        The result; a model that does not fit is a result with ``fits`` false.

    Raises:
        ScenarioError: The plan does not go with model, batch or cluster, with the place in the file.
        SimulationError: The Program cannot end.
    """
    return run(scenario, progress=progress, calibration=calibration).result


def run(
    scenario: Scenario, *, progress: Progress | None = None, calibration: Calibration | None = None
) -> Outcome:
    """As `simulate`, and hands out Program and record too.

    Args:
        scenario: From `load_scenario`.
        progress: As in `simulate`.
        calibration: As in `simulate`.

    Raises:
        ScenarioError: As `simulate`.
        SimulationError: As `simulate`.
    """
    begun = time.perf_counter()
    tell = progress or (lambda _, __: None)
    calibration = calibration or Calibration.load()
    tell(0.0, "planning")
    try:
        lowered = lower(scenario, calibration)
    except PlanError as error:
        raise scenario.located(error) from error
    tell(0.2, f"playing {lowered.program.num_activities:,} activities")
    record = play(lowered.program, scenario.simulation.player)
    tell(0.8, "analysing")
    result = summarise(scenario, lowered, record, calibration, version=clustersim_version(), wall_s=0.0)
    result = replace(result, wall_s=time.perf_counter() - begun)
    tell(1.0, "done")
    return Outcome(scenario, lowered, record, result)


def check(scenario: Scenario) -> Lowered:
    """Plans a scenario without simulating it.

    Raises:
        ScenarioError: The plan does not go with model, batch or cluster.
    """
    try:
        return lower(scenario)
    except PlanError as error:
        raise scenario.located(error) from error


def clustersim_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("clustersim")
    except PackageNotFoundError:
        return "unknown"
