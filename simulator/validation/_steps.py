"""The constants of whole steps, fitted to training runs: with all of them, and without each part.

What kernels alone cannot tell (how much slower they are inside a step, what an interpreter costs) is fitted
to published steps. A step responds to such a constant almost in proportion, so each run is simulated a few
times and the rest is linear algebra on logarithms: ``log predicted = log base + response * change``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from simulator.errors import ClustersimError
from simulator.measurements import Table
from simulator.specs import Calibration, Constant
from simulator.specs.calibration import fitted_uncertainty, rounded
from simulator.specs.evidence import Refit
from simulator.validation._folder import measurement_files
from simulator.validation._kind import recognise
from simulator.validation._training import STEP_TIME, TrainingRuns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Cells = Mapping[str, str]
Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class _Free:
    """One constant that is fitted: a round figure that owes nothing to the runs, and the prior's spread."""

    name: str
    start: float
    spread: float


_FREE: Final = (_Free("step_matrix_fraction", 0.9, 0.1), _Free("python_operator_time", 4e-5, 0.5))

_ROWS_A_GROUP: Final = 8
"""Rows of one source that take part, always the same ones; more of them say the same."""
_LEAST_GROUPS: Final = 4
"""Sources that a fit needs: constants of one source are that source's."""
_SCALE: Final = 0.1
"""Error from which a run counts less: frameworks differ by as much on one configuration."""
_PRIOR_SHARE: Final = 0.025
"""As in the fits of kernels: one standard deviation of the prior costs as much as this part of the groups
being off by the scale."""
_STEP: Final = 0.05
"""Relative change of a constant by which the response is measured; a smaller one would see kinks."""
_SETTLED: Final = 0.05
_MOST_ROUNDS: Final = 3
_MOST_ITERATIONS: Final = 50
_UNSEEN: Final = 1e-3
"""A constant that moves the mean run by less than this part of its own change is not determined."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One measured step: its cells, source, what must be left out not to have seen it, and seconds."""

    cells: Cells
    group: str
    labels: tuple[str, str]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Linear:
    """Logarithms of predicted over measured times at some constants, and the responses to each of them."""

    residuals: Floats
    responses: Floats
    runs: tuple[_Run, ...]


def fit_steps(
    folder: Path,
    calibration: Calibration,
    *,
    command: str,
    leave_one_out: bool = False,
    progress: Progress | None = None,
) -> Calibration:
    """The calibration with its constants of whole steps fitted to the training runs of a folder.

    Every source counts the same. To leave one out, the constants are fitted again without each accelerator,
    on the constants of kernels and collectives without it, and without each source; these refits join those
    that the calibration has. Where the folder holds no training runs, the calibration comes back as it is.

    Args:
        folder: Where the measurements are.
        calibration: The other constants, and where these start from.
        command: The command that does it again, for the entries.
        leave_one_out: Fit again without each accelerator and without each source.
        progress: Called with the part done and what is being done.

    Raises:
        ScenarioError: Mistakes in a file.
        ClustersimError: Too few sources.
    """
    tell = progress or (lambda _part, _what: None)
    runs = _runs(folder)
    if not runs:
        return calibration
    groups = sorted({run.group for run in runs})
    if len(groups) < _LEAST_GROUPS:
        message = f"too few training runs: sources {', '.join(groups)}; at least {_LEAST_GROUPS} are wanted"
        raise ClustersimError(message)
    base = {free.name: calibration.constants[free.name].value for free in _FREE}
    for turn in range(_MOST_ROUNDS):
        tell(0.2 * turn, "fitting constants of whole steps")
        linear = _linear(runs, calibration, base)
        moved, spread, seen = _solve(linear, base)
        base = {name: value * math.exp(moved[name]) for name, value in base.items()}
        if max(abs(change) for change in moved.values()) < _SETTLED:
            break
    refits = _refits(linear, calibration, base, moved, tell) if leave_one_out else {}
    return _with_constants(calibration, base, spread, seen, refits, linear.runs, command)


def _runs(folder: Path) -> list[_Run]:
    """A stratified sample of the runs of a folder whose time was measured."""
    found: dict[str, list[_Run]] = defaultdict(list)
    for path in measurement_files(folder)[0]:
        table = Table(path)
        kind = recognise(table)
        if not isinstance(kind, TrainingRuns):
            continue
        for row in table.rows():
            seconds = kind.measurement(row.cells, STEP_TIME)
            if seconds is not None:
                accelerator, source = kind.left_out(row.cells)
                run = _Run(row.cells, kind.group(row.cells), (accelerator or "", source or ""), seconds)
                found[run.group].append(run)
    return [run for name in sorted(found) for run in _spread(found[name])]


def _spread(runs: Sequence[_Run]) -> list[_Run]:
    """Some of the runs of a source, evenly through its list."""
    wanted = min(len(runs), _ROWS_A_GROUP)
    return [runs[place * len(runs) // wanted] for place in range(wanted)]


def _predicted(run: _Run, calibration: Calibration) -> float | None:
    """Predicted step time [s]; None where the run is not modelled."""
    try:
        return TrainingRuns().predict(run.cells, calibration)["predicted_step_time_s"]
    except ClustersimError:
        return None


def _linear(runs: Sequence[_Run], calibration: Calibration, base: Mapping[str, float]) -> _Linear:
    """Residuals and responses at the base; runs that are not modelled are left out."""
    import numpy as np

    trials = [calibration.with_values(**base)]
    trials += [
        calibration.with_values(**{**base, free.name: base[free.name] * (1 + _STEP)}) for free in _FREE
    ]
    kept, residuals, responses = [], [], []
    for run in runs:
        times = [_predicted(run, trial) for trial in trials]
        if None in times:
            continue
        logs = [math.log(time) for time in times if time is not None]
        kept.append(run)
        residuals.append(logs[0] - math.log(run.seconds))
        responses.append([(log - logs[0]) / math.log1p(_STEP) for log in logs[1:]])
    return _Linear(np.array(residuals), np.array(responses), tuple(kept))


def _solve(
    linear: _Linear, base: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float], dict[str, bool]]:
    """Changes of the logarithms that fit best, their spread, and whether the runs determine them.

    The loss is ``2 (sqrt(1 + (r/s)^2) - 1)``, linear far out, with a weak prior around the round figures.
    """
    import numpy as np

    counts: dict[str, int] = defaultdict(int)
    for run in linear.runs:
        counts[run.group] += 1
    share = np.array([1.0 / counts[run.group] for run in linear.runs])
    prior = np.array([_SCALE**2 * _PRIOR_SHARE * len(counts) / free.spread**2 for free in _FREE])
    centre = np.array([math.log(free.start / base[free.name]) for free in _FREE])
    x = np.zeros(len(_FREE))
    for _ in range(_MOST_ITERATIONS):
        values = linear.residuals + linear.responses @ x
        weights = share / np.sqrt(1.0 + (values / _SCALE) ** 2)
        normal = (linear.responses * weights[:, None]).T @ linear.responses + np.diag(prior)
        wanted = -(linear.responses * weights[:, None]).T @ linear.residuals + prior * centre
        step = np.linalg.solve(normal, wanted) - x
        x = x + step
        if float(np.max(np.abs(step))) < _SETTLED / 50:
            break
    scatter = float(np.sum(weights * values**2)) / max(1.0, float(np.sum(weights)) - len(_FREE))
    spread = np.sqrt(np.diag(np.linalg.inv(normal)) * scatter)
    seen = np.mean(np.abs(linear.responses), axis=0) > _UNSEEN
    names = [free.name for free in _FREE]
    return (
        dict(zip(names, x.tolist(), strict=True)),
        dict(zip(names, spread.tolist(), strict=True)),
        dict(zip(names, seen.tolist(), strict=True)),
    )


def _refits(
    linear: _Linear,
    calibration: Calibration,
    base: Mapping[str, float],
    moved: Mapping[str, float],
    tell: Progress,
) -> dict[str, dict[str, float]]:
    """The constants without each accelerator and each source."""
    import numpy as np

    # The responses were taken before the last move, which was small.
    there = {name: value / math.exp(moved[name]) for name, value in base.items()}
    known = {refit.left_out for refit in calibration.refits}
    found: dict[str, dict[str, float]] = {}
    labels = sorted({label for run in linear.runs for label in run.labels})
    for number, label in enumerate(labels):
        kept = [place for place, run in enumerate(linear.runs) if label not in run.labels]
        if not kept or len({linear.runs[place].group for place in kept}) < _LEAST_GROUPS - 1:
            continue
        tell(0.6 + 0.4 * number / len(labels), f"fitting constants of whole steps without {label}")
        residuals = linear.residuals[kept]
        if label in known:
            other = calibration.without(label).with_values(**there)
            times = [_predicted(linear.runs[place], other) or math.nan for place in kept]
            residuals = np.log(times) - np.log([linear.runs[place].seconds for place in kept])
        part = _Linear(residuals, linear.responses[kept], tuple(linear.runs[place] for place in kept))
        change, _, _ = _solve(part, there)
        found[label] = {name: rounded(there[name] * math.exp(change[name])) for name in change}
    return found


def _with_constants(
    calibration: Calibration,
    values: Mapping[str, float],
    spread: Mapping[str, float],
    seen: Mapping[str, bool],
    refits: Mapping[str, Mapping[str, float]],
    runs: Sequence[_Run],
    command: str,
) -> Calibration:
    """The calibration with what came out, and how much it scatters without one part."""
    counts: dict[str, int] = defaultdict(int)
    for run in runs:
        counts[run.group] += 1
    cited = ", ".join(f"{name} ({rows})" for name, rows in sorted(counts.items()))
    entries: dict[str, Constant] = {}
    for name, value in values.items():
        if not seen[name]:
            continue
        others = [each[name] for each in refits.values()]
        entries[name] = calibration.constants[name].model_copy(
            update={
                "value": rounded(value),
                "uncertainty": fitted_uncertainty(value, spread[name], others),
                "fitted_to": f"{len(runs)} published training runs, by source: {cited}",
                "basis": "fitted",
                "command": command,
            }
        )
    older = {refit.left_out: refit.values for refit in calibration.refits}
    labels = dict.fromkeys([*older, *refits])
    joined = [
        Refit(
            left_out=label,
            values=older.get(label, {}) | {k: v for k, v in refits.get(label, {}).items() if k in entries},
        )
        for label in labels
    ]
    return Calibration(
        name=calibration.name,
        description=calibration.description,
        constants={**calibration.constants, **entries},
        machine=calibration.machine,
        range=calibration.range,
        refits=joined,
    )
