"""How far predictions are off: coverage, mean, median, 90th percentile, worst and bias, by group."""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing that a kind of file measures.

    Attributes:
        name: Such as ``step time``.
        unit: Unit of both columns.
        predicted: Column of the predictions.
        group_column: Column of the measurements whose values are the groups of the table, or what they are.
    """

    name: str
    unit: str
    predicted: str
    group_column: str


WORST_ROWS = 10
"""Rows that are named one by one."""


_MOST_POINTS = 2000


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of a set of rows; fractions of the measured value, None where nothing was predicted.

    Attributes:
        name: The group, or ``total``.
        rows: Rows that measured this.
        predicted: Rows of them that were predicted.
        mape: Mean of the absolute errors.
        median: Median of the absolute errors.
        p90: 90th percentile of the absolute errors (linear between ranks).
        worst: Largest absolute error.
        bias: Mean of the signed errors; above 0 where predictions are too high.
    """

    name: str
    rows: int
    predicted: int
    mape: float | None
    median: float | None
    p90: float | None
    worst: float | None
    bias: float | None

    @property
    def coverage(self) -> float:
        """Part of the rows that was predicted."""
        return self.predicted / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class WorstRow:
    """One of the rows that are furthest off."""

    id: str
    group: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over measured, minus one."""
        return self.predicted / self.measured - 1.0


@dataclass(frozen=True, slots=True)
class Point:
    """Measured against predicted of one row."""

    group: str
    measured: float
    predicted: float


@dataclass(frozen=True, slots=True)
class MetricScore:
    """One metric: all groups, the worst first.

    Attributes:
        metric: What was scored.
        total: All rows together.
        mean_over_groups: Mean of the groups' `mape`, so that a large group counts no more than a small one.
        groups: Groups without a prediction first, then by falling `mape`.
        worst: The rows furthest off, the furthest first.
        points: Some of the rows, evenly spread over the file, for a picture.
    """

    metric: Metric
    total: Score
    mean_over_groups: float | None
    groups: tuple[Score, ...]
    worst: tuple[WorstRow, ...]
    points: tuple[Point, ...] = ()


@dataclass(slots=True)
class _Group:
    rows: int = 0
    errors: array[float] = field(default_factory=lambda: array("d"))


class Scorer:
    """Collects the errors of one metric; 8 bytes a row, whatever the size of the file."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._groups: dict[str, _Group] = {}
        self._worst: list[tuple[float, int, WorstRow]] = []
        self._count = 0
        self._points: list[Point] = []
        self._every = 1

    def add(self, row_id: str, group: str, measured: float, predicted: float | None) -> None:
        """One row that measured this; `predicted` is None where it is unsupported."""
        into = self._groups.setdefault(group, _Group())
        into.rows += 1
        self._count += 1
        if predicted is None:
            return
        self._keep(group, measured, predicted)
        row = WorstRow(row_id, group, measured, predicted)
        into.errors.append(row.error)
        # The running number keeps the first of equals and spares the rows from being compared.
        heapq.heappush(self._worst, (abs(row.error), -self._count, row))
        if len(self._worst) > WORST_ROWS:
            heapq.heappop(self._worst)

    def _keep(self, group: str, measured: float, predicted: float) -> None:
        """One row in so many, so that no more points are held than a picture can show."""
        if self._count % self._every == 0:
            self._points.append(Point(group, measured, predicted))
        if len(self._points) > _MOST_POINTS:
            del self._points[::2]
            self._every *= 2

    def result(self) -> MetricScore:
        """The scores of what was added."""
        groups = [_score(name, group.rows, group.errors) for name, group in self._groups.items()]
        groups.sort(key=lambda score: (-math.inf if score.mape is None else -score.mape, score.name))
        means = [score.mape for score in groups if score.mape is not None]
        everything = array("d")
        for group in self._groups.values():
            everything.extend(group.errors)
        total = _score("total", sum(group.rows for group in self._groups.values()), everything)
        ranked = sorted(self._worst, key=lambda item: item[:2], reverse=True)
        return MetricScore(
            metric=self.metric,
            total=total,
            mean_over_groups=math.fsum(means) / len(means) if means else None,
            groups=tuple(groups),
            worst=tuple(row for _, _, row in ranked),
            points=tuple(self._points),
        )


def _score(name: str, rows: int, errors: Sequence[float]) -> Score:
    if not errors:
        return Score(name, rows, 0, None, None, None, None, None)
    absolute = sorted(abs(error) for error in errors)
    return Score(
        name=name,
        rows=rows,
        predicted=len(errors),
        mape=math.fsum(absolute) / len(absolute),
        median=quantile(absolute, 0.5),
        p90=quantile(absolute, 0.9),
        worst=absolute[-1],
        bias=math.fsum(errors) / len(errors),
    )


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value below which `part` of the ordered values lie, linear between ranks.

    Raises:
        ValueError: No values.
    """
    if not ordered:
        raise ValueError("no values, no quantile")
    place = part * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
