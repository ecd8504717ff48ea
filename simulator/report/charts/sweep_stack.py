"""Where the time of a step goes along an axis: stacked bars, a colour a cause."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import MARGIN, SMALL, WIDTH, fitted, new_figure, place, time_unit, widest
from simulator.report.charts.sweep_lines import best_points, wide
from simulator.report.charts.ticks import Scale, below, group_thousands, mark_x
from simulator.report.palette import colour
from simulator.report.sweeps import SavedSweep, key_words, others_note
from simulator.report.text import cause_label, grouped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT: Final = 4.6
_MOST: Final = 10
_VISIBLE: Final = 0.005
"""Share of the tallest bar below which a cause is thinner than the white between two."""


def draw_stack(sweep: SavedSweep, x: str) -> tuple[Figure, pd.DataFrame] | None:
    """The breakdown of a step over an axis, in shares where times differ much; None if no point has one."""
    others = [key for key in sweep.varying() if key != x]
    note = others_note("the best of", others)
    if len(others) == 1:
        sweep, value = _steepest(sweep, others[0])
        note = f"; {key_words(others[0])} {value}"
    best = best_points(sweep, [x], sweep.metric())
    columns = [column for column in best.columns if str(column).startswith("breakdown.")]
    if best.empty or not columns:
        return None
    scale = Scale(sweep, x, even=True)
    seconds = best[columns].fillna(0.0)
    relative = wide(seconds.sum(axis=1).tolist())
    data = _causes(seconds.div(seconds.sum(axis=1), axis=0) if relative else seconds)
    tallest = float(data.sum(axis=1).max())
    unit, times = ("%", 100.0) if relative else time_unit(tallest)
    figure = new_figure(_HEIGHT, f"Where a step goes over {scale.measure.words}", sweep.subject + note)
    labels = [fitted(figure, cause_label(str(cause)), 2.2) for cause in data.columns]
    side = widest(figure, labels) + 0.55
    left, width = MARGIN + 0.95, WIDTH - 2 * MARGIN - 0.95 - side
    bottom = 0.65 + below(figure, scale, width)
    axes = place(figure, left, bottom, width, _HEIGHT - bottom - 0.8)
    bars = _bars(axes, [scale.at(v) for v in best[x].tolist()], data * times)
    axes.set_xlim(-0.5, len(scale.values) - 0.5)
    axes.set_ylim(0, 1.05 * tallest * times)
    axes.set_ylabel(f"{'share' if relative else 'time'} of a step [{unit}]")
    axes.set_xlabel(scale.measure.label)
    mark_x(figure, axes, scale, width)
    axes.legend(
        bars[::-1],
        labels[::-1],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.02),
        frameon=False,
        fontsize=SMALL,
        handlelength=1.2,
    )
    if relative:
        data = data.add_suffix(" (share)").assign(step_time_s=seconds.sum(axis=1).tolist())
    data.insert(0, x, best[x].tolist())
    return figure, data


def _causes(parts: pd.DataFrame) -> pd.DataFrame:
    """A column a cause, the largest first; those that nobody would see are added up as others."""
    import pandas as pd

    tallest = float(parts.sum(axis=1).max())
    seen = [column for column in parts if parts[column].max() >= _VISIBLE * tallest]
    totals = {str(column).partition(".")[2]: float(parts[column].sum()) for column in seen}
    named = [cause for cause, _ in grouped(totals, _MOST) if f"breakdown.{cause}" in parts]
    data = pd.DataFrame({cause: parts[f"breakdown.{cause}"].tolist() for cause in named})
    rest = [column for column in parts if str(column).partition(".")[2] not in named]
    if rest:
        data["other"] = parts[rest].sum(axis=1).tolist()
    return data


def _bars(axes: Axes, places: list[float], data: pd.DataFrame) -> list[Any]:
    floor, bars = [0.0] * len(places), []
    for cause in data.columns:
        heights = data[cause].tolist()
        bars.append(
            axes.bar(places, heights, 0.78, floor, color=colour(str(cause)), edgecolor="white", linewidth=0.4)
        )
        floor = [a + b for a, b in zip(floor, heights, strict=True)]
    axes.grid(axis="y")
    group_thousands(axes.yaxis)
    return bars


def _steepest(sweep: SavedSweep, other: str) -> tuple[SavedSweep, str]:
    """The points that share the value of the other axis at which the figure changes most."""
    metric, scale = sweep.metric(), Scale(sweep, other, even=True)
    chosen, most = 0, -1.0
    for place_in, value in enumerate(scale.values):
        column = sweep.frame[other]
        figures = sweep.frame[column.isna() if value is None else column == value][metric].dropna()
        spread = float(figures.max() / figures.min()) * len(figures) if len(figures) else 0.0
        if spread > most:
            chosen, most = place_in, spread
    value, column = scale.values[chosen], sweep.frame[other]
    mine = sweep.frame[column.isna() if value is None else column == value]
    return replace(sweep, frame=mine), f"{scale.labels[chosen]} {scale.measure.unit}".strip()
