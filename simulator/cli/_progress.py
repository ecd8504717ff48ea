"""Progress on stderr, shown only where someone waits: after one second, and on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE_S = 1.0
"""How long a command runs before it says what it is doing [s]."""

Report = Callable[[float, str], None]


@contextlib.contextmanager
def progress(quiet: bool = False) -> Iterator[Report]:
    """A function that takes the part done (0 to 1) and what is being done.

    On a terminal it draws a bar; elsewhere (a log file, a pipe) it writes a line at most every ten seconds.
    """
    if quiet:
        yield lambda _part, _what: None
    elif sys.stderr.isatty():
        with contextlib.ExitStack() as stack:
            yield _bar(stack)
    else:
        yield _lines()


def _bar(stack: contextlib.ExitStack) -> Report:
    began = monotonic()
    shown: list[Progress] = []

    def report(part: float, what: str) -> None:
        if not shown:
            if monotonic() - began < PATIENCE_S:
                return
            shown.append(stack.enter_context(_rich_progress()))
            shown[0].add_task(what, total=1.0)
        shown[0].update(shown[0].task_ids[0], completed=min(max(part, 0.0), 1.0), description=what)

    return report


def _rich_progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _lines(interval_s: float = 10.0) -> Report:
    last = monotonic()

    def report(part: float, what: str) -> None:
        nonlocal last
        now = monotonic()
        if now - last >= interval_s:
            last = now
            print(f"{what}: {part:.0%}", file=sys.stderr, flush=True)  # noqa: T201

    return report
