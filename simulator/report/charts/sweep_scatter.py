"""Many points against one figure, or what a figure depends on: a panel an axis, coloured by what limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import MARGIN, SMALL, WIDTH, fitted, new_figure, place, text_width, wrapped
from simulator.report.charts.ticks import MARKERS, Scale, group_thousands, mark_x
from simulator.report.palette import FAINT, QUIET, colour
from simulator.report.sweeps import SavedSweep
from simulator.report.text import resource_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT: Final = 3.6
_PANEL: Final = 2.1
_COLUMNS: Final = 3
_MOST: Final = 9
_FOOT: Final = 0.6
_BETWEEN: Final = 0.3
_BELOW: Final = 0.85
"""Of the panels: white between and below them [in]."""
_INSET: Final = 0.12


def draw_scatter(sweep: SavedSweep, x: str, y: str) -> tuple[Figure, pd.DataFrame]:
    """Every point at two of its figures, in the colour of what limits it."""
    across, up = sweep.measure(x), sweep.measure(y)
    frame = sweep.frame.dropna(subset=[x, y])
    title = f"{up.words[:1].upper()}{up.words[1:]} against {across.words}"
    figure = new_figure(_HEIGHT + 0.65 + 0.8 + _FOOT - 0.2, title, sweep.subject)
    axes = place(figure, MARGIN + 0.95, 0.45 + _FOOT, WIDTH - 2 * MARGIN - 1.0, _HEIGHT)
    _dots(axes, frame, (frame[x] * across.scale).tolist(), (frame[y] * up.scale).tolist())
    axes.set_xlabel(across.label)
    axes.set_ylabel(up.label)
    group_thousands(axes.xaxis)
    _key(figure, _kinds(frame))
    return figure, frame[list(dict.fromkeys(["point", *sweep.varying(), x, y, "bottleneck"]))]


def draw_influences(sweep: SavedSweep, y: str) -> tuple[Figure, pd.DataFrame] | None:
    """A figure over each axis of numbers, what it follows most first, by Spearman's rank correlation.

    None where no such axis varies.
    """
    frame, up = sweep.frame.dropna(subset=[y]), sweep.measure(y)
    ranks = {key: _rank(frame, key, y) for key in sweep.varying() if sweep.numeric(key)}
    keys = sorted(ranks, key=lambda key: -abs(ranks[key]))[:_MOST]
    if not keys or frame.empty:
        return None
    lines = math.ceil(len(keys) / _COLUMNS)
    height = 0.9 + lines * (_PANEL + _BELOW) + _FOOT - 0.2
    note = "; r is the rank correlation" + (
        f"; {len(keys)} of {len(ranks)} axes" if len(keys) < len(ranks) else ""
    )
    figure = new_figure(height, f"What {up.words} depends on", sweep.subject + note)
    left = MARGIN + 0.95
    width = (WIDTH - MARGIN - left - _BETWEEN * (_COLUMNS - 1)) / _COLUMNS
    for number, key in enumerate(keys):
        column, line = number % _COLUMNS, number // _COLUMNS
        bottom = height - 0.9 - _PANEL - line * (_PANEL + _BELOW)
        axes = place(figure, left + column * (width + _BETWEEN), bottom, width, _PANEL)
        scale = Scale(sweep, key)
        _dots(axes, frame, [scale.at(v) for v in frame[key]], (frame[y] * up.scale).tolist())
        _along(figure, axes, scale, width)
        axes.set_xlabel("\n".join(wrapped(figure, scale.measure.label, width, 2)), fontsize=SMALL)
        axes.set_title(f"r = {ranks[key]:+.2f}", fontsize=SMALL, color=QUIET, loc="right", pad=3)
        if column == 0:
            axes.set_ylabel(fitted(figure, up.label, _PANEL + 0.3), fontsize=SMALL)
        else:
            axes.set_yticklabels([])
    _key(figure, _kinds(frame))
    return figure, frame[["point", *keys, y, "bottleneck"]]


def _rank(frame: pd.DataFrame, key: str, y: str) -> float:
    """Spearman's rank correlation; 0 where either is the same everywhere."""
    ranks = frame[[key, y]].rank()
    if ranks[key].nunique() < 2 or ranks[y].nunique() < 2:
        return 0.0
    return float(ranks[key].corr(ranks[y]))


def _along(figure: Figure, axes: Axes, scale: Scale, width: float) -> None:
    """Limits with white at both ends, and ticks at a few of the values."""
    first, last = scale.at(scale.values[0]), scale.at(scale.values[-1])
    part = _INSET / (width - 2 * _INSET)
    mark_x(figure, axes, scale, width, _INSET)
    if scale.logarithmic:
        factor = (last / first) ** part
        axes.set_xlim(first / factor, last * factor)
    else:
        more = (last - first or 1.0) * part
        axes.set_xlim(first - more, last + more)


def _kinds(frame: pd.DataFrame) -> list[Any]:
    return list(frame["bottleneck"].dropna().value_counts().index)


def _dots(axes: Axes, frame: pd.DataFrame, across: list[float], up: list[float]) -> None:
    """A mark a point; what limits has a colour and a shape of its own."""
    axes.grid(color=FAINT)
    kinds = frame["bottleneck"].tolist()
    for number, kind in enumerate(_kinds(frame)):
        places = [i for i, other in enumerate(kinds) if other == kind]
        axes.plot(
            [across[i] for i in places],
            [up[i] for i in places],
            MARKERS[number % len(MARKERS)],
            color=colour(str(kind)),
            markersize=4.5,
            alpha=0.8,
            mec="white",
            mew=0.4,
            linestyle="none",
        )
    if up:
        axes.set_ylim(min(0.0, *up), 1.06 * max(up) or None)
    group_thousands(axes.yaxis)


def _key(figure: Figure, kinds: list[Any]) -> None:
    """Marks and words of what limits, in a line at the foot."""
    left, height = MARGIN, figure.get_size_inches()[1]
    for number, kind in enumerate(kinds):
        words = f"limited by {resource_label(str(kind))}" if not number else resource_label(str(kind))
        if left + text_width(figure, words) + 0.3 > WIDTH - MARGIN:
            return
        spot = place(figure, left, 0.16, 0.2, 0.2)
        spot.plot([0], [0], MARKERS[number % len(MARKERS)], color=colour(str(kind)), markersize=6)
        spot.set_axis_off()
        figure.text((left + 0.26) / WIDTH, 0.26 / height, words, fontsize=SMALL, va="center", color=QUIET)
        left += 0.26 + text_width(figure, words) + 0.3
