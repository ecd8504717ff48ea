"""One sweep a folder at a time: the second is refused with the first one's process id."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from simulator.errors import ClustersimError, EnvironmentFailure

FILE: Final = "sweep.lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder for this process; the system lets go of it however the process ends.

    Raises:
        ClustersimError: Another process holds it.
        EnvironmentFailure: The folder cannot be written to.
    """
    path = folder / FILE
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise EnvironmentFailure(f"{path}: {error.strerror or error}") from None
    try:
        if not _taken(handle):
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            raise ClustersimError(f"{folder}: a sweep is running there already (process {holder})")
        try:
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode("ascii"))
        except OSError as error:
            raise EnvironmentFailure(f"{path}: {error.strerror or error}") from None
        yield
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows has no flock; SQLite's own lock is left to keep two writers apart.
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
