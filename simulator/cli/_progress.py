"""Progress on stderr, shown only where someone waits: after one second, and on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event, Thread

PATIENCE_S = 1.0
"""How long a command runs before it says what it is doing [s]."""

LINES_S = 10.0
"""Between two lines of a log [s]."""

REFRESH_S = 0.1
"""Between two looks at what the command is doing, on a terminal [s]."""

Report = Callable[[float, str], None]


@dataclass(slots=True)
class _Latest:
    """What a command said last."""

    part: float = 0.0
    what: str = "starting"

    def report(self, part: float, what: str) -> None:
        self.part, self.what = min(max(part, 0.0), 1.0), what


@contextlib.contextmanager
def progress(quiet: bool = False) -> Iterator[Report]:
    """A function that takes the part done (0 to 1) and what is being done.

    On a terminal a bar shows it; elsewhere (a log file, a pipe) a line every ten seconds. A thread does, so
    that long work which reports nothing more on its way, such as compiling, is told, too.
    """
    latest, done = _Latest(), Event()
    if quiet:
        yield latest.report
        return
    show = _bar if sys.stderr is not None and sys.stderr.isatty() else _lines
    thread = Thread(target=show, args=(latest, done), name="progress", daemon=True)
    thread.start()
    try:
        yield latest.report
    finally:
        done.set()
        thread.join()


def _bar(latest: _Latest, done: Event) -> None:
    if done.wait(PATIENCE_S):
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(latest.what, total=1.0)
    bar.update(task, completed=latest.part)
    with bar:
        ended = False
        while not ended:
            ended = done.wait(REFRESH_S)
            bar.update(task, completed=latest.part, description=latest.what)


def _lines(latest: _Latest, done: Event) -> None:
    while not done.wait(LINES_S):
        with contextlib.suppress(OSError, ValueError):
            print(f"{latest.what}: {latest.part:.0%}", file=sys.stderr, flush=True)  # noqa: T201
