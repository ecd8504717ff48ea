"""What a whole training comes to: how long, how much of it trains, what interrupts it, what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from simulator.campaign.drawn import PARTS, Drawn, draw
from simulator.campaign.expected import best_interval, expected
from simulator.campaign.pace import NANOSECONDS, Hazard, Pace, to_nanoseconds
from simulator.errors import PlanError
from simulator.specs import CampaignSpec, NodeGroupSpec

MOST_FAILURES: Final = 5_000_000
"""Failures that are drawn for one result, all trainings together; some ten seconds of work."""

SLOWEST: Final = 100
"""Times as long as without failures; where the mean is more, training practically never ends."""

_CURVE: Final = 16
_STREAM: Final = 0x63616D70
"""Tells a campaign's draws from all others of a seed: "camp"."""


@dataclass(frozen=True, slots=True)
class IntervalPoint:
    """What another interval between checkpoints would do.

    Attributes:
        interval: Steps between checkpoints.
        time_s: Mean time of the whole training [s], a spare node being there whenever one is needed.
        goodput: Part of it that trains.
    """

    interval: int
    time_s: float
    goodput: float


@dataclass(frozen=True, slots=True)
class Interruption:
    """A cause of interruptions.

    Attributes:
        cause: Its name.
        count: How often it comes, in the mean.
        lost_s: What it takes of the whole training, in the mean [s].
    """

    cause: str
    count: float
    lost_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A whole training.

    Attributes:
        steps: Steps.
        runs: Times that it was drawn; 1 where nothing fails.
        mean_s: How long it takes in the mean [s].
        p5_s: What it takes at least in 95 % of the draws [s].
        p50_s: Median [s].
        p95_s: What 95 % of the draws do not exceed [s].
        undisturbed_s: Without failures, but with checkpoints [s].
        goodput: Part of the mean time that is training: steps that need not be repeated.
        parts: Where the mean time goes: ``training``, ``checkpoints``, ``lost_work``, ``detection``,
            ``restart``, ``restore``, ``no_node`` -> seconds; adds up to `mean_s`.
        interruptions: What interrupts it, what takes most first.
        mean_time_between_s: Between two failures of a running job [s]; None where nothing fails.
        checkpoint_s: What one checkpoint stops training for [s].
        restore_s: Reading one [s].
        interval: Steps between checkpoints; None without.
        best_interval: The interval with which it would take least; None where nothing fails.
        intervals: What other intervals would do.
        num_nodes: Nodes held, spare ones included.
        gpu_hours: GPUs held, spare ones included, times mean time [h].
        cost: Of those at the accelerator's price [USD]; None where it has none.
    """

    steps: int
    runs: int
    mean_s: float
    p5_s: float
    p50_s: float
    p95_s: float
    undisturbed_s: float
    goodput: float
    parts: dict[str, float]
    interruptions: list[Interruption]
    mean_time_between_s: float | None
    checkpoint_s: float
    restore_s: float
    interval: int | None
    best_interval: int | None
    intervals: list[IntervalPoint]
    num_nodes: int
    gpu_hours: float
    cost: float | None


def hazards(spec: CampaignSpec, group: NodeGroupSpec) -> tuple[Hazard, ...]:
    """What interrupts the whole job, from what its parts suffer."""
    units = {"gpu": group.num_gpus, "node": group.nodes, "job": 1}
    return tuple(
        Hazard(
            cause,
            units[failure.of] / failure.mean_time / NANOSECONDS,
            to_nanoseconds(spec.detection if failure.detection is None else failure.detection),
            0 if failure.repair is None else to_nanoseconds(failure.repair),
        )
        for cause, failure in spec.failures.items()
    )


def undergo(pace: Pace, spec: CampaignSpec, group: NodeGroupSpec, seed: int) -> Campaign:
    """Draws the training as often as the campaign says.

    Raises:
        PlanError: Failures come so often that it practically never ends, or are too many to be drawn.
    """
    runs = _draw_all(pace, spec.runs if pace.rate else 1, seed)
    lengths = sorted(run.length for run in runs)
    parts = {part: sum(run.parts[part] for run in runs) / len(runs) for part in PARTS}
    mean = math.fsum(parts.values())
    nodes = group.nodes + spec.spare_nodes
    hours = mean * nodes * group.gpus_per_node / NANOSECONDS / 3600
    price = group.accelerator.price_per_hour
    best = best_interval(pace) if pace.rate else None
    return Campaign(
        steps=pace.steps,
        runs=len(runs),
        mean_s=mean / NANOSECONDS,
        p5_s=_quantile(lengths, 0.05),
        p50_s=_quantile(lengths, 0.5),
        p95_s=_quantile(lengths, 0.95),
        undisturbed_s=pace.undisturbed(pace.steps) / NANOSECONDS,
        goodput=pace.steps * pace.step / mean,
        parts={part: time / NANOSECONDS for part, time in parts.items()},
        interruptions=_interruptions(pace, runs),
        mean_time_between_s=1 / pace.rate / NANOSECONDS if pace.rate else None,
        checkpoint_s=pace.stall / NANOSECONDS,
        restore_s=pace.restore / NANOSECONDS,
        interval=pace.interval if pace.interval < pace.steps or pace.copy else None,
        best_interval=best,
        intervals=[] if best is None else _curve(pace, best),
        num_nodes=nodes,
        gpu_hours=hours,
        cost=None if price is None else price * 3600 * hours,
    )


def _draw_all(pace: Pace, runs: int, seed: int) -> list[Drawn]:
    """All draws, each with a generator of its own: more of them change no earlier one."""
    import numpy as np

    mean, least = expected(pace), pace.undisturbed(pace.steps)
    if mean > SLOWEST * least:
        raise PlanError(
            ("campaign", "failures"),
            f"something fails every {_told(1 / pace.rate)}, {_told(pace.leg)} lie between checkpoints and a "
            f"start takes {_told(pace.restart + pace.restore)}: this training practically never ends",
        )
    if mean * pace.rate * runs > MOST_FAILURES:
        most = max(1, int(MOST_FAILURES / (mean * pace.rate)))
        raise PlanError(
            ("campaign", "runs"),
            f"{mean * pace.rate * runs:,.0f} failures would have to be drawn; up to {most:,} runs are drawn",
        )
    return [draw(pace, np.random.default_rng((_STREAM, seed, run))) for run in range(runs)]


def _curve(pace: Pace, best: int) -> list[IntervalPoint]:
    """From a sixteenth of the best or given interval to sixteen times the other."""
    low = max(1, min(best, pace.interval) // _CURVE)
    high = min(pace.steps, max(best, pace.interval) * _CURVE)
    ratio = high / low
    wanted = {round(low * ratio ** (number / 48)) for number in range(49)} | {best, pace.interval}
    points = []
    for interval in sorted(wanted):
        mean = expected(pace.every(interval))
        if mean <= SLOWEST * pace.steps * pace.step:
            points.append(IntervalPoint(interval, mean / NANOSECONDS, pace.steps * pace.step / mean))
    return points


def _interruptions(pace: Pace, runs: list[Drawn]) -> list[Interruption]:
    """What interrupts the training, what takes most first."""
    found = [
        Interruption(
            hazard.cause,
            sum(run.failures[number] for run in runs) / len(runs),
            sum(run.lost[number] for run in runs) / len(runs) / NANOSECONDS,
        )
        for number, hazard in enumerate(pace.hazards)
    ]
    return sorted(found, key=lambda cause: (-cause.lost_s, cause.cause))


def _quantile(ordered: list[int], part: float) -> float:
    """Between the two nearest [s]."""
    place = part * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return (ordered[below] + (place - below) * (ordered[above] - ordered[below])) / NANOSECONDS


def _told(nanoseconds: float) -> str:
    seconds = nanoseconds / NANOSECONDS
    for unit, scale in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:,.1f} {unit}"
    return f"{seconds:,.3g} s"
