"""Many points against two figures: all of them, and those that no other beats in both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import (
    MARGIN,
    SMALL,
    WIDTH,
    fitted,
    new_figure,
    place,
    widest,
    wrapped,
)
from simulator.report.charts.ticks import group_thousands, thin
from simulator.report.palette import FAINT, INK, QUIET
from simulator.report.sweeps import SavedSweep, key_words, value_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT: Final = 5.0
_HUE: Final = "#0072B2"
_GROUND: Final = "#9A9A9A"
_MOST_NAMED: Final = 8
_MOST_COLUMNS: Final = 6
_WIDTH: Final = WIDTH - 2 * MARGIN - 1.0
_LINE: Final = 0.24
_FIRST: Final = 0.3
_BETWEEN: Final = 0.22
_LONGEST: Final = 2.6
"""Widths of the table: of its numbers, between columns, of the longest cell [in]."""
_MARK: Final = 0.19
"""Distance at which two numbered marks do not touch [in]."""
_HEADROOM: Final = 1.08
"""Height of the axis over the highest point, so that its number stands inside."""


def cost_of(sweep: SavedSweep) -> str:
    """What throughput is weighed against: rent or GPUs where they vary, otherwise memory."""
    for key in ("usd_per_hour", "num_gpus"):
        if key in sweep.frame and sweep.frame[key].nunique() > 1:
            return key
    return "peak_memory_bytes"


def front(sweep: SavedSweep, x: str, y: str) -> pd.DataFrame:
    """The points that no other beats: none has less of x (or more, where more is better) and no worse a y."""
    frame = sweep.frame.dropna(subset=[x, y])
    less_x, less_y = sweep.measure(x).less_is_better, sweep.measure(y).less_is_better
    ranked = frame.sort_values([x, y, "point"], ascending=[less_x, less_y, True], kind="stable")
    kept, best = [], None
    for index, value in zip(ranked.index, ranked[y], strict=True):
        if best is None or (value < best if less_y else value > best):
            kept.append(index)
            best = value
    return ranked.loc[kept]


def draw_pareto(sweep: SavedSweep, x: str, y: str) -> tuple[Figure, pd.DataFrame]:
    """Every point, and the front of those that none beats; axes of the best ones are named below."""
    across, up = sweep.measure(x), sweep.measure(y)
    frame = sweep.frame.dropna(subset=[x, y])
    best = front(sweep, x, y)
    varying = sweep.varying()
    listed = _listed(best, frame, x, y)
    note = f"; {len(best)} of {len(frame):,} on the front"
    note += f", {len(listed)} of them numbered" if len(listed) < len(best) else ""
    table = _rows(sweep, listed, x, y, varying)
    room = _LINE * len(table) + 0.15 if len(listed) else 0.0
    title = f"{up.words[:1].upper()}{up.words[1:]} against {across.words}"
    figure = new_figure(_HEIGHT + room, title, sweep.subject + note)
    axes = place(figure, MARGIN + 0.95, 0.65 + room, _WIDTH, _HEIGHT - 0.65 - 0.8)
    axes.grid(color=FAINT)
    axes.plot(
        frame[x] * across.scale, frame[y] * up.scale, "o", color=_GROUND, markersize=4, alpha=0.6, mew=0
    )
    if len(best):
        axes.plot(
            best[x] * across.scale,
            best[y] * up.scale,
            color=_HUE,
            marker="o",
            markersize=5,
            markeredgecolor="white",
            linewidth=1.4,
            drawstyle="steps-post",
        )
    axes.set_xlabel(across.label)
    axes.set_ylabel(up.label)
    if len(frame):
        axes.set_ylim(0, _HEADROOM * float(frame[y].max()) * up.scale or None)
    group_thousands(axes.xaxis)
    group_thousands(axes.yaxis)
    _numbered(axes, sweep, listed, x, y)
    _write(figure, table, len(listed), room)
    return figure, frame[["point", *varying, x, y]].assign(front=frame.index.isin(best.index))


def _listed(best: pd.DataFrame, frame: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Points of the front that are numbered: both ends, and others whose marks do not touch."""
    if best.empty:
        return best
    wide = (float(frame[x].max() - frame[x].min()) or 1.0) / (0.9 * _WIDTH)
    high = (_HEADROOM * float(frame[y].max()) or 1.0) / (_HEIGHT - 1.45)
    places = [(a / wide, b / high) for a, b in zip(best[x], best[y], strict=True)]
    kept = [0]
    for number in (len(places) - 1, *range(1, len(places) - 1)):
        if all(math.dist(places[number], places[other]) >= _MARK for other in kept):
            kept.append(number)
    return best.iloc[thin(sorted(kept), _MOST_NAMED)]


def _numbered(axes: Axes, sweep: SavedSweep, best: pd.DataFrame, x: str, y: str) -> None:
    across, up = sweep.measure(x), sweep.measure(y)
    for number, (a, b) in enumerate(zip(best[x], best[y], strict=True), 1):
        axes.annotate(
            str(number),
            (a * across.scale, b * up.scale),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7,
            color="white",
            fontweight="bold",
        )
    axes.plot(best[x] * across.scale, best[y] * up.scale, "o", color=_HUE, markersize=11, mec="white")


Line = list[tuple[float, str]]
"""Texts with their distance from the left margin [in]."""


def _rows(sweep: SavedSweep, best: pd.DataFrame, x: str, y: str, varying: list[str]) -> list[Line]:
    """Lines of the table below: heads on as many as they need, then a line a point with its axes."""
    columns = [*varying[:_MOST_COLUMNS], *(key for key in (x, y) if key not in varying[:_MOST_COLUMNS])]
    scratch = new_figure(1.0, "", "")
    heads, cells, least, full = [], [], [], []
    for key in columns:
        measure = sweep.measure(key)
        words, unit = (key_words(key), "") if key in varying else (measure.words, measure.unit)
        told = [fitted(scratch, _told(sweep, key, value), _LONGEST) for value in best[key]]
        heads.append((words, f"[{unit}]" if unit else ""))
        cells.append(told)
        body = widest(scratch, told)
        least.append(max(body, widest(scratch, f"{words} [{unit}]".split())))
        full.append(max(body, widest(scratch, list(heads[-1]))))
    room = WIDTH - 2 * MARGIN - _FIRST - _BETWEEN * len(columns)
    spare = min(1.0, max(0.0, (room - sum(least)) / max(sum(full) - sum(least), 1e-9)))
    widths = [a + (b - a) * spare for a, b in zip(least, full, strict=True)]
    shrink = min(1.0, room / max(sum(widths), 1e-9))
    widths = [width * shrink for width in widths]
    lefts = [_FIRST + sum(widths[:i]) + _BETWEEN * i for i in range(len(columns))]
    lines = [
        [line for text in head if text for line in wrapped(scratch, text, width + 0.02)]
        for head, width in zip(heads, widths, strict=True)
    ]
    rows: list[Line] = [
        [(left, column[i]) for left, column in zip(lefts, lines, strict=True) if i < len(column)]
        for i in range(max(map(len, lines), default=0))
    ]
    for number in range(len(best)):
        texts = [
            fitted(scratch, column[number], width + 0.02) for column, width in zip(cells, widths, strict=True)
        ]
        rows.append([(0.0, str(number + 1)), *zip(lefts, texts, strict=True)])
    return rows


def _write(figure: Figure, rows: list[Line], points: int, room: float) -> None:
    """The table at the foot of a figure; its last lines are those of points."""
    if not points:
        return
    height = figure.get_size_inches()[1]
    for number, row in enumerate(rows):
        hue = INK if number >= len(rows) - points else QUIET
        for left, text in row:
            at = (MARGIN + left) / WIDTH, (room - 0.05 - _LINE * number) / height
            figure.text(*at, text, fontsize=SMALL, color=hue)


def _told(sweep: SavedSweep, key: str, value: Any) -> str:
    measure = sweep.listed(key)
    text = value_label(value, measure)
    short = measure.unit if key in sweep.keys else ""
    return f"{text} {short}".strip()
