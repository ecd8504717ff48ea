"""Kinds of benchmark: what a row timed, so that whoever fits and whoever checks means the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from math import exp
from typing import ClassVar, Final

from simulator.errors import Problem
from simulator.measurements._cells import Fault
from simulator.measurements._table import Row
from simulator.measurements._work import Work

Cells = Mapping[str, str]
"""Column -> text; empty cells are missing."""

WARM_SHARE: Final = 0.6
"""Share of the last-level cache that holds what a benchmark uses again: parts of it hold the same line twice
(two halves, each beside its own compute units), or what is written once."""

VECTOR_WIDTH: Final = 128
"""What a compute unit could have added up in a cycle, at the rate that element-wise code reaches [FLOP]:
turns cycles that a kernel waits into work of the vector units."""

_BISECTIONS: Final = 50


class Benchmark(ABC):
    """A kind of file of which each row timed one kernel or one collective.

    Attributes:
        name: Word for the kind.
        required: Columns without which a file is not of this kind.
        foreign: Columns that a file of this kind does not have.
        may_be_empty: Columns of those whose cells may be empty.
        measured: Column of the measurement.
        faults: Column -> what may be wrong with its cell, where it is filled.
        fitted: Whether constants may be fitted to such rows.
    """

    name: ClassVar[str]
    required: ClassVar[tuple[str, ...]]
    foreign: ClassVar[tuple[str, ...]] = ()
    may_be_empty: ClassVar[tuple[str, ...]] = ()
    measured: ClassVar[str] = "time_us"
    faults: ClassVar[Mapping[str, Fault]]
    fitted: ClassVar[bool] = True

    @abstractmethod
    def work(self, cells: Cells) -> Work:
        """What the row timed.

        Raises:
            UnsupportedError: The row cannot be expressed or is not modelled; the message is the reason.
        """

    @abstractmethod
    def group(self, cells: Cells) -> str:
        """Rows that belong together in a table of errors."""

    @abstractmethod
    def size(self, cells: Cells) -> float:
        """Arithmetic [FLOP] or message [B] of the row."""

    def source(self, cells: Cells) -> str:
        """Who measured it: what is left out when a source is."""
        return cells.get("source", "")

    def labels(self, cells: Cells, work: Work) -> tuple[str, str]:
        """Accelerator family and source, as fits name what they leave out."""
        return f"accelerator {family(work.accelerator.name)}", f"source {self.source(cells).casefold()}"

    def seconds(self, cells: Cells) -> float:
        """What the row measured [s]."""
        return float(cells[self.measured]) * 1e-6

    def problems(self, row: Row) -> Iterable[Problem]:
        """Cells that are not of their column's type, and required cells that are empty."""
        filled = (column for column in self.required if column not in self.may_be_empty)
        return problems_of_cells(row, filled, self.faults)


def problems_of_cells(row: Row, filled: Iterable[str], faults: Mapping[str, Fault]) -> Iterator[Problem]:
    """Cells that are empty though they must be filled, and cells that are not of their column's type.

    Args:
        row: The row.
        filled: Columns that must be filled; an id is looked at elsewhere.
        faults: Column -> what may be wrong with its cell, where it is filled.
    """
    for column in filled:
        if column not in row.cells and column != "id":
            yield row.problem(column, "an empty cell; this column must be filled")
    for column, fault_of in faults.items():
        text = row.cells.get(column)
        fault = None if text is None else fault_of(text)
        if fault is not None:
            yield row.problem(column, fault)


def family(accelerator: str) -> str:
    """First word of an accelerator's name: A100 of A100-SXM4-80GB."""
    return accelerator.split("-", maxsplit=1)[0]


def misses(touched: float, cache: float | None) -> float:
    """Share of operands that a repeated benchmark must fetch from device memory again.

    Each miss throws out a line at random. A line is found again if none of the misses before it is used again
    hit it: with m the share that misses and N / C the bytes touched in between over the cache,
    ``m = 1 - exp(-m N / C)``: nothing up to the cache's size, 0.8 at twice of it.

    Args:
        touched: Bytes touched until the same are used again, themselves included [B].
        cache: Last-level cache [B], of which `WARM_SHARE` counts; None where the data sheet does not say,
            which means no hits.

    Valid: every byte is touched equally often.
    """
    if not cache:
        return 1.0
    ratio = touched / (WARM_SHARE * cache)
    if ratio <= 1.0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if 1.0 - exp(-middle * ratio) > middle else (low, middle)
    return high
