"""Files into text: what is not a small UTF-8 text file is refused before anything parses it."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Final

from simulator.errors import EnvironmentFailure, Problem, ScenarioError

MAX_BYTES: Final = 256 * 1024
"""Largest file that is read, unless the caller knows better."""

_FORBIDDEN: Final = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_USERS_FAULT: Final = frozenset({errno.ENXIO, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR})
_BOMS: Final = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}


def read_text(path: str | os.PathLike[str], label: str, limit: int = MAX_BYTES) -> str:
    """The text of a small regular UTF-8 file; a byte order mark is dropped.

    Raises:
        ScenarioError: Not there, no regular file, larger than `limit` bytes, or no clean UTF-8.
        EnvironmentFailure: The system would not let it be read.
    """
    return decode(_read_bytes(path, label, limit), label)


def decode(raw: bytes, label: str) -> str:
    """Bytes as clean text.

    Raises:
        ScenarioError: Invalid UTF-8, UTF-16, NUL or another control character, with the byte's offset.
    """
    for bom, name in _BOMS.items():
        if raw.startswith(bom):
            raise _refused(label, f"the file is {name}, at byte 0; save it as UTF-8")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _place(raw[: error.start].decode("utf-8"))
        shown = f"byte 0x{raw[error.start]:02x} at offset {error.start:,} is not UTF-8"
        raise ScenarioError(Problem(label, line, column, f"{shown}; save the file as UTF-8")) from None
    skipped = 3 if text.startswith("\ufeff") else 0
    text = text.removeprefix("\ufeff")
    found = _FORBIDDEN.search(text)
    if found:
        before = text[: found.start()]
        offset = len(before.encode("utf-8", "surrogatepass")) + skipped
        name = "NUL byte" if found.group() == "\0" else f"control character U+{ord(found.group()):04X}"
        hint = "; UTF-16 must be saved as UTF-8" if found.group() == "\0" else ""
        raise ScenarioError(Problem(label, *_place(before), f"{name} at byte offset {offset:,}{hint}"))
    return text


def _read_bytes(path: str | os.PathLike[str], label: str, limit: int) -> bytes:
    # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        if Path(path).is_dir():
            raise _refused(label, "is a directory, not a file")
        handle = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise _refused(label, "no such file") from None
    except ValueError:
        raise _refused(label, "not a file name") from None
    except OSError as error:
        raise _os_failure(label, error) from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(label, "not a regular file (a device, a pipe or a socket)")
        if status.st_size > limit:
            raise _refused(label, f"{status.st_size:,} bytes; at most {limit:,} are read")
        with os.fdopen(os.dup(handle), "rb") as stream:
            raw = stream.read(limit + 1)
    except OSError as error:
        raise _os_failure(label, error) from None
    finally:
        os.close(handle)
    if len(raw) > limit:
        raise _refused(label, f"more than {limit:,} bytes")
    return raw


def _os_failure(label: str, error: OSError) -> ScenarioError | EnvironmentFailure:
    if error.errno in _USERS_FAULT:
        return _refused(label, (error.strerror or "cannot be read").lower())
    return EnvironmentFailure(f"{label}: {(error.strerror or 'cannot be read').lower()}")


def _refused(label: str, message: str) -> ScenarioError:
    return ScenarioError(Problem(label, 0, 0, message))


def _place(before: str) -> tuple[int, int]:
    lines = re.split("\r\n|[\r\n]", before)
    return len(lines), len(lines[-1]) + 1
