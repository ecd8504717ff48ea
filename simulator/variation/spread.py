"""Step times of many draws: swept as vectors where nothing is contended, else played by events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.analysis import StepTimes, step_seconds
from simulator.engine import Player, Program, Record, play
from simulator.errors import PlanError, UnsupportedError
from simulator.program import Lowered, Plan, check_memory, unfold
from simulator.scenario import Scenario
from simulator.units import PICOSECONDS
from simulator.variation.disturbed import disturbed
from simulator.variation.draws import Draws, Rows, assign_rows, is_random, varies

F64 = NDArray[np.float64]

MOST_PLAYED: Final = 400_000_000
"""Activities that are played by events for one result; minutes of work."""

_WIDTH: Final = 256
"""Elements of a vector that keep the sweep's overhead an activity small and its vectors in the caches."""

_OWN_PACE: Final = 64
"""Replicas that are also played without waiting for the others, at least."""

SWEPT: Final = "replicas swept as vectors, exact: nothing is contended"
APPROXIMATED: Final = "replicas swept as vectors with the lengths that activities have without jitter"
PLAYED: Final = "every replica played by events"
_OR_SWEEP: Final = (
    ', or let jitter.contention be "undisturbed" to sweep them with the lengths that they have without jitter'
)
TWO_WAYS: Final = "both ends of the pipeline hold the same and meet"


@dataclass(frozen=True, slots=True)
class _Samples:
    """Step times [s], a row a draw and a column a measured step; and what each replica would take alone."""

    steps: F64
    own_pace: F64
    waiting: F64
    method: str


def check_variation(scenario: Scenario, plan: Plan) -> None:
    """Refuses slow GPUs that the plan does not have, draws where nothing is random, and what is not modelled.

    Raises:
        PlanError: With the place in the scenario.
    """
    jitter = scenario.simulation.jitter
    if jitter is not None and jitter.contention == "undisturbed" and plan.axes.copies > 1:
        raise UnsupportedError(
            ("simulation", "jitter", "contention"),
            f"{plan.schedule} holds the model at both ends of the pipeline, which meet: exact",
        )
    if varies(scenario) and scenario.checkpoint is not None and scenario.checkpoint.asynchronous:
        raise UnsupportedError(("checkpoint", "asynchronous"), "not modelled with jitter or slow GPUs")
    if scenario.simulation.seeds > 1 and not is_random(scenario):
        raise PlanError(
            ("simulation", "seeds"),
            "every draw would be the same; simulation.jitter or cluster.slow_gpus.count makes them differ",
        )
    slow = scenario.cluster.slow_gpus
    if slow is None:
        return
    if slow.count is not None and slow.count > plan.num_gpus:
        raise PlanError(("cluster", "slow_gpus", "count"), f"{slow.count} of {plan.num_gpus} GPUs")
    beyond = [rank for rank in slow.ranks or () if rank >= plan.num_gpus]
    if beyond:
        raise PlanError(
            ("cluster", "slow_gpus", "ranks"),
            f"there is no rank {beyond[0]}: ranks go from 0 to {plan.num_gpus - 1}",
        )


def step_times(
    scenario: Scenario,
    lowered: Lowered,
    record: Record,
    *,
    progress: Callable[[float, str], None] | None = None,
) -> StepTimes:
    """Draws factors, plays all replicas with them, and sums the step times up.

    Args:
        scenario: What varies, and how many draws.
        lowered: Its folded Program.
        record: The record of it, undisturbed.
        progress: Told the part done.

    Raises:
        PlanError: Slow GPUs that the plan does not have.
        UnsupportedError: Contended, and too large to play every replica.
    """
    check_variation(scenario, lowered.plan)
    jitter = scenario.simulation.jitter
    rows = assign_rows(lowered, each_pass=jitter is not None and jitter.kernels is not None)
    draws = Draws(scenario, lowered.plan, rows)
    tell = progress or (lambda _, __: None)
    many = scenario.simulation.seeds if is_random(scenario) else 1
    samples = _sampled(scenario, lowered, record, rows, draws, many, tell)
    p50, p95, p99 = (float(x) for x in np.percentile(samples.steps, (50, 95, 99)))
    return StepTimes(
        seeds=many,
        samples=int(samples.steps.size),
        mean_s=float(samples.steps.mean()),
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        undisturbed_s=_undisturbed(scenario, lowered, record),
        slowest_replica_s=float(samples.waiting.mean() - samples.own_pace.mean()),
        method=samples.method,
    )


def _undisturbed(scenario: Scenario, lowered: Lowered, record: Record) -> float:
    """The step time without jitter [s]; where both ends of a pipeline meet, they do so here, too."""
    if not _two_ways(lowered):
        return step_seconds(lowered, record, scenario)
    every = unfold(lowered, "replica", shared="whole").lowered
    return float(
        _play(scenario, every, np.ones(every.program.num_activities), scenario.simulation.player).mean()
    )


def _two_ways(lowered: Lowered) -> bool:
    """Whether stages at both ends of the pipeline hold the same part of the model."""
    return lowered.plan.axes.copies > 1


def _sampled(
    scenario: Scenario,
    lowered: Lowered,
    record: Record,
    rows: Rows,
    draws: Draws,
    many: int,
    tell: Callable[[float, str], None],
) -> _Samples:
    from simulator.engine.vectors import contention

    jitter = scenario.simulation.jitter
    if _two_ways(lowered):
        # Vectors have one stage beside its replicas, but not the stage at the other end that it meets.
        return _played(scenario, lowered, rows, draws, many, TWO_WAYS, tell)
    why = contention(lowered.program, shared_capacities(lowered.program))
    if not why:
        return _swept(scenario, lowered, _alone(lowered.program), rows, draws, many, SWEPT, tell)
    if jitter is not None and jitter.contention == "undisturbed":
        lengths = (record.end - record.start).astype(np.float64)
        return _swept(scenario, lowered, lengths, rows, draws, many, f"{APPROXIMATED} ({why})", tell)
    return _played(scenario, lowered, rows, draws, many, why, tell)


def shared_capacities(program: Program) -> NDArray[np.int64]:
    """Capacities that belong to no stage: all replicas draw on them."""
    return np.flatnonzero(np.array([not o.startswith("stage") for o in program.capacities.owners]))


def _alone(program: Program) -> F64:
    from simulator.engine.tables import ClassTable

    table = ClassTable(program.classes, program.capacities.rates)
    lengths: F64 = (program.classes.delay + table.nominal)[program.cls].astype(np.float64)
    return lengths


def _swept(
    scenario: Scenario,
    lowered: Lowered,
    lengths: F64,
    rows: Rows,
    draws: Draws,
    many: int,
    method: str,
    tell: Callable[[float, str], None],
) -> _Samples:
    from simulator.engine.vectors import LAST_EXACT, plan_vectors, sweep_vectors

    plan, replicas = plan_vectors(lowered.program), lowered.plan.data_parallel
    mark, marks = _marks(lowered)
    own_row = rows.own_pace()
    nowhere = np.full_like(rows.meet, -1)
    at_once = max(1, _WIDTH // replicas)
    alone = max(1, -(-_OWN_PACE // replicas))
    steps, own, waiting = [], [], []
    for first in range(0, many, at_once):
        tell(first / many, f"draw {first} of {many}")
        chosen = range(first, min(many, first + at_once))
        factors = draws.factors(chosen)
        sweep = partial(
            sweep_vectors,
            plan,
            lengths,
            factors,
            groups=rows.groups,
            mark=mark,
            marks=marks,
        )
        ends = sweep(row=rows.row, meet=rows.meet)
        if ends.max(initial=0.0) >= LAST_EXACT:
            raise UnsupportedError(
                ("simulation", "jitter"), "more than 2.5 simulated hours are not swept; simulate fewer steps"
            )
        ends = ends.reshape(marks, len(chosen), replicas)
        steps.append(_durations(scenario, lowered, ends.max(axis=2)))
        if first < alone:
            free = sweep(row=own_row, meet=nowhere)
            own.append(_durations(scenario, lowered, free).ravel())
            waiting.append(steps[-1].ravel())
    return _Samples(np.concatenate(steps), np.concatenate(own), np.concatenate(waiting), method)


def _marks(lowered: Lowered) -> tuple[NDArray[np.int32], int]:
    """Marks note the end of each step, and of the checkpoint."""
    mark = np.full(lowered.program.num_activities, -1, np.int32)
    for step, ends in enumerate(lowered.step_ends):
        mark[list(ends)] = step
    mark[list(lowered.checkpoint)] = len(lowered.step_ends)
    return mark, len(lowered.step_ends) + 1


def _durations(scenario: Scenario, lowered: Lowered, ends: F64) -> F64:
    """Measured steps [s] from the ends of steps and checkpoint, shape [marks, n]: shape [n, steps]."""
    steps = ends[:-1]
    lengths = np.diff(steps, axis=0, prepend=0.0)[lowered.warmup_steps :]
    if lowered.checkpoint and scenario.checkpoint is not None:
        lengths = lengths + (ends[-1] - steps[-1]) / scenario.checkpoint.interval
    seconds: F64 = lengths.T / PICOSECONDS
    return seconds


def _played(
    scenario: Scenario,
    lowered: Lowered,
    rows: Rows,
    draws: Draws,
    many: int,
    why: str,
    tell: Callable[[float, str], None],
) -> _Samples:
    replicas, size = lowered.plan.data_parallel, lowered.program.num_activities
    if size * replicas * many > MOST_PLAYED:
        raise UnsupportedError(
            ("simulation",),
            f"{why}, so each of {replicas} replicas has to be played by events: {size:,} activities x "
            f"{replicas} replicas x {many} draws are more than {MOST_PLAYED:,}; take fewer seeds"
            + ("" if _two_ways(lowered) else _OR_SWEEP),
        )
    check_memory(scenario, size * replicas, len(lowered.program.dep) * replicas, classes=size * replicas)
    every = unfold(lowered, "replica", shared="whole")
    player = scenario.simulation.player
    row = np.where(every.origin >= 0, rows.row[every.origin], -1)
    row = np.where(every.copy >= 0, row, -1)
    own_row = rows.own_pace()
    steps, own, waiting = [], [], []
    for draw in range(many):
        tell(draw / many, f"draw {draw} of {many}")
        table = draws.factors([draw])
        factor = np.where(row >= 0, table[row, every.copy], 1.0)
        steps.append(_play(scenario, every.lowered, factor, player))
        if draw < max(1, _OWN_PACE // replicas):
            for replica in range(replicas):
                if _two_ways(lowered):  # alone is what it is among its equals
                    factor = np.where(row >= 0, table[own_row[every.origin], replica], 1.0)
                    own.append(_play(scenario, every.lowered, factor, player))
                else:
                    factor = np.where(rows.row >= 0, table[own_row, replica], 1.0)
                    own.append(_play(scenario, lowered, factor, player))
            waiting.append(steps[-1])
    return _Samples(np.concatenate(steps), np.concatenate(own), np.concatenate(waiting), f"{PLAYED} ({why})")


def _play(scenario: Scenario, lowered: Lowered, factor: F64, player: Player) -> F64:
    record = play(disturbed(lowered.program, factor), player)
    ends = [float(record.end[list(step)].max()) for step in lowered.step_ends]
    ends.append(float(record.end[list(lowered.checkpoint)].max(initial=0)))
    return _durations(scenario, lowered, np.array(ends)[:, None])
