"""Many points against two figures: all of them, and those that no other beats in both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import MARGIN, SMALL, WIDTH, fitted, new_figure, place, widest
from simulator.report.charts.ticks import group_thousands, thin
from simulator.report.palette import FAINT, QUIET
from simulator.report.sweeps import SavedSweep, key_words, value_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT: Final = 5.0
_HUE: Final = "#0072B2"
_GROUND: Final = "#9A9A9A"
_MOST_NAMED: Final = 8
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


def draw_pareto(sweep: SavedSweep, x: str, y: str, *, with_front: bool = True) -> tuple[Figure, pd.DataFrame]:
    """Every point, and the front of those that none beats; axes of the best ones are named beside them."""
    across, up = sweep.measure(x), sweep.measure(y)
    frame = sweep.frame.dropna(subset=[x, y])
    best = front(sweep, x, y) if with_front else frame.iloc[:0]
    title = f"{up.words[:1].upper()}{up.words[1:]} against {across.words}"
    varying = sweep.varying()
    listed = best.loc[thin(list(best.index), _MOST_NAMED)]
    note = f"; {len(best)} of {len(frame):,} on the front" if with_front else ""
    note += f", {len(listed)} of them numbered" if len(listed) < len(best) else ""
    table = 0.26 * (len(listed) + 2) + 0.15 if len(listed) else 0.0
    height = _HEIGHT + table
    figure = new_figure(height, title, sweep.subject + note)
    left, width = MARGIN + 0.95, WIDTH - 2 * MARGIN - 1.0
    axes = place(figure, left, 0.65 + table, width, _HEIGHT - 0.65 - 0.8)
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
    _table(figure, sweep, listed, x, y, varying, table)
    return figure, frame[["point", *varying, x, y]].assign(front=frame.index.isin(best.index))


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


def _table(
    figure: Figure, sweep: SavedSweep, best: pd.DataFrame, x: str, y: str, varying: list[str], room: float
) -> None:
    """A line a point of the front: its number and the values of the axes."""
    if best.empty:
        return
    columns = [*varying[:6], x, y]
    heads = ["", *(key_words(key) if key in varying else sweep.measure(key).words for key in columns)]
    units = ["", *("" if key in varying else sweep.measure(key).unit for key in columns)]
    rows = [heads, [f"[{unit}]" if unit else "" for unit in units]]
    for number, (_, row) in enumerate(best.iterrows(), 1):
        rows.append([str(number), *(_told(sweep, key, row[key]) for key in columns)])
    widths = [0.3, *(widest(figure, [row[i] for row in rows]) + 0.3 for i in range(1, len(heads)))]
    room_across = (WIDTH - 2 * MARGIN - 0.3) / max(sum(widths[1:]), 1e-9)
    widths = [0.3, *(width * min(1.0, room_across) for width in widths[1:])]
    height = figure.get_size_inches()[1]
    top = room - 0.05
    for place_in, cells in enumerate(rows):
        at = MARGIN
        for column, cell in enumerate(cells):
            text = fitted(figure, cell, widths[column] - 0.1) if column else cell
            figure.text(
                at / WIDTH,
                (top - 0.26 * place_in) / height,
                text,
                fontsize=SMALL,
                color=QUIET if place_in < 2 else "#222222",
            )
            at += widths[column]


def _told(sweep: SavedSweep, key: str, value: Any) -> str:
    measure = sweep.measure(key)
    text = value_label(value, measure)
    short = measure.unit if key in sweep.keys else ""
    return f"{text} {short}".strip()
