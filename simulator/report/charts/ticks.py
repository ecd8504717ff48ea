"""Axes of sweep charts: scales that suit the values, and ticks whose labels never touch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import SMALL, fitted, text_width, widest
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


class Scale:
    """The positions of an axis' values: numbers at their place, anything else in its order."""

    def __init__(self, sweep: SavedSweep, key: str, *, even: bool = False) -> None:
        self.measure: Measure = sweep.measure(key)
        numeric = sweep.numeric(key) and not sweep.frame[key].isna().any()
        column = sweep.frame[key]
        found = list(dict.fromkeys(None if v != v else v for v in column.tolist()))
        self.values: list[Any] = sorted(found) if numeric else found
        self.even = even or not numeric
        self.logarithmic = not self.even and _spread(self.values)
        self.labels = [value_label(value, self.measure) for value in self.values]
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
    """Ticks along x at values of the axis, as many as their labels leave room for.

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
        texts = [fitted(figure, label, max(0.25, 1.6)) for label in scale.labels]
        centres = [cell * (i + 0.5) for i in range(len(texts))]
    else:
        texts = scale.labels
        centres = [inset + room * fraction for fraction in scale.fractions()]
    widths = [text_width(figure, text) for text in texts]
    chosen = _without_overlap(centres, widths, _GAP)
    if scale.logarithmic:
        axes.set_xscale("log")
    axes.set_xticks([scale.at(scale.values[i]) for i in chosen], [texts[i] for i in chosen], minor=False)
    axes.set_xticks([], minor=True)


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
    """Whether values are better told apart in their logarithm."""
    if len(values) < 3 or min(values) <= 0 or max(values) / min(values) < 8:
        return False
    steps = [b / a for a, b in itertools.pairwise(values)]
    return max(steps) / min(steps) < max(values) / min(values) / (len(values) - 1)
