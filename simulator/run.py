"""simulate(scenario) -> Result: the only place where all rooms are wired together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from simulator.analysis import Essentials, Result, essentials, summarise, with_campaign, with_step_times
from simulator.engine import Record, choose, is_compiled, play
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


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario that was played.

    Attributes:
        scenario: What was played.
        calibration: The constants of the cost models.
        folded: The Program of the representatives.
        lowered: The Program that was played.
        record: The record.
    """

    scenario: Scenario
    calibration: Calibration
    folded: Lowered
    lowered: Lowered
    record: Record

    def essentials(self) -> Essentials:
        """Step time and memory; the time is the result's but for rounding."""
        if varies(self.scenario):
            whole = self.result()
            return Essentials(whole.step_time_s, whole.peak_memory_bytes, whole.fits)
        return essentials(self.scenario, self.lowered, self.record)

    def result(self, progress: Progress | None = None) -> Result:
        """Everything.

        Raises:
            ScenarioError: Draws that cannot be played, or a training that practically never ends.
        """
        scenario, version = self.scenario, clustersim_version()
        found = summarise(scenario, self.lowered, self.record, self.calibration, version=version, wall_s=0.0)
        try:
            if varies(scenario):
                found = _varied(
                    scenario, self.folded, self.lowered, self.record, found, progress or (lambda _, __: None)
                )
            return with_campaign(found, scenario, self.lowered, self.record)
        except PlanError as error:
            raise scenario.located(error) from error


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
    made = played(scenario, progress=tell, calibration=calibration)
    tell(0.8, "analysing")
    result = replace(made.result(tell), wall_s=time.perf_counter() - begun)
    tell(1.0, "done")
    return Outcome(scenario, made.lowered, made.record, result)


def played(
    scenario: Scenario, *, progress: Progress | None = None, calibration: Calibration | None = None
) -> Played:
    """Plays a scenario and looks no further: all that a search needs of most candidates.

    Args:
        scenario: From `load_scenario`.
        progress: As in `simulate`.
        calibration: As in `simulate`.

    Raises:
        ScenarioError: As `simulate`.
        SimulationError: As `simulate`.
    """
    tell = progress or (lambda _, __: None)
    calibration = calibration or Calibration.load(scenario.simulation.calibration)
    tell(0.0, "planning")
    try:
        folded = lower(scenario, calibration)
        check_variation(scenario, folded.plan)
        lowered = _unfolded(scenario, folded)
    except PlanError as error:
        raise scenario.located(error) from error
    program, player = lowered.program, scenario.simulation.player
    if progress is not None:
        compiles = choose(program, player).player == "compiled" and not is_compiled()
        first = "compiling unless that was done before, then " if compiles else ""
        progress(0.2, f"{first}playing {program.num_activities:,} activities")
    record = play(program, player)
    return Played(scenario, calibration, folded, lowered, record)


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
    times = step_times(scenario, folded, record, progress=lambda part, what: tell(0.8 + 0.2 * part, what))
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


@cache
def clustersim_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("clustersim")
    except PackageNotFoundError:
        return "unknown"
