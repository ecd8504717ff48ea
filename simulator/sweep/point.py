"""One point: its scenario, simulated, as a row of the ledger. This is what a worker does."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from simulator.analysis import Result
from simulator.errors import ClustersimError, ScenarioError
from simulator.scenario import Scenario, Variations
from simulator.specs.calibration import Calibration

OK: Final = "ok"
DOES_NOT_FIT: Final = "does_not_fit"
ILLEGAL: Final = "illegal"
FAILED: Final = "failed"
STATUSES: Final = (OK, DOES_NOT_FIT, ILLEGAL, FAILED)

APART: Final = frozenset(
    {"wall_s", "player", "num_events", "version", "name", "basis", "campaign", "_tables"}
)
"""Fields of a result that differ from run to run, or are the same for the whole sweep."""

COSTS: Final = ("usd_per_hour", "usd_per_million_tokens")
"""Figures of a point whose accelerator has a price."""

_FIGURES: Final = tuple(field.name for field in fields(Result) if field.name not in APART)

CAMPAIGN: Final = ("steps", "mean_s", "p5_s", "p95_s", "goodput", "best_interval", "gpu_hours", "cost")
"""Figures of the whole training, where the scenario asks for it."""

_LONGEST: Final = 500


class Outcome(NamedTuple):
    """What became of a point.

    Attributes:
        status: One of `STATUSES`.
        reason: Why it is not ok, in one line.
        result: JSON of the metrics; empty without any.
        wall_s: Time that it took.
        player: Who played.
    """

    status: str
    reason: str
    result: str
    wall_s: float
    player: str


@dataclass(frozen=True)
class Base:
    """What all points of a sweep share.

    Attributes:
        data: The base scenario as its file writes it.
        folder: Folder that its paths are relative to.
        fixed: Overrides beneath a point's own.
        above: Overrides above them.
    """

    data: Mapping[str, Any]
    folder: Path
    fixed: Mapping[str, Any]
    above: Mapping[str, Any]

    def scenario(self, overrides: Mapping[str, Any]) -> Scenario:
        """The scenario of a point.

        Raises:
            ScenarioError: It is wrong.
        """
        # Whole parts before the figures inside them, whatever the order of the axes.
        swept = dict(sorted(overrides.items(), key=lambda item: item[0].count(".")))
        return self._variations.scenario({**swept, **self.above})

    def prepare(self) -> None:
        """Loads what all points need beside code: entries of the catalogue, constants of the cost models."""
        with contextlib.suppress(ClustersimError):  # what is wrong, each point tells
            Calibration.load(self.scenario({}).simulation.calibration)

    @cached_property
    def _variations(self) -> Variations:
        return Variations(self.data, self.fixed, label="point", folder=self.folder)


Evaluate = Callable[[Base, Mapping[str, Any]], Outcome]
"""Turns a point into its outcome; must be importable by a worker."""


def evaluate(base: Base, overrides: Mapping[str, Any]) -> Outcome:
    """Simulates a point; what clustersim refuses in words becomes the reason, and so does a bug."""
    begun = time.perf_counter()
    try:
        status, reason, result, player = _simulated(base, overrides)
    except ClustersimError as error:
        status, reason, result, player = ILLEGAL, _words(error), "", ""
    except Exception as error:  # noqa: BLE001 - one point must not end the sweep
        status, reason, result, player = FAILED, _bug(error), "", ""
    return Outcome(status, reason, result, time.perf_counter() - begun, player)


def _simulated(base: Base, overrides: Mapping[str, Any]) -> tuple[str, str, str, str]:
    from simulator.run import run

    scenario = base.scenario(overrides)
    outcome = run(scenario)
    result = outcome.result
    text = _written(metrics(result, scenario))
    if result.fits:
        return OK, "", text, result.player
    need, have = result.peak_memory_bytes / 2**30, result.memory_capacity_bytes / 2**30
    where = ""
    if need <= have:
        need, have = result.host_memory_bytes / 2**30, result.host_memory_capacity_bytes / 2**30
        where = " on a host"
    return DOES_NOT_FIT, f"needs {need:,.1f} GiB of {have:,.1f} GiB{where}", text, result.player


def metrics(result: Result, scenario: Scenario) -> dict[str, Any]:
    """The figures of a result that are the same for every run of its scenario, and what it costs."""
    named = {name: getattr(result, name) for name in _FIGURES}
    named["bottlenecks"] = {b.resource: b.share for b in result.bottlenecks}
    named["bottleneck"] = result.bottlenecks[0].resource if result.bottlenecks else None
    if result.campaign is not None:
        named["campaign"] = {name: getattr(result.campaign, name) for name in CAMPAIGN}
    price = scenario.cluster.node_groups[0].accelerator.price_per_hour
    if price is not None:
        named[COSTS[0]] = price * 3600 * result.num_gpus
        if result.tokens_per_s:
            named[COSTS[1]] = price * result.num_gpus / result.tokens_per_s * 1e6
    return named


def _opened(value: Any) -> dict[str, Any]:
    """A part of a result as a mapping."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_opened)


def _written(named: Mapping[str, Any]) -> str:
    """As JSON; what is not finite is null."""
    try:
        return _ENCODER.encode(named)
    except ValueError:
        return _ENCODER.encode(_plain(named))


def _plain(value: Any) -> Any:
    """Without numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return _plain(_opened(value))


def _words(error: ClustersimError) -> str:
    if isinstance(error, ScenarioError):
        text = "; ".join(problem.message for problem in error.problems)
    else:
        text = str(error)
    return " ".join(text.split())[:_LONGEST]


def _bug(error: Exception) -> str:
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {Path(last[0].filename).name}:{last[0].lineno}" if last else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}{where} (a bug in clustersim)"[:_LONGEST]
