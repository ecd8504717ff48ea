"""Writes the predictions file: aside first, in place at the end, never over something else."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from simulator.errors import ClustersimError
from simulator.validation._workers import Outcome

LEADING: Final = ("id", "status", "reason")
"""Columns of every predictions file, in front of those of its kind."""

Write = Callable[[str, Outcome], None]


def check_predictions_path(path: Path, measurements: Path, *, force: bool) -> None:
    """Refuse a destination before the work begins.

    An older predictions file or an empty file is replaced; anything else only with `force`.

    Raises:
        ClustersimError: A folder, a file of something else, the measurements themselves, or no such folder.
    """
    if path.is_dir():
        raise ClustersimError(f"{path}: is a folder; a file for the predictions is wanted")
    if not path.parent.is_dir():
        raise ClustersimError(f"{path}: no such folder as {path.parent}")
    if not path.is_file():
        return
    if path.samefile(measurements):
        raise ClustersimError(f"{path}: these are the measurements; predictions need another file")
    if not force and not _replaceable(path):
        raise ClustersimError(f"{path}: exists and holds no predictions; --force replaces it")


def _replaceable(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(64)
    return not start or start.startswith(",".join(LEADING).encode())


@contextmanager
def predictions_file(path: Path | None, columns: Sequence[str]) -> Iterator[Write]:
    """A function that adds one row; without a path the rows go nowhere.

    The file appears under its name when the block ends well, complete; if it does not, nothing is left.

    Args:
        path: Destination; a pipe or device is written to directly.
        columns: Predicted columns of the kind.
    """
    if path is None:
        yield lambda _row_id, _outcome: None
    elif path.exists() and not stat.S_ISREG(path.stat().st_mode):
        with path.open("w", encoding="utf-8", newline="") as stream:
            yield _writer(stream, columns)
    else:
        aside = path.with_name(f".{path.name[:100]}.{os.getpid()}.part")
        try:
            with aside.open("w", encoding="utf-8", newline="") as stream:
                yield _writer(stream, columns)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def _writer(stream: IO[str], columns: Sequence[str]) -> Write:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow((*LEADING, *columns))

    def write(row_id: str, outcome: Outcome) -> None:
        writer.writerow((row_id, outcome.status, outcome.reason, *_figures(outcome.values, columns)))

    return write


def _figures(values: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [f"{values[name]:.9g}" if name in values else "" for name in columns]
