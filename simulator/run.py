"""simulate(scenario) -> Result: the only place where all rooms are wired together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

from simulator.analysis import Result, summarise, with_step_times
from simulator.engine import Record, play
from simulator.errors import PlanError
from simulator.program import Lowered, check_memory, lower, num_copies, unfold
from simulator.scenario import Scenario
from simulator.specs.calibration import Calibration
from simulator.variation import check_variation, step_times, varies

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
    calibration = calibration or Calibration.load(scenario.simulation.calibration)
    tell(0.0, "planning")
    try:
        folded = lower(scenario, calibration)
        check_variation(scenario, folded.plan)
        lowered = _unfolded(scenario, folded)
    except PlanError as error:
        raise scenario.located(error) from error
    tell(0.2, f"playing {lowered.program.num_activities:,} activities")
    record = play(lowered.program, scenario.simulation.player)
    tell(0.8, "analysing")
    result = summarise(scenario, lowered, record, calibration, version=clustersim_version(), wall_s=0.0)
    if varies(scenario):
        result = _varied(scenario, folded, lowered, record, result, tell)
    result = replace(result, wall_s=time.perf_counter() - begun)
    tell(1.0, "done")
    return Outcome(scenario, lowered, record, result)


def _unfolded(scenario: Scenario, folded: Lowered) -> Lowered:
    """The Program that is played: every rank by itself if the scenario wants no fold."""
    if scenario.simulation.fold != "off":
        return folded
    copies, program = num_copies(folded.plan, "rank"), folded.program
    check_memory(
        scenario,
        program.num_activities * copies * 5 // 4,  # joins come on top
        len(program.dep) * copies,
        classes=len(program.classes.labels) * copies,
    )
    return unfold(folded).lowered


def _varied(
    scenario: Scenario, folded: Lowered, lowered: Lowered, record: Record, result: Result, tell: Progress
) -> Result:
    """The result with the step times of all draws."""
    if lowered is not folded:
        record = play(folded.program, scenario.simulation.player)
    try:
        times = step_times(scenario, folded, record, progress=lambda part, what: tell(0.8 + 0.2 * part, what))
    except PlanError as error:
        raise scenario.located(error) from error
    return with_step_times(result, times)


def check(scenario: Scenario) -> Lowered:
    """Plans a scenario without simulating it.

    Raises:
        ScenarioError: The plan does not go with model, batch or cluster.
    """
    try:
        lowered = lower(scenario, Calibration.load(scenario.simulation.calibration))
        check_variation(scenario, lowered.plan)
        return lowered
    except PlanError as error:
        raise scenario.located(error) from error


def clustersim_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("clustersim")
    except PackageNotFoundError:
        return "unknown"
