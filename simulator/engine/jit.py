"""Compilation by numba, with the compiled code kept on disk where that is possible."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

_F = TypeVar("_F", bound=Callable[..., object])

_cache = True

_OPTIONS: Any = {"_nrt": False}
"""No reference counts: compiled code allocates nothing, and counting made the event loop 4x slower."""


def entry(function: _F) -> _F:
    """Compiles a function that Python calls, at its first call, and keeps the code on disk.

    numba refuses at decoration to cache where no folder is writable; then nothing is cached.
    """
    try:
        wrapped: _F = numba.njit(function, cache=_cache, **_OPTIONS)
    except RuntimeError:
        wrapped = numba.njit(function, **_OPTIONS)
    return wrapped


def inner(function: _F) -> _F:
    """Compiles a function that only compiled functions of the same file call: it becomes part of them."""
    wrapped: _F = numba.njit(function, forceinline=True, **_OPTIONS)
    return wrapped


def checksum() -> str:
    """CRC-32 of the files that are compiled into entry points which stand in `kernel`."""
    here = Path(__file__).parent
    parts = [here / "layout.py", here / "tables.py", *sorted(here.joinpath("loop").glob("*.py"))]
    return f"{zlib.crc32(b''.join(part.read_bytes() for part in parts)):08x}"


def forget_cache() -> None:
    """Compiles without the cache from now on; modules already imported must be reloaded."""
    global _cache  # noqa: PLW0603 - the one switch of this module
    _cache = False
