"""Axes: the values that a key takes, as a list or as a range."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simulator.sweep.keys import KeyFacts, key_facts

MAX_VALUES: Final = 100_000
"""Values of one axis."""

_DIGITS: Final = 6
"""Significant digits of a value inside a range; its ends stay as they are written."""

_NUMBER: Final = re.compile(r"^[-+\d.eE\s]*\d[\s]*")
"""What stands before the unit of a quantity."""

_RANGE_KEYS: Final = ("from", "to", "points", "step", "scale")


class AxisError(ValueError):
    """An axis that says nothing sensible; the message says why.

    Attributes:
        at: Key inside the axis that is at fault, None for the axis itself.
    """

    def __init__(self, message: str, at: str | None = None) -> None:
        self.at = at
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Axis:
    """A key and its values, in order.

    Attributes:
        key: Dotted key of the scenario.
        values: As a scenario file would hold them.
        unit: In which its values are written, None where they have none or several.
    """

    key: str
    values: tuple[Any, ...]
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A key and the interval that its samples come from.

    Attributes:
        key: Dotted key of the scenario.
        low: Lower end, SI units.
        high: Upper end.
        logarithmic: Whether samples are even in the logarithm.
        unit: In which both ends are written, None where they have none or two.
    """

    key: str
    low: float
    high: float
    logarithmic: bool
    unit: str | None = None

    def at(self, fraction: float) -> object:
        """The value at a fraction of the interval, as a scenario takes it."""
        return _between(self, fraction, key_facts(self.key))

    def drawn(self, fraction: float) -> object:
        """The value of a sample; of a key that counts, each whole number has an equal part of the interval.

        Rounding would give both ends half of what the others get.
        """
        if not key_facts(self.key).whole:
            return self.at(fraction)
        low, high = math.ceil(self.low), math.floor(self.high)
        if not self.logarithmic:
            return min(high, low + math.floor(fraction * (high - low + 1)))
        return min(high, math.floor(low * ((high + 1) / low) ** fraction))


def read_axis(key: str, written: object, *, sampled: bool) -> Axis | Span:
    """An axis from what the sweep file says.

    Args:
        key: Dotted key.
        written: A list of values, or a mapping with ``from`` and ``to``.
        sampled: Whether a range without `points` and `step` is an interval to draw samples from.

    Raises:
        AxisError: An empty list, a range with ends that do not go together, or the like.
    """
    if isinstance(written, list):
        if not written:
            raise AxisError("an axis without values")
        if len(written) > MAX_VALUES:
            raise AxisError(f"an axis of {len(written):,} values; at most {MAX_VALUES:,}")
        return Axis(key, tuple(written), _unit(key, written))
    if not isinstance(written, Mapping) or not ({"from", "to"} & set(written)):
        raise AxisError("expected a list of values, or {from: ..., to: ..., points: ..., scale: log}")
    span, facts = _span(key, written), key_facts(key)
    points, step = written.get("points"), written.get("step")
    if points is None and step is None:
        if sampled:
            return span
        raise AxisError('a range needs "points" (how many values) or "step"')
    if points is not None and step is not None:
        raise AxisError('give "points" or "step", not both', "step")
    fractions = _even(points) if points is not None else _stepped(step, span, facts)
    values = [_between(span, fraction, facts) for fraction in fractions]
    if len({repr(value) for value in values}) < len(values):
        raise AxisError(f"{len(values)} points give the same whole number more than once", "points")
    return Axis(key, tuple(values), span.unit)


def _span(key: str, written: Mapping[str, Any]) -> Span:
    unknown = [name for name in written if name not in _RANGE_KEYS]
    if unknown:
        raise AxisError(f"unknown key; a range has {', '.join(_RANGE_KEYS)}", unknown[0])
    low, high = _end(key, written, "from"), _end(key, written, "to")
    if not low < high:
        raise AxisError('"from" must be below "to"', "from")
    scale = written.get("scale", "linear")
    if scale not in ("linear", "log"):
        raise AxisError("must be linear or log", "scale")
    if scale == "log" and low <= 0:
        raise AxisError("a logarithmic range must begin above zero", "from")
    return Span(key, low, high, scale == "log", _unit(key, [written["from"], written["to"]]))


def _unit(key: str, written: Sequence[object]) -> str | None:
    """The unit that all of some quantities are written in."""
    if key_facts(key).dimension is None:
        return None
    units = {_NUMBER.sub("", value, 1) if isinstance(value, str) else "" for value in written}
    return (units.pop() or None) if len(units) == 1 else None


def _end(key: str, written: Mapping[str, Any], name: str) -> float:
    if name not in written:
        raise AxisError(f'a range needs "{name}"')
    facts, value = key_facts(key), written[name]
    number = facts.number(value)
    if facts.dimension is not None and not isinstance(value, str):
        number = None
    if number is None or not math.isfinite(number):
        wanted = f"a {facts.dimension.replace('_', ' ')} with its unit" if facts.dimension else "a number"
        if facts.dimension and not facts.allow_zero:
            wanted += ", more than zero"
        raise AxisError(f"expected {wanted}", name)
    return float(number)


def _even(points: object) -> list[float]:
    if not isinstance(points, int) or isinstance(points, bool) or not 2 <= points <= MAX_VALUES:
        raise AxisError(f"expected a whole number from 2 to {MAX_VALUES:,}", "points")
    return [i / (points - 1) for i in range(points)]


def _stepped(step: object, span: Span, facts: KeyFacts) -> list[float]:
    if span.logarithmic:
        raise AxisError('a logarithmic range takes "points"', "step")
    width = facts.number(step)
    if width is None or not width > 0:
        raise AxisError("expected a number above zero, with its unit if the key has one", "step")
    count = math.floor((span.high - span.low) / width * (1 + 1e-12))
    if count >= MAX_VALUES:
        raise AxisError(f"{count + 1:,} values; at most {MAX_VALUES:,}", "step")
    return [min(1.0, i * width / (span.high - span.low)) for i in range(count + 1)]


def _between(span: Span, fraction: float, facts: KeyFacts) -> object:
    if fraction in (0.0, 1.0):
        return facts.written(span.low if fraction == 0.0 else span.high)
    if span.logarithmic:
        value = math.exp(math.log(span.low) * (1 - fraction) + math.log(span.high) * fraction)
    else:
        value = span.low + (span.high - span.low) * fraction
    if facts.whole:
        return round(value)
    # Few digits: the same on every machine, and readable on an axis.
    return facts.written(float(f"{value:.{_DIGITS}g}"))
