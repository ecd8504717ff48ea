"""How results reach the terminal, and what arguments mean."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from simulator.errors import ClustersimError

if TYPE_CHECKING:
    from rich.console import Console

RESULTS = Path("results")
"""Where goes what was not told where to go."""

_READABLE = 18
"""Width at which words of a table are folded and still read."""

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def say(text: str) -> None:
    """One line on stdout."""
    print(text, file=sys.stdout)  # noqa: T201


def complain(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr)  # noqa: T201


def console() -> Console:
    """Where reports are printed; colours only on a terminal, no line longer than it is wide."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)


def write_json(document: object) -> None:
    """A JSON document alone on stdout, readable in any character set.

    Args:
        document: JSON text, or what `json.dumps` takes.
    """
    text = document if isinstance(document, str) else json.dumps(document, indent=2, allow_nan=False)
    say(_NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text).rstrip("\n"))


def overrides_of(changes: list[str]) -> dict[str, str]:
    """``--set key=value`` arguments as a mapping.

    Raises:
        ClustersimError: No ``=``, or no key before it.
    """
    overrides: dict[str, str] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key.strip():
            raise ClustersimError(f'--set: "{change}" is not of the form key=value, such as training.steps=4')
        overrides[key.strip()] = value.strip()
    return overrides


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: bool = False, split: bool = False
) -> None:
    """A plain table, folded to the width of the terminal.

    Args:
        heads: Names of the columns.
        rows: Cells, as many in each row as there are heads.
        numeric: Whether all columns but the first are right-aligned.
        split: Whether columns without room go into further tables below, each with the first column.
    """
    listed, screen = list(rows), console()
    columns = list(zip(heads, *listed, strict=True))
    parts = _parts(columns, screen.width, numeric) if split else [list(range(1, len(columns)))]
    for number, part in enumerate(parts):
        if number:
            say("")
        chosen = [columns[0], *(columns[i] for i in part)]
        room = screen.width - sum(_need(column, numeric) for column in chosen[1:]) if split or numeric else 0
        _print_part(screen, list(zip(*chosen, strict=True)), room or screen.width, numeric=numeric)


def _need(column: Sequence[str], numeric: bool) -> int:
    """Width that a column is read at, with what parts it from the one before."""
    longest = max(map(len, column))
    return 3 + (longest if numeric else min(longest, _READABLE))


def _parts(columns: Sequence[Sequence[str]], width: int, numeric: bool) -> list[list[int]]:
    """Numbers of the columns that have room beside the first one, table by table."""
    first = min(max(map(len, columns[0])), width // 2)
    parts: list[list[int]] = [[]]
    room = width - first
    for number, column in enumerate(columns[1:], 1):
        need = _need(column, numeric)
        if parts[-1] and need > room:
            parts.append([])
            room = width - first
        parts[-1].append(number)
        room -= need
    return parts


def _print_part(screen: Console, lines: Sequence[Sequence[str]], room: int, *, numeric: bool) -> None:
    """One table, whose first column breaks at dots where it has no room for more."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if _draws_lines() else box.ASCII2, pad_edge=False, show_edge=False)
    for number, head in enumerate(lines[0]):
        justify: Literal["left", "right"] = "right" if numeric and number else "left"
        # What is compared or copied stays whole: names in a table of words, figures in a table of figures.
        whole = numeric == bool(number)
        table.add_column(Text(head), justify=justify, overflow="fold", no_wrap=whole)
    for row in lines[1:]:
        table.add_row(Text(_at_dots(row[0], room)), *(Text(cell) for cell in row[1:]))
    screen.print(table)


def _at_dots(key: str, width: int) -> str:
    """A dotted key on lines of this width: it breaks behind dots, if anywhere."""
    lines = [""]
    for step in re.findall(r"[^.]*\.?", key):
        if lines[-1] and len(lines[-1]) + len(step) > width:
            lines.append("")
        lines[-1] += step
    return "\n".join(lines)


def _draws_lines() -> bool:
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    return encoding.replace("-", "").startswith("utf")
