"""The command line: arguments in; tables, files and exit codes out; no logic."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; see `simulator.cli._entry.main`, which is imported only here.

    Importing the command line takes long enough (0.2 s) for Ctrl-C to fall into it.
    """
    try:
        from simulator.cli import _entry
    except KeyboardInterrupt:
        from simulator.errors import EXIT_INTERRUPTED

        print("clustersim: interrupted", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    return _entry.main(arguments)
