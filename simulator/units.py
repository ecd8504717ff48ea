"""Quantities with units at the door, SI floats and integer picoseconds inside.

`parse` turns ``"900 GB/s"`` into ``9e11``; `render` turns it back into text that
`parse` reads as exactly the same float. Decimal prefixes are powers of 1000, binary ones
(``Ki``, ``Mi``, ...) powers of 1024; ``B`` is a byte and ``b`` a bit; ``GB`` is not
``GiB`` and ``Gb`` is not ``GB``.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Final, Literal, get_args

from simulator.errors import UnitError

Dimension = Literal[
    "bytes", "bandwidth", "compute", "time", "duration", "rate", "power", "frequency", "money_rate"
]

PICOSECONDS: Final = 1_000_000_000_000
"""Picoseconds in a second: the engine's clock counts in these."""

MAX_PICOSECONDS: Final = 100 * 86_400 * PICOSECONDS
"""The longest horizon that the engine accepts: 100 days (int64 ends after 106)."""

_DECIMAL: Final = {
    "": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
}
_BINARY: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}


def _prefixed(symbol: str, scale: Fraction | int = 1, *, binary: bool = False) -> dict[str, Fraction]:
    prefixes = {**_DECIMAL, **(_BINARY if binary else {})}
    return {prefix + symbol: Fraction(factor) * Fraction(scale) for prefix, factor in prefixes.items()}


_TIME: Final = {
    "ps": Fraction(1, 10**12),
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "ms": Fraction(1, 10**3),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
}

_DURATION: Final = {unit: _TIME[unit] for unit in ("s", "min", "h", "d")} | {"y": Fraction(365 * 86400)}
"""Of what lasts longer than the engine's horizon; a year has 365 days."""

_UNITS: Final[dict[Dimension, dict[str, Fraction]]] = {
    "bytes": _prefixed("B", binary=True) | _prefixed("b", Fraction(1, 8), binary=True),
    "bandwidth": _prefixed("B/s", binary=True)
    | _prefixed("b/s", Fraction(1, 8), binary=True)
    | _prefixed("bps", Fraction(1, 8)),
    "compute": _prefixed("FLOP/s") | _prefixed("FLOPS") | _prefixed("OP/s") | _prefixed("OPS"),
    "time": _TIME,
    "duration": _DURATION,
    "rate": _prefixed("/s") | _prefixed("IOPS") | _prefixed("op/s"),
    "power": _prefixed("W"),
    "frequency": _prefixed("Hz"),
    "money_rate": {"USD/h": Fraction(1, 3600), "USD/s": Fraction(1)},
}

_EXAMPLES: Final[dict[Dimension, str]] = {
    "bytes": '"80 GB" or "80 GiB"',
    "bandwidth": '"900 GB/s" or "400 Gb/s"',
    "compute": '"989 TFLOP/s"',
    "time": '"5 us"',
    "duration": '"12 h" or "5 y"',
    "rate": '"200 kIOPS"',
    "power": '"700 W"',
    "frequency": '"1.83 GHz"',
    "money_rate": '"2.5 USD/h"',
}

_CANONICAL: Final[dict[Dimension, tuple[str, ...]]] = {
    "bytes": ("PB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "kB", "B"),
    "bandwidth": ("TB/s", "GB/s", "MB/s", "kB/s", "B/s"),
    "compute": ("PFLOP/s", "TFLOP/s", "GFLOP/s", "FLOP/s"),
    "time": ("h", "min", "s", "ms", "us", "ns", "ps"),
    "duration": ("y", "d", "h", "min", "s"),
    "rate": ("MIOPS", "kIOPS", "IOPS"),
    "power": ("MW", "kW", "W"),
    "frequency": ("GHz", "MHz", "Hz"),
    "money_rate": ("USD/h", "USD/s"),
}

_RANGE: Final[dict[Dimension, tuple[float, float]]] = {
    "bytes": (1.0, 1e21),
    "bandwidth": (1.0, 1e18),
    "compute": (1.0, 1e21),
    "time": (1e-12, MAX_PICOSECONDS / PICOSECONDS),
    "duration": (1e-3, 1e12),
    "rate": (1e-9, 1e15),
    "power": (1e-6, 1e12),
    "frequency": (1e-6, 1e15),
    "money_rate": (1e-12, 1e9),
}

_QUANTITY: Final = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?)\s*(\S.*?)?\s*")

_SPARSE: Final = re.compile(
    r"\s*(.*?)\s*(\()?(?:with )?(?:structured )?spars(?:e|ity)(?(2)\))\s*", re.IGNORECASE
)


def example(dimension: Dimension) -> str:
    """A well-formed quantity of this dimension, to show to a user."""
    return _EXAMPLES[dimension]


def dimensions() -> tuple[Dimension, ...]:
    """The dimensions that `parse` knows."""
    return get_args(Dimension)


def parse(text: object, dimension: Dimension, *, allow_zero: bool = False) -> float:
    """A quantity with its unit, as a float in SI units.

    Args:
        text: Such as ``"3.35 TB/s"``; anything but text is refused, for it carries no unit.
        dimension: What is measured; bytes, bytes per second, FLOP per second, seconds, ...
        allow_zero: Whether zero is a legal value (a latency may be 0, a bandwidth may not).

    Returns:
        The value in B, B/s, FLOP/s, s, 1/s, W, Hz or USD/s.

    Raises:
        UnitError: No unit, a unit of another dimension, not a finite number, or out of range.
    """
    if not isinstance(text, str):
        raise UnitError(f"{_shown(text)} has no unit; write for example {_EXAMPLES[dimension]}")
    return _parsed(text, dimension, allow_zero)


@lru_cache(maxsize=4096)
def _parsed(text: str, dimension: Dimension, allow_zero: bool) -> float:
    match = _QUANTITY.fullmatch(text) if len(text) <= 80 else None
    if match is None:
        raise UnitError(f"{_shown(text)} is not a quantity; write for example {_EXAMPLES[dimension]}")
    digits, unit = match.groups()
    if unit is None:
        raise UnitError(f"{_shown(text)} has no unit; write for example {_EXAMPLES[dimension]}")
    scale = _UNITS[dimension].get(unit)
    if scale is None:
        raise UnitError(_unit_complaint(unit, dimension))
    try:
        value = float(Fraction(digits) * scale)
    except OverflowError:
        raise UnitError(f"{_shown(text)} is out of range") from None
    return check_range(value, dimension, allow_zero=allow_zero, shown=text)


def dense(text: str) -> str | None:
    """The dense rate that a rate with structured sparsity stands for, or None if it says nothing of sparsity.

    Two of four operands are zero and skipped, so ``"2 PFLOP/s (sparse)"`` is ``"1 PFLOP/s"`` of real work.

    Raises:
        UnitError: It says so, but is no rate.
    """
    match = _SPARSE.fullmatch(text) if len(text) <= 80 else None
    return None if match is None else render(parse(match.group(1), "compute") / 2, "compute")


def check_range(
    value: float, dimension: Dimension, *, allow_zero: bool = False, shown: object = None
) -> float:
    """The value itself, if clustersim can reckon with it.

    Raises:
        UnitError: Not finite, negative, zero where zero has no meaning, or absurdly large or small.
    """
    named = _shown(value if shown is None else shown)
    if not math.isfinite(value):
        raise UnitError(f"{named} must be finite")
    if value == 0 and allow_zero and math.copysign(1.0, value) > 0:
        return 0.0
    low, high = _RANGE[dimension]
    if not low <= value <= high:
        unit = _si(dimension)
        zero = "0 or " if allow_zero else ""
        raise UnitError(f"{named} is out of range; {zero}{low:g} to {high:g} {unit}")
    return value


def render(value: float, dimension: Dimension) -> str:
    """The shortest text with a unit that `parse` reads back as exactly this float.

    Of equally short ones, the one whose number lies between 1 and 1000, and of those the largest unit.
    """
    if value == 0:
        return f"0 {_si(dimension)}"
    texts = [
        (digits, unit) for unit in _CANONICAL[dimension] for digits in _digits(value, _UNITS[dimension][unit])
    ]
    # The SI unit's scale is 1, so repr() is exact there and the list is never empty.
    digits, unit = min(texts, key=lambda text: (_length(text[0]), not 1 <= float(text[0]) < 1000))
    return f"{digits} {unit}"


def _digits(value: float, scale: Fraction) -> list[str]:
    scaled = float(Fraction(value) / scale)
    exact = (text for text in (f"{scaled:.15g}", repr(scaled)) if float(Fraction(text) * scale) == value)
    return [text.removesuffix(".0") for text in exact][:1]


def _length(digits: str) -> int:
    """Digits to read; a number below 1 or with an exponent reads like a longer one."""
    return len(digits.lstrip("0.").replace(".", "")) + 4 * ("e" in digits) + 2 * (float(digits) < 1)


def _si(dimension: Dimension) -> str:
    return next(unit for unit in _CANONICAL[dimension] if _UNITS[dimension][unit] == 1)


def human(value: float, dimension: Dimension, digits: int = 3) -> str:
    """A rounded quantity for people: ``"3.35 TB/s"``, ``"74.5 GiB"``, ``"1.29 s"``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {_si(dimension)}"
    units = [u for u in _CANONICAL[dimension] if dimension != "bytes" or u in ("GiB", "MiB", "KiB", "B")]
    units = [u for u in units if u not in ("h", "min")] if abs(value) < 600 else units
    for unit in units:
        scaled = value / float(_UNITS[dimension][unit])
        if abs(scaled) >= 1 or unit == units[-1]:
            break
    whole = abs(scaled) >= 10 ** (digits - 1)
    return f"{scaled:,.0f} {unit}" if whole else f"{scaled:.{digits}g} {unit}"


def _unit_complaint(unit: str, dimension: Dimension) -> str:
    for other, units in _UNITS.items():
        if other != dimension and unit in units:
            return (
                f'unit "{unit}" measures {other}, not {dimension}; write for example {_EXAMPLES[dimension]}'
            )
    if "sparse" in unit.lower():
        return (
            f'"{unit[:40]}": give the dense rate (half of the sparse one), for example {_EXAMPLES[dimension]}'
        )
    return f'unknown unit "{unit[:40]}"; write for example {_EXAMPLES[dimension]}'


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= 40 else text[:36] + "..."
