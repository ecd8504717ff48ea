"""What a cell of a measurements file may hold, and what is wrong with one that holds something else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

Fault = Callable[[str], str | None]
"""What is wrong with a cell's text; None if nothing."""

LARGEST_COUNT: Final = 10**9

_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")


def number(text: str) -> float:
    """A finite decimal number.

    Raises:
        ValueError: Anything else; the message says what.
    """
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f'"{text[:40]}" is not a number')
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'"{text[:40]}" must be finite')
    return value


@lru_cache(maxsize=1 << 16)
def fault_of_count(text: str, least: int = 1, most: int = LARGEST_COUNT) -> str | None:
    """What keeps a text from being a whole number; the same few texts come back in every row."""
    try:
        value = number(text)
    except ValueError as error:
        return str(error)
    if not value.is_integer() or not least <= value <= most:
        return f"{text[:40]} is not a whole number from {least} to {most:,}"
    return None


def fault_of_rate(text: str) -> str | None:
    """What keeps a text from being a number above zero."""
    try:
        value = number(text)
    except ValueError as error:
        return str(error)
    return None if value > 0 else f"{text[:40]} must be more than 0"


def fault_of_flag(text: str) -> str | None:
    """What keeps a text from being true or false."""
    return None if text.lower() in ("true", "false") else f'"{text[:40]}" is neither true nor false'
