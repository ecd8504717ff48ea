"""Predicts the rows of a measurements file and scores the predictions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

from simulator.errors import ClustersimError, Problem, ScenarioError
from simulator.measurements import Ranker, Row, Scorer, Table, Validation
from simulator.validation._choose import pattern, sample
from simulator.validation._ids import Ids
from simulator.validation._kind import MeasurementKind, check_measured, recognise
from simulator.validation._predictions import check_predictions_path, predictions_file
from simulator.validation._workers import OK, Cells, Constants, predict_rows

_MOST_PROBLEMS: Final = 20
"""Mistakes that are listed; a foreign file would have one in each of a million rows."""

_ROWS_BETWEEN_REPORTS: Final = 1000

Progress = Callable[[float, str], None]


def validate(
    path: str | Path,
    *,
    out: Path | None = None,
    only: str | None = None,
    sample_rows: int | None = None,
    workers: int = 1,
    force: bool = False,
    progress: Progress | None = None,
    constants: Constants | None = None,
) -> Validation:
    """Check a whole file, predict the chosen rows, write the predictions, and score them.

    Args:
        path: CSV file of a known kind, told by its columns.
        out: Predictions file; none is written if not given.
        only: Regular expression that the id or the group of a row must contain.
        sample_rows: Rows of a stratified sample, always the same ones.
        workers: Processes; the outcome does not depend on their number.
        force: Replace a file at `out` that holds something else.
        progress: Called with the part done and what is being done.
        constants: Which constants predict; the shared ones if not given.

    Raises:
        ScenarioError: Mistakes in the file, with line and column; nothing is predicted or written then.
        ClustersimError: No row chosen, a bad pattern, or a bad destination.
    """
    table = Table(path)
    kind = recognise(table)
    regex = pattern(only)
    if out is not None:
        check_predictions_path(out, table.path, force=force)
    tell = progress or _untold
    chosen, count = _choose(table, kind, regex, sample_rows, tell)
    scorers = {metric.name: Scorer(metric) for metric in kind.metrics}
    ranker = Ranker()
    reasons: Counter[str] = Counter()
    rows = (row.cells for place, row in enumerate(table.rows()) if place in chosen)
    done = 0
    outcomes = predict_rows(kind, rows, min(workers, count), constants or Constants())
    with predictions_file(out, kind.predicted_columns) as write, closing(outcomes):
        for cells, outcome in outcomes:
            write(cells["id"], outcome)
            if outcome.status != OK:
                reasons[outcome.reason] += 1
            _score_row(kind, scorers, cells, outcome.values)
            _rank_row(kind, ranker, cells, outcome.values)
            done += 1
            tell(done / count, f"predicting {done:,}/{count:,}")
    return Validation(
        file=table.file,
        kind=kind.name,
        rows=count,
        predicted=count - reasons.total(),
        metrics=tuple(score for score in (each.result() for each in scorers.values()) if score.total.rows),
        reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        rankings=ranker.result(),
    )


def _untold(_part: float, _what: str) -> None:
    pass


def _choose(
    table: Table,
    kind: MeasurementKind,
    regex: re.Pattern[str] | None,
    sample_rows: int | None,
    tell: Progress,
) -> tuple[set[int] | range, int]:
    """Places of the rows to predict, and how many; the whole file is checked on the way."""
    places: list[int] = []
    groups: dict[str, list[tuple[str, int]]] = {}
    total = 0
    for place, row in enumerate(_checked(table, kind)):
        total += 1
        if total % _ROWS_BETWEEN_REPORTS == 0:
            tell(0.0, f"checking row {total:,}")
        group = kind.group(row.cells)
        if regex is not None and not (regex.search(row.cells["id"]) or regex.search(group)):
            continue
        if sample_rows is not None:
            groups.setdefault(group, []).append((row.cells["id"], place))
        elif regex is not None:
            places.append(place)
    if total == 0:
        raise ScenarioError(Problem(table.file, 1, 1, "no rows; measurements are wanted below the header"))
    if regex is None and sample_rows is None:
        return range(total), total
    chosen = sample(groups, sample_rows) if sample_rows is not None else set(places)
    if not chosen:
        asked = f'no id or group contains "{regex.pattern}"' if regex is not None else "a sample of 0 rows"
        raise ClustersimError(f"{table.file}: no row is chosen: {asked}")
    return chosen, len(chosen)


def _checked(table: Table, kind: MeasurementKind) -> Iterator[Row]:
    """The rows of a file; raised at its end, or once there are many, is all that is wrong with it."""
    problems: list[Problem] = []
    ids = Ids(table)
    try:
        for row in table.rows():
            problems += [*_problems_of_id(row), *check_measured(kind, row), *kind.check(row)]
            if len(problems) >= _MOST_PROBLEMS:
                break
            ids.add(row.cells.get("id", ""))
            if not problems:
                yield row
    except ScenarioError as error:
        raise ScenarioError([*problems, *error.problems]) from None
    problems += islice((each for each in ids.repeated() if each not in problems), _MOST_PROBLEMS)
    problems.sort(key=lambda problem: problem.line)
    if len(problems) >= _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = [Problem(table.file, 0, 0, "and perhaps more; reading stopped here")]
    if problems:
        raise ScenarioError(problems)


def _problems_of_id(row: Row) -> Iterator[Problem]:
    if "id" not in row.cells:
        yield row.problem("id", "an empty cell; every row needs an id")


def _score_row(kind: MeasurementKind, scorers: dict[str, Scorer], cells: Cells, values: Any) -> None:
    for metric in kind.metrics:
        measured = kind.measurement(cells, metric)
        if measured is not None:
            group = kind.metric_group(cells, metric)
            scorers[metric.name].add(cells["id"], group, measured, values.get(metric.predicted))


def _rank_row(kind: MeasurementKind, ranker: Ranker, cells: Cells, values: Any) -> None:
    """By the first metric of the kind, which is a time."""
    job, metric = kind.plan(cells), kind.metrics[0]
    measured, predicted = kind.measurement(cells, metric), values.get(metric.predicted)
    if job is not None and measured is not None and predicted is not None:
        ranker.add(*job, measured, predicted)
