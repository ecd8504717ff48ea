"""How far predictions are off where the fit has not seen the accelerator or the source: cross-validation."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from simulator.errors import UnsupportedError
from simulator.measurements import Metric, Table
from simulator.specs.evidence import TAIL, Band, CalibrationEvidence, Trial
from simulator.validation._folder import measurement_files
from simulator.validation._kind import MeasurementKind, recognise
from simulator.validation._workers import OK, Cells, Constants, predict_rows

Progress = Callable[[float, str], None]

_ACCELERATOR, _SOURCE = 0, 1


@dataclass(slots=True)
class _Row:
    """One row that was predicted: what it measured, and what each fit says."""

    group: str
    metric: Metric
    measured: float
    predicted: float
    without: list[float | None] = field(default_factory=lambda: [None, None])


def gather_evidence(
    folder: Path, calibration: str, *, command: str, workers: int = 1, progress: Progress | None = None
) -> CalibrationEvidence:
    """Predict all measurements of a folder with the constants as they are, and as refitted without each part.

    A row whose accelerator (source) was in no fit is predicted by the constants as they are: they have not
    seen it.

    Args:
        folder: Where the measurements are.
        calibration: Name or path of the calibration; it holds the refits.
        command: What to write down as the command.
        workers: Processes.
        progress: Called with the part done and what is being done.

    Raises:
        ClustersimError: As `validate_folder`.
    """
    tell = progress or (lambda _part, _what: None)
    known, _ = measurement_files(folder)
    trials: list[Trial] = []
    largest = 1
    for number, path in enumerate(known):
        table = Table(path)
        kind = recognise(table)
        tell(number / len(known), f"{path.name}: cross-validation")
        rows, gpus = _predicted(table, kind, calibration, workers)
        largest = max(largest, gpus)
        trials += _trials(kind, rows)
    return CalibrationEvidence(
        calibration=Constants(calibration).load().name, command=command, num_gpus=largest, trials=trials
    )


def trial_name(kind: MeasurementKind, metric: Metric) -> str:
    """What a trial is called: kind of file and size class."""
    return f"{kind.name}, {metric.name}"


def _predicted(table: Table, kind: MeasurementKind, calibration: str, workers: int) -> tuple[list[_Row], int]:
    """Every row that can be predicted, by every fit that it needs, and the most GPUs of any."""
    known = {refit.left_out for refit in Constants(calibration).load().refits}
    found: dict[str, list[_Row]] = {}
    needed: dict[str, list[tuple[int, Cells]]] = defaultdict(list)
    gpus = 1
    outcomes = predict_rows(kind, (row.cells for row in table.rows()), workers, Constants(calibration))
    with closing(outcomes):
        for cells, outcome in outcomes:
            if outcome.status != OK:
                continue
            gpus = max(gpus, int(float(cells.get("num_gpus", cells.get("n_ranks", "1")))))
            found[cells["id"]] = _measured(kind, cells, outcome.values)
            for place, label in enumerate(_labels(kind, cells)):
                if label in known:
                    needed[label].append((place, cells))
    for label, wanted in sorted(needed.items()):
        places = [place for place, _ in wanted]
        again = predict_rows(kind, (cells for _, cells in wanted), workers, Constants(calibration, label))
        with closing(again):
            for place, (cells, outcome) in zip(places, again, strict=True):
                for row in found[cells["id"]]:
                    row.without[place] = outcome.values.get(row.metric.predicted)
    return [row for rows in found.values() for row in rows], gpus


def _labels(kind: MeasurementKind, cells: Cells) -> tuple[str, ...]:
    try:
        return tuple(label or "" for label in kind.left_out(cells))
    except UnsupportedError:
        return ()


def _measured(kind: MeasurementKind, cells: Cells, values: object) -> list[_Row]:
    rows = []
    for metric in kind.metrics:
        measured = kind.measurement(cells, metric)
        predicted = values.get(metric.predicted) if isinstance(values, dict) else None
        if measured is not None and predicted is not None:
            rows.append(_Row(kind.metric_group(cells, metric), metric, measured, predicted))
    return rows


def _trials(kind: MeasurementKind, rows: Sequence[_Row]) -> list[Trial]:
    trials = []
    for metric in kind.metrics:
        mine = [row for row in rows if row.metric is metric]
        if not mine:
            continue
        trials.append(
            Trial(
                measurements=trial_name(kind, metric),
                fitted=_band(mine, None),
                accelerator_left_out=_band(mine, _ACCELERATOR),
                source_left_out=_band(mine, _SOURCE),
            )
        )
    return trials


def _band(rows: Sequence[_Row], place: int | None) -> Band:
    """Each group counts the same, however many rows it has."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        predicted = row.predicted if place is None else row.without[place] or row.predicted
        ratios[row.group].append(row.measured / predicted)
    means = [sum(abs(1.0 / ratio - 1.0) for ratio in group) / len(group) for group in ratios.values()]
    weighted = sorted((ratio, 1.0 / len(group)) for group in ratios.values() for ratio in group)
    return Band(
        low=round(_quantile(weighted, TAIL) - 1.0, 3),
        high=round(_quantile(weighted, 1.0 - TAIL) - 1.0, 3),
        mean=round(sum(means) / len(means), 3),
        rows=len(rows),
        groups=len(ratios),
    )


def _quantile(weighted: Sequence[tuple[float, float]], part: float) -> float:
    """The value below which the given part of the weight lies."""
    sums = list(accumulate(weight for _, weight in weighted))
    return weighted[min(bisect_left(sums, part * sums[-1]), len(weighted) - 1)][0]
