"""Which clustersim simulated a point: the version, and what its code and data were at the time."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

import simulator
from simulator.run import clustersim_version

_NO_RESULT: Final = ("cli", "report")
"""Rooms that come after results and make none."""
_DATA: Final = "catalog/data"
"""The one folder whose files are no code."""


@cache
def code_version() -> str:
    """Version and digest of this clustersim, such as ``0.1.0+3f9c21d07ab4``; worked out once a process.

    The version alone changes with a release only; the digest changes with every line of code and every figure
    of the catalogue that a result may rest on.
    """
    return f"{clustersim_version()}+{digest(Path(simulator.__file__).parent)}"


def digest(package: Path) -> str:
    """Twelve hexadecimal digits of what makes results in a package's folder, the same on every machine."""
    whole = hashlib.sha256()
    rooms = sorted(item for item in package.iterdir() if item.name not in _NO_RESULT)
    files = [file for room in rooms for file in ([room] if room.is_file() else room.rglob("*"))]
    for name, file in sorted((file.relative_to(package).as_posix(), file) for file in files):
        if file.suffix == ".py" or (name.startswith(_DATA) and file.is_file()):
            whole.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:12]
