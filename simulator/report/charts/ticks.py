"""Axes of sweep charts: scales that suit the values, and ticks whose labels never touch."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import SMALL, fitted, text_width, widest, wrapped
from simulator.report.sweeps import Measure, SavedSweep, value_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HUES: Final = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#7A3500", "#4D4D4D")
"""Okabe and Ito's colours, the darkest neighbours far apart, for up to eight series."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
"""A marker a series, so that nothing is told by colour alone."""
DASHES: Final = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))

_GAP: Final = 0.12
_LABEL_HEIGHT: Final = 0.17
_FEW_DECADES: Final = 10**2.5
_LINE: Final = 0.16
"""Height of a further line of a label [in]."""
_NARROW: Final = 0.55
"""Width from which names are told one by one [in]."""


class Scale:
    """The positions of an axis' values: numbers at their place, anything else in its order."""

    def __init__(self, sweep: SavedSweep, key: str, *, even: bool = False) -> None:
        self.measure: Measure = sweep.listed(key)
        self.numeric = sweep.numeric(key)
        column = sweep.frame[key]
        found = list(dict.fromkeys(None if v != v else v for v in column.tolist()))
        known = [value for value in found if value is not None]
        nothing = [None] * (len(found) - len(known))
        self.values: list[Any] = [*sorted(known), *nothing] if self.numeric else found
        self.even = even or not self.numeric or bool(nothing)
        self.logarithmic = not self.even and _spread(self.values)
        labels = [value_label(value, self.measure) for value in self.values]
        # A part is named before its figures; where names differ they say enough.
        names = [
            value_label(value.partition(", ")[0] if isinstance(value, str) else value, self.measure)
            for value in self.values
        ]
        self.labels = labels if self.numeric or len(set(names)) < len(names) else names
        self._place = {value: i for i, value in enumerate(self.values)}

    def at(self, value: Any) -> float:
        """Where a value stands, in data coordinates."""
        if self.even:
            return float(self._place[None if value != value else value])
        return float(value) * self.measure.scale

    def fractions(self) -> list[float]:
        """Where the values stand between the first and the last, 0 to 1."""
        places = [self.at(value) for value in self.values]
        if self.logarithmic:
            places = [math.log(place) for place in places]
        width = places[-1] - places[0] or 1.0
        return [(place - places[0]) / width for place in places]


def mark_x(figure: Figure, axes: Axes, scale: Scale, width: float, inset: float = 0.0) -> None:
    """Ticks along x at values of the axis, as many as their labels leave room for; names on several lines.

    Args:
        figure: The figure.
        axes: The axes.
        scale: The axis' values.
        width: Width of the axes [in].
        inset: White at both ends of the values [in].
    """
    room = width - 2 * inset
    if scale.even:
        cell = width / max(1, len(scale.values))
        lines = _lines(figure, scale, width)
        texts = ["\n".join(name) for name in lines] or [fitted(figure, label, 1.6) for label in scale.labels]
        centres = [cell * (i + 0.5) for i in range(len(texts))]
        chosen = list(range(len(texts))) if lines else _apart(figure, centres, texts)
    else:
        texts = scale.labels
        chosen = _apart(figure, [inset + room * fraction for fraction in scale.fractions()], texts)
    if scale.logarithmic:
        axes.set_xscale("log")
    axes.set_xticks([scale.at(scale.values[i]) for i in chosen], [texts[i] for i in chosen], minor=False)
    axes.set_xticks([], minor=True)


def below(figure: Figure, scale: Scale, width: float) -> float:
    """What the labels along x need beyond their first line [in]."""
    return _LINE * (max(map(len, _lines(figure, scale, width)), default=1) - 1)


def _lines(figure: Figure, scale: Scale, width: float) -> list[list[str]]:
    """Every name of an axis on up to three lines; nothing for numbers, and where there are too many names."""
    cell = width / max(1, len(scale.values))
    if scale.numeric or cell < _NARROW:
        return []
    return [wrapped(figure, label, cell - _GAP) for label in scale.labels]


def mark_decades(axis: Any, low: float, high: float) -> None:
    """Ticks of a logarithmic axis: at decades, and at 2 and 5 of each where there are few of them."""
    from matplotlib.ticker import LogLocator, NullLocator

    few = high < _FEW_DECADES * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.set_minor_locator(NullLocator())


def _apart(figure: Figure, centres: Sequence[float], texts: Sequence[str]) -> list[int]:
    return _without_overlap(centres, [text_width(figure, text) for text in texts], _GAP)


def mark_y(figure: Figure, axes: Axes, scale: Scale, height: float, room: float) -> float:
    """The same along y, for even axes; returns the width that the labels take [in]."""
    texts = [fitted(figure, label, room) for label in scale.labels]
    cell = height / max(1, len(texts))
    centres = [cell * (i + 0.5) for i in range(len(texts))]
    chosen = _without_overlap(centres, [_LABEL_HEIGHT] * len(texts), 0.0)
    axes.set_yticks([scale.at(scale.values[i]) for i in chosen], [texts[i] for i in chosen])
    return widest(figure, [texts[i] for i in chosen], SMALL)


def thin(values: list[Any], most: int) -> list[Any]:
    """At most so many of some values, both ends and evenly spread between them."""
    if len(values) <= most:
        return values
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def group_thousands(axis: Any) -> None:
    """Figures along an axis with thousands separators."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _without_overlap(centres: Sequence[float], widths: Sequence[float], gap: float) -> list[int]:
    """Both ends and as many evenly spread between them as do not touch."""
    count = len(centres)
    for step in range(1, count + 1):
        chosen = list(range(0, count, step))
        if chosen[-1] != count - 1 and count - 1 - chosen[-1] >= step / 2:
            chosen.append(count - 1)
        pairs = itertools.pairwise(chosen)
        if all(centres[b] - centres[a] >= (widths[a] + widths[b]) / 2 + gap for a, b in pairs):
            return chosen
    return [0]


def _spread(values: Sequence[float]) -> bool:
    """Whether values are better told apart in their logarithm: half of them lie nearer to its middle."""
    if len(values) < 3 or min(values) <= 0 or max(values) / min(values) < 8:
        return False
    low, middle, high = min(values), statistics.median(values), max(values)
    even = (middle - low) / (high - low)
    logarithmic = math.log(middle / low) / math.log(high / low)
    return abs(logarithmic - 0.5) < abs(even - 0.5)
