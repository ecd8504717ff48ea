"""Measurements -> constants: the fits, what is left out for cross-validation, and what each rests on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from simulator.calibration._fits import FITS, Fit, Free
from simulator.calibration._least_squares import Floats, Minimum, minimise
from simulator.calibration._observations import Measurements, Observation
from simulator.calibration._range import calibrated_range
from simulator.errors import ClustersimError
from simulator.specs import Calibration, Constant
from simulator.specs.calibration import fitted_uncertainty, rounded
from simulator.specs.evidence import Refit

Progress = Callable[[float, str], None]

_ROWS_A_CONSTANT: Final = 4
"""Rows that a fit needs for each of its constants."""
_LEAST_RANGE: Final = 8.0
"""Ratio between the largest and the smallest piece of work below which rates and latencies look alike."""
_UNSEEN: Final = 1e-3
"""A constant that moves the mean row by less than this part of its own change is not determined."""
_PRIOR_SHARE: Final = 0.025
"""Weight of the prior against all rows: one standard deviation from the round figures costs as much as this
part of the rows being off by the fit's scale. Rows of one machine and library share their errors, so a
direction that a thousand of them barely see is left where it was."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One fit with some rows left out.

    Attributes:
        fit: Which fit.
        left_out: What; empty for the fit with everything.
        rows: Rows that the errors are of: those left out, or all.
        mean: Mean absolute error of the rows.
        bias: Mean error of the rows.
    """

    fit: str
    left_out: str
    rows: int
    mean: float
    bias: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What came out.

    Attributes:
        calibration: The constants, with what they were measured on.
        trials: Errors of each fit, with everything and with each part left out.
        kept: Constants that the measurements do not determine, with those of the base.
    """

    calibration: Calibration
    trials: tuple[Trial, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Done:
    fit: Fit
    rows: list[Observation]
    minimum: Minimum
    base: Calibration

    @property
    def seen(self) -> list[bool]:
        mean = np.mean(np.abs(self.minimum.jacobian), axis=0)
        return [bool(each > _UNSEEN) for each in mean]

    @property
    def values(self) -> dict[str, float]:
        return {
            free.name: rounded(math.exp(x)) for free, x in zip(self.fit.free, self.minimum.x, strict=True)
        }


def calibrate(
    measurements: Measurements,
    *,
    base: Calibration,
    name: str,
    command: str,
    leave_one_out: bool = False,
    machine: str | None = None,
    progress: Progress | None = None,
) -> Calibrated:
    """Fit the constants of the cost models; the same measurements give the same constants.

    Args:
        measurements: From `read_measurements`.
        base: Where constants come from that are not fitted; of a machine's own calibration also the start.
        name: Name of the new calibration.
        command: The command that does it again, for the entries.
        leave_one_out: Fit again without each accelerator and without each source.
        machine: Accelerator of the machine that it is for; None for what all hardware shares.
        progress: Called with the part done and what is being done.

    Raises:
        ClustersimError: Too few measurements, and of what.
    """
    tell = progress or (lambda _part, _what: None)
    chosen = _chosen(measurements.observations)
    jobs = 1 + (len(_labels(chosen)) if leave_one_out else 0)
    tell(0.0, "fitting")
    done: list[_Done] = []
    current = base
    for fit, rows in chosen:
        result = _fit(fit, rows, current, start=base if machine else None)
        done.append(result)
        current = current.with_values(**_determined(result))
    trials = [_trial(each, "", each.rows, current) for each in done]
    refits = []
    for number, label in enumerate(_labels(chosen) if leave_one_out else (), start=1):
        tell(number / jobs, f"fitting without {label}")
        refit, tried = _without(label, done, current)
        refits.append(refit)
        trials += tried
    kept = tuple(
        free.name for each in done for free, seen in zip(each.fit.free, each.seen, strict=True) if not seen
    )
    calibration = Calibration(
        name=name,
        description=_description(measurements, machine),
        constants={**base.constants, **_entries(done, refits, base, command)},
        machine=machine,
        range=calibrated_range(measurements.observations),
        refits=refits,
    )
    return Calibrated(calibration, tuple(trials), kept)


def errors(rows: Sequence[Observation], calibration: Calibration) -> Floats:
    """Predicted over measured, minus one."""
    return np.array([row.work.seconds(calibration) / row.seconds - 1.0 for row in rows])


def _chosen(observations: Sequence[Observation]) -> list[tuple[Fit, list[Observation]]]:
    chosen = []
    for fit in FITS:
        rows = fit.choose([row for row in observations if row.benchmark.name in fit.benchmarks])
        if rows:
            _require_enough(fit, rows)
            chosen.append((fit, rows))
    if not chosen:
        raise ClustersimError("no measurements that a constant could be fitted to: all are too small")
    return chosen


def _require_enough(fit: Fit, rows: Sequence[Observation]) -> None:
    wanted = _ROWS_A_CONSTANT * len(fit.free)
    if len(rows) < wanted:
        message = f"{fit.name}: {len(rows)} measurements for {len(fit.free)} constants; at least {wanted}"
        raise ClustersimError(f"too few measurements of {message} are wanted")
    sizes = [row.size for row in rows]
    if max(sizes) < _LEAST_RANGE * min(sizes):
        message = f"{fit.name}: sizes from {min(sizes):.3g} to {max(sizes):.3g}"
        raise ClustersimError(f"too few sizes of {message}; a factor of {_LEAST_RANGE:g} is wanted")


def _fit(fit: Fit, rows: list[Observation], current: Calibration, *, start: Calibration | None) -> _Done:
    """One fit; with `start` it begins at, and is held near, the constants of that calibration."""
    weights = np.array([fit.weight(row) for row in rows])
    measured = np.log([row.seconds for row in rows])
    free = [_from(each, start) for each in fit.free]
    names = [each.name for each in free]

    def residuals(x: Floats) -> Floats:
        trial = current.with_values(**dict(zip(names, np.exp(x).tolist(), strict=True)))
        predicted = np.log([row.work.seconds(trial) for row in rows])
        difference: Floats = (predicted - measured) * weights
        return difference

    minimum = minimise(
        residuals,
        np.log([each.start for each in free]),
        np.array([each.spread for each in free]),
        scale=fit.scale,
        prior_weight=fit.scale * math.sqrt(_PRIOR_SHARE * len(rows)),
    )
    return _Done(fit, rows, minimum, current)


def _from(free: Free, start: Calibration | None) -> Free:
    return free if start is None else Free(free.name, start.constants[free.name].value, free.spread)


def _determined(done: _Done) -> dict[str, float]:
    """Values of the constants that the rows determine."""
    return {name: value for (name, value), seen in zip(done.values.items(), done.seen, strict=True) if seen}


def _labels(chosen: Sequence[tuple[Fit, list[Observation]]]) -> list[str]:
    """What can be left out and still leave rows of every affected fit."""
    labels: dict[str, None] = {}
    for place in (0, 1):
        for _, rows in chosen:
            found = sorted({row.labels[place] for row in rows})
            if len(found) > 1:
                labels.update(dict.fromkeys(found))
    return list(labels)


def _without(label: str, done: Sequence[_Done], whole: Calibration) -> tuple[Refit, list[Trial]]:
    """Every fit that has such rows, again without them; what is not determined then is the start's."""
    values: dict[str, float] = {}
    trials = []
    current = whole
    for each in done:
        out = [row for row in each.rows if label in row.labels]
        left = [row for row in each.rows if label not in row.labels]
        if not out or not left:
            continue
        again = _fit(each.fit, left, current, start=None)
        values |= again.values
        current = current.with_values(**again.values)
        trials.append(_trial(again, label, out, current))
    return Refit(left_out=label, values=values), trials


def _trial(done: _Done, label: str, rows: Sequence[Observation], calibration: Calibration) -> Trial:
    found = errors(rows, calibration)
    return Trial(done.fit.name, label, len(rows), float(np.mean(np.abs(found))), float(np.mean(found)))


def _entries(
    done: Sequence[_Done], refits: Sequence[Refit], base: Calibration, command: str
) -> dict[str, Constant]:
    entries = {}
    for each in done:
        fitted_to = _cited(each.rows)
        for free, spread, seen in zip(each.fit.free, each.minimum.spread, each.seen, strict=True):
            if not seen:
                continue
            value = each.values[free.name]
            others = [refit.values[free.name] for refit in refits if free.name in refit.values]
            entries[free.name] = Constant(
                value=value,
                unit=base.constants[free.name].unit,
                meaning=base.constants[free.name].meaning,
                uncertainty=fitted_uncertainty(value, float(spread), others),
                fitted_to=fitted_to,
                basis="fitted",
                command=command,
            )
    return entries


def _cited(rows: Sequence[Observation]) -> str:
    """Measurements that a fit rests on, by accelerator and source."""
    devices = ", ".join(sorted({row.work.accelerator.name for row in rows}))
    citations = "; ".join(sorted({row.citation for row in rows if row.citation}))
    return f"{len(rows)} measurements on {devices}" + (f": {citations}" if citations else "")


def _description(measurements: Measurements, machine: str | None) -> str:
    devices = ", ".join(sorted({row.work.accelerator.name for row in measurements.observations}))
    if machine is not None:
        return f"Constants of one machine with {machine}, fitted to a micro-benchmark that ran on it."
    return (
        "Constants that every accelerator and interconnect shares; data sheets supply the rest. "
        f"Fitted to measurements of {devices}; for other hardware it is an extrapolation. Uncertainties are "
        "the scatter over fits without one accelerator or source at a time, where there are such, or the "
        "fit's own."
    )
