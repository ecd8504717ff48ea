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


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: bool = False) -> None:
    """A plain table, folded to the width of the terminal.

    Args:
        heads: Names of the columns.
        rows: Cells, as many in each row as there are heads.
        numeric: Whether all columns but the first are right-aligned.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if _draws_lines() else box.ASCII2, pad_edge=False, show_edge=False)
    for number, head in enumerate(heads):
        justify: Literal["left", "right"] = "right" if numeric and number else "left"
        # What is compared or copied stays whole: names in a table of words, figures in a table of figures.
        whole = numeric == bool(number)
        table.add_column(Text(head), justify=justify, overflow="fold", no_wrap=whole)
    listed, screen = list(rows), console()
    room = screen.width
    if numeric:
        columns = list(zip(heads, *listed, strict=True))[1:]
        room -= sum(max(map(len, column)) + 3 for column in columns)
    for row in listed:
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
