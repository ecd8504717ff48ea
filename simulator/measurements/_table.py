"""Reads a CSV file row by row and knows at which line and column every cell stands."""

from __future__ import annotations

import csv
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from simulator.errors import Problem, ScenarioError

_LONGEST_LINE: Final = 1 << 20
"""No row of measurements is longer [characters]; /dev/zero and binary files end here."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a table.

    Attributes:
        file: Path as the user gave it.
        line: Line on which the record begins, counted from 1.
        cells: Column -> text, blanks around it removed; an empty cell is missing here.
        order: Column -> place in the record, counted from 0.
        raw: Physical lines of the record.
    """

    file: str
    line: int
    cells: dict[str, str]
    order: dict[str, int]
    raw: tuple[str, ...]

    def problem(self, column: str, message: str) -> Problem:
        """A mistake in one cell, at its line and column."""
        line, place = _cell_position(self.raw, self.order[column]) if column in self.order else (0, 1)
        return Problem(self.file, self.line + line, place, f"{column}: {message}")


class Table:
    """A CSV file with a header; open it as often as you like, it is read anew each time.

    Args:
        path: File as the user gave it.

    Raises:
        ScenarioError: Not a regular file, empty, or no proper header.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.file = str(path)
        _require_regular(self.path, self.file)
        with self._open() as stream:
            self.header = self._read_header(_Lines(stream, self.file))

    def rows(self) -> Iterator[Row]:
        """The records in order.

        Raises:
            ScenarioError: At the first record that is not proper CSV or has not one cell a column.
        """
        order = {name: place for place, name in enumerate(self.header)}
        with self._open() as stream:
            lines = _Lines(stream, self.file)
            for number, (line, record, raw) in enumerate(_records(lines)):
                if number == 0:
                    continue
                if len(record) != len(self.header):
                    raise ScenarioError(
                        Problem(
                            self.file,
                            line,
                            1,
                            f"{len(record)} cells in a table of {len(self.header)} columns",
                        )
                    )
                cells = {
                    name: text for name, text in zip(self.header, map(str.strip, record), strict=True) if text
                }
                yield Row(self.file, line, cells, order, raw)

    def _open(self) -> IO[str]:
        # utf-8-sig takes a byte order mark as what it is; newline="" leaves line ends to the csv module.
        return self.path.open(encoding="utf-8-sig", newline="")

    def _read_header(self, lines: _Lines) -> tuple[str, ...]:
        line, record, raw = next(_records(lines), (1, [], ()))
        names = tuple(name.strip() for name in record)
        if not any(names):
            raise ScenarioError(
                Problem(self.file, 1, 1, "empty file; a header and rows of measurements are wanted")
            )
        problems = []
        for place, name in enumerate(names):
            if not name or name in names[:place]:
                down, column = _cell_position(raw, place)
                message = f'column "{name}" stands here twice' if name else "a column without a name"
                problems.append(Problem(self.file, line + down, column, message))
        if problems:
            raise ScenarioError(problems)
        return names


class _Lines:
    """Physical lines with a limit to their length; keeps those of the record that is being read."""

    def __init__(self, stream: IO[str], file: str) -> None:
        self._stream = stream
        self.file = file
        self.number = 0
        self.taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        try:
            line = self._stream.readline(_LONGEST_LINE)
        except UnicodeDecodeError as error:
            raise ScenarioError(
                Problem(
                    self.file,
                    self.number + 1,
                    1,
                    f"not UTF-8: {error.reason} (byte {error.object[error.start]:#04x})",
                )
            ) from None
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) >= _LONGEST_LINE:
            message = f"a line of more than {_LONGEST_LINE:,} characters; this is no table of measurements"
            raise ScenarioError(Problem(self.file, self.number, 1, message))
        if "\0" in line:
            raise ScenarioError(
                Problem(self.file, self.number, line.index("\0") + 1, "a NUL byte; text is wanted")
            )
        self.taken.append(line)
        return line


def _records(lines: _Lines) -> Iterator[tuple[int, list[str], tuple[str, ...]]]:
    """First line, cells and physical lines of each record; blank lines are passed over."""
    reader = csv.reader(lines, strict=True)
    while True:
        lines.taken.clear()
        first = lines.number + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ScenarioError(Problem(lines.file, first, 1, f"not proper CSV: {error}")) from None
        if record:
            yield first, record, tuple(lines.taken)


def _cell_position(raw: Sequence[str], place: int) -> tuple[int, int]:
    """Lines below the record's first one (from 0) and column (from 1) at which a cell begins."""
    quoted = False
    cell = 0
    for down, line in enumerate(raw):
        if cell == place and not quoted:
            return down, 1
        for column, character in enumerate(line, start=1):
            if character == '"':
                quoted = not quoted
            elif character == "," and not quoted:
                cell += 1
                if cell == place:
                    return down, column + 1
    return 0, 1


def _require_regular(path: Path, file: str) -> None:
    """Refuse what is not a file before reading it: a folder, a pipe, a device."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ScenarioError(Problem(file, 0, 0, "no such file")) from None
    except ValueError as error:
        raise ScenarioError(Problem(file, 0, 0, str(error))) from None
    if not stat.S_ISREG(mode):
        raise ScenarioError(Problem(file, 0, 0, "not a regular file"))
