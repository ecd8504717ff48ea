"""Kinds of measurement files: one class each, told apart by their columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

from simulator.errors import Problem, ScenarioError
from simulator.measurements import Metric, Row, Table, number
from simulator.specs import Calibration


class MeasurementKind(ABC):
    """What one kind of measurement file holds, and how a row of it is predicted.

    To add a kind: derive, set the class attributes, write the three methods, and put
    `@measurement_kind` above the class.

    Attributes:
        name: Word for the kind.
        required: Columns without which a file is not of this kind.
        measured: Columns of measurements; each filled cell is a positive number, and a row has at least one.
        predicted_columns: Columns of the predictions file behind ``id,status,reason``.
        metrics: What is scored.
        foreign: Columns that a file of this kind does not have.
        quick: Whether a row takes less time than handing it to another process.
    """

    name: ClassVar[str]
    required: ClassVar[tuple[str, ...]]
    measured: ClassVar[tuple[str, ...]]
    predicted_columns: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[Metric, ...]]
    foreign: ClassVar[tuple[str, ...]] = ()
    quick: ClassVar[bool] = False

    @abstractmethod
    def check(self, row: Row) -> Iterable[Problem]:
        """Mistakes in the cells that describe the row; measured cells are checked for every kind alike."""

    @abstractmethod
    def measurement(self, cells: Mapping[str, str], metric: Metric) -> float | None:
        """What the row measured of one metric, in the metric's unit; None where it did not."""

    @abstractmethod
    def predict(self, cells: Mapping[str, str], calibration: Calibration) -> dict[str, float]:
        """Predicted column -> value.

        Raises:
            ClustersimError: The row cannot be expressed or is not modelled; the message is the reason.
        """

    def group(self, cells: Mapping[str, str]) -> str:
        """The stratum of the row when a sample is drawn."""
        return cells.get(self.metrics[0].group_column, "")

    def left_out(self, cells: Mapping[str, str]) -> tuple[str | None, str | None]:  # noqa: ARG002
        """What a fit must leave out not to have seen the row: accelerator and source; None if none can."""
        return None, None

    def plan(self, cells: Mapping[str, str]) -> tuple[str, str] | None:  # noqa: ARG002
        """The job that a row did and the plan that it did it by; None where plans are not compared."""
        return None

    def metric_group(self, cells: Mapping[str, str], metric: Metric) -> str:
        """The group of the row in the table of one metric."""
        return cells.get(metric.group_column, "(not given)")


_KINDS: Final[dict[str, MeasurementKind]] = {}


def measurement_kind(kind: type[MeasurementKind]) -> type[MeasurementKind]:
    """Make a kind of measurement file known."""
    _KINDS[kind.name] = kind()
    return kind


def kinds() -> tuple[MeasurementKind, ...]:
    """All kinds that are known, in the order in which they were added."""
    return tuple(_KINDS.values())


def recognise(table: Table) -> MeasurementKind:
    """The kind of a file, by its header.

    Raises:
        ScenarioError: Columns of no kind; the message names the nearest kind and what it lacks.
    """
    header = set(table.header)
    for kind in kinds():
        fits = header.issuperset(kind.required) and header.isdisjoint(kind.foreign)
        if fits and header.intersection(kind.measured):
            return kind
    nearest = max(kinds(), key=lambda kind: len(header.intersection(kind.required)) / len(kind.required))
    missing = [name for name in nearest.required if name not in header]
    if len(missing) * 2 > len(nearest.required):
        wanted = "; ".join(f"{kind.name}: {', '.join(kind.required)}" for kind in kinds())
        raise ScenarioError(
            Problem(table.file, 1, 1, f"not a file of measurements; columns wanted are {wanted}")
        )
    lacks = (
        f"missing column {', '.join(missing)}"
        if missing
        else f"none of the columns {', '.join(nearest.measured)}"
    )
    raise ScenarioError(Problem(table.file, 1, 1, f"{lacks} (a file of {nearest.name})"))


def check_measured(kind: MeasurementKind, row: Row) -> list[Problem]:
    """What is wrong with the measured cells of a row: none at all, unreadable, zero, negative, NaN."""
    problems = []
    filled = [name for name in kind.measured if name in row.cells]
    if not filled:
        problems.append(
            Problem(row.file, row.line, 1, f"no measurement; one of {', '.join(kind.measured)} is wanted")
        )
    for name in filled:
        try:
            value = number(row.cells[name])
        except ValueError as error:
            problems.append(row.problem(name, str(error)))
            continue
        if value <= 0:
            problems.append(
                row.problem(name, f"{row.cells[name]} is not a measurement; it must be more than 0")
            )
    return problems
