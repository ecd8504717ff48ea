"""Plain scalars by the core schema of YAML 1.2, less what other readers take for something else."""

from __future__ import annotations

import math
import re
from typing import Final

MAX_DIGITS: Final = 40
"""Longest number that is read; no figure of a cluster needs more."""

_CONSTANTS: Final[dict[str, bool | None]] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_PREFIXED: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)|[-+]?Infinity|NaN")
_FIRST: Final = frozenset("+-.0123456789")
_BARE: Final = re.compile(r"[A-Za-z0-9_./+*()-]+(?: [A-Za-z0-9_./+*()-]+)*")
_INDICATORS: Final = ("*", "-", "?", "...")
_MOST_BARE: Final = 100


class ScalarError(ValueError):
    """A scalar that is refused; the message says why."""


def is_bare(text: str) -> bool:
    """Whether every reader takes the text for one unquoted scalar, wherever it stands."""
    return len(text) <= _MOST_BARE and _BARE.fullmatch(text) is not None and not text.startswith(_INDICATORS)


def read_plain(text: str) -> object:
    """The value of an unquoted scalar: null, true or false, an integer, a float, otherwise text.

    Raises:
        ScalarError: A number too long, not finite, or with a leading zero (octal to some readers).
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError(f"{text} must be finite")
    if text[0] not in _FIRST:
        return text
    if _INTEGER.fullmatch(text):
        return _read_integer(text)
    if _PREFIXED.fullmatch(text):
        _check_length(text)
        return int(text, 0)
    return _read_float(text) if _FLOAT.fullmatch(text) else text


def _read_integer(text: str) -> int:
    _check_length(text)
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0":
        right = digits.lstrip("0") or "0"
        raise ScalarError(f"{text} is octal to some readers; write {right}, or quote it if it is a name")
    return int(text)


def _read_float(text: str) -> float:
    _check_length(text)
    value = float(text)
    if math.isinf(value):
        raise ScalarError(f"{text} must be finite")
    if value == 0.0 and re.search(r"[1-9]", re.split("[eE]", text)[0]):
        raise ScalarError(f"{text} is too small to be told from zero")
    return value


def _check_length(text: str) -> None:
    if len(text) > MAX_DIGITS:
        raise ScalarError(f"a number of {len(text):,} characters; at most {MAX_DIGITS}")
