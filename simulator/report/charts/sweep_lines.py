"""A figure along an axis: lines, or bars where the axis has no numbers; the others at their best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import MARGIN, SMALL, WIDTH, fitted, new_figure, place, widest
from simulator.report.charts.ticks import (
    DASHES,
    HUES,
    MARKERS,
    Scale,
    below,
    group_thousands,
    mark_decades,
    mark_x,
    thin,
)
from simulator.report.palette import QUIET
from simulator.report.sweeps import Measure, SavedSweep, others_note

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT: Final = 4.6
_INSET: Final = 0.25
_MOST: Final = len(HUES)
_FEWER: Final = 6
_WIDE: Final = 30.0
_HEADING: Final = 2.3
_HEADROOM: Final = 1.06
"""Height of the axis over the highest point, whose mark would be cut otherwise."""


def best_points(sweep: SavedSweep, keys: list[str], y: str) -> pd.DataFrame:
    """Of the points that share the values of some keys, the one with the best figure; none without one."""
    frame = sweep.frame.dropna(subset=[y])
    ascending = sweep.measure(y).less_is_better
    frame = frame.sort_values([y, "point"], ascending=[ascending, True], kind="stable")
    return frame.drop_duplicates(subset=keys).sort_values("point")


def draw_lines(
    sweep: SavedSweep, x: str, y: str, by: str | None, *, bars: bool = False
) -> tuple[Figure, pd.DataFrame]:
    """Lines of a figure over an axis, one for each value of another; points that do not fit leave gaps."""
    keys = [x] if by is None else [x, by]
    best = best_points(sweep, keys, y)
    across = [key for key in sweep.varying() if key not in keys]
    note = others_note("the best of", across)
    measure = sweep.measure(y)
    scale = Scale(sweep, x, even=bars)
    title = f"{measure.words[:1].upper()}{measure.words[1:]} over {scale.measure.words}"
    series, left_out = _series(sweep, by, best)
    note += f"; {len(series)} of {len(series) + left_out} lines" if left_out else ""
    figure = new_figure(_HEIGHT, title, sweep.subject + note)
    legend = [fitted(figure, label, 1.9) for label, _ in series] if by else []
    heading = _heading(figure, sweep.listed(by)) if by else ""
    side = widest(figure, [*legend, *heading.split("\n")]) + 0.55 if by else 0.0
    left, width = MARGIN + 0.95, WIDTH - MARGIN * 2 - 0.95 - side
    bars = scale.even
    bottom = 0.65 + (below(figure, scale, width) if bars else 0.0)
    axes = place(figure, left, bottom, width, _HEIGHT - bottom - 0.8)
    for number, (_, value) in enumerate(series):
        mine = best if by is None else best[_is(best[by], value)]
        places = [scale.at(v) for v in mine[x].tolist()]
        heights = (mine[y] * measure.scale).tolist()
        if bars:
            share = 0.8 / len(series)
            offset = (number - (len(series) - 1) / 2) * share
            axes.bar([p + offset for p in places], heights, share * 0.92, color=HUES[number % _MOST])
        else:
            _line(axes, number, *_with_gaps(sweep, scale, x, by, value, places, heights))
    axes.grid(axis="y")
    if scale.logarithmic and wide(best[y].tolist()):
        axes.set_yscale("log")
        mark_decades(axes.yaxis, best[y].min(), best[y].max())
    else:
        axes.set_ylim(*_around_zero((best[y] * measure.scale).tolist()))
    group_thousands(axes.yaxis)
    axes.set_ylabel(measure.label)
    axes.set_xlabel(scale.measure.label)
    if bars:
        axes.set_xlim(-0.5, len(scale.values) - 0.5)
        mark_x(figure, axes, scale, width)
    else:
        mark_x(figure, axes, scale, width, _INSET)
        _inset(axes, scale, width)
    if by:
        _legend(axes, heading, legend, bars=bars)
    _say_nothing(axes, best)
    return figure, best[[*keys, y]]


def _around_zero(figures: list[float]) -> tuple[float, float]:
    """Limits of an axis that shows zero and has room beyond the figures furthest from it."""
    low, high = min(figures, default=0.0), max(figures, default=0.0)
    low, high = _HEADROOM * min(low, 0.0), _HEADROOM * max(high, 0.0)
    return (low, high) if low < high else (0.0, 1.0)


def wide(figures: list[float]) -> bool:
    """Whether figures span so much that an even scale hides the small ones."""
    return bool(figures) and min(figures) > 0 and max(figures) > _WIDE * min(figures)


def _heading(figure: Figure, measure: Measure) -> str:
    """Words and unit of the legend, on two lines where they are too long for one."""
    if widest(figure, [measure.label]) <= _HEADING:
        return measure.label
    lines = [measure.words, f"[{measure.unit}]"] if measure.unit else [measure.words]
    return "\n".join(fitted(figure, line, _HEADING) for line in lines)


def _series(sweep: SavedSweep, by: str | None, best: pd.DataFrame) -> tuple[list[tuple[str, Any]], int]:
    """Label and value of each line, and how many there would be besides; one without a point says so."""
    if by is None:
        return [("", None)], 0
    scale = Scale(sweep, by, even=True)
    every = [
        (label if _is(best[by], value).any() else f"{label} (no point)", value)
        for label, value in zip(scale.labels, scale.values, strict=True)
    ]
    kept = thin(every, _MOST if len(every) <= _MOST else _FEWER)
    return kept, len(every) - len(kept)


def _is(column: pd.Series[Any], value: Any) -> pd.Series[Any]:
    return column.isna() if value is None else column == value


def _with_gaps(
    sweep: SavedSweep,
    scale: Scale,
    x: str,
    by: str | None,
    value: Any,
    places: list[float],
    heights: list[float],
) -> tuple[list[float], list[float]]:
    """In the order of the axis; what was asked for and has no figure becomes a gap."""
    frame = sweep.frame if by is None else sweep.frame[_is(sweep.frame[by], value)]
    known = dict(zip(places, heights, strict=True))
    asked = sorted({scale.at(v) for v in frame[x].tolist()})
    return asked, [known.get(at, float("nan")) for at in asked]


def _line(axes: Axes, number: int, places: list[float], heights: list[float]) -> None:
    size = 5.5 if len(places) <= 40 else 0.0
    axes.plot(
        places,
        heights,
        color=HUES[number % _MOST],
        linestyle=DASHES[number // 2 % len(DASHES)] if number else "-",
        linewidth=1.8,
        marker=MARKERS[number % _MOST],
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.6,
    )


def _inset(axes: Axes, scale: Scale, width: float) -> None:
    """Limits that leave `_INSET` inches of white at both ends."""
    import math

    first, last = scale.at(scale.values[0]), scale.at(scale.values[-1])
    part = _INSET / (width - 2 * _INSET)
    if scale.logarithmic:
        low, high = math.log(first), math.log(last)
        more = (high - low) * part
        axes.set_xlim(math.exp(low - more), math.exp(high + more))
    else:
        more = (last - first or 1.0) * part
        axes.set_xlim(first - more, last + more)


def _legend(axes: Axes, heading: str, labels: list[str], *, bars: bool) -> None:
    handles: list[Any] = list(axes.containers if bars else axes.lines)[: len(labels)]
    if not bars and _end(handles[0]) < _end(handles[-1]):
        # From the top down, as the lines stand.
        handles, labels = handles[::-1], labels[::-1]
    legend = axes.legend(
        handles,
        labels,
        title=heading,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.02),
        frameon=False,
        fontsize=SMALL,
        title_fontsize=SMALL,
        alignment="left",
        handlelength=2.4,
    )
    legend.get_title().set_color(QUIET)


def _end(line: Any) -> float:
    """The last figure of a line; nothing to compare where it has none."""
    known = [y for y in line.get_ydata() if y == y]
    return float(known[-1]) if known else float("nan")


def _say_nothing(axes: Axes, best: pd.DataFrame) -> None:
    if best.empty:
        axes.text(0.5, 0.5, "no point has this figure", transform=axes.transAxes, ha="center", color=QUIET)
