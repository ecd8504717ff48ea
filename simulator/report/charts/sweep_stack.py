"""Where the time of a step goes along an axis: stacked bars, a colour a cause."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from simulator.report.charts.style import MARGIN, SMALL, WIDTH, fitted, new_figure, place, time_unit, widest
from simulator.report.charts.sweep_lines import best_points
from simulator.report.charts.ticks import Scale, group_thousands, mark_x
from simulator.report.palette import colour
from simulator.report.sweeps import SavedSweep, key_words
from simulator.report.text import cause_label, grouped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_HEIGHT: Final = 4.6
_MOST: Final = 10
_VISIBLE: Final = 0.005
"""Share of the tallest bar below which a cause is thinner than the white between two."""


def draw_stack(sweep: SavedSweep, x: str) -> tuple[Figure, pd.DataFrame] | None:
    """The breakdown of a step over an axis; None where no point has one."""
    import pandas as pd

    others = [key for key in sweep.varying() if key != x]
    note = f"; at the best {', '.join(key_words(key) for key in others)}" if others else ""
    if len(others) == 1:
        sweep, value = _steepest(sweep, others[0])
        note = f"; {key_words(others[0])} {value}"
    best = best_points(sweep, [x], sweep.metric())
    columns = [column for column in best.columns if str(column).startswith("breakdown.")]
    if best.empty or not columns:
        return None
    scale = Scale(sweep, x, even=True)
    parts = best[columns].fillna(0.0)
    tallest = float(parts.sum(axis=1).max())
    seen = [c for c in columns if parts[c].max() >= _VISIBLE * tallest]
    totals = {str(c).partition(".")[2]: float(parts[c].sum()) for c in seen}
    causes = [cause for cause, _ in grouped(totals, _MOST)]
    named = [cause for cause in causes if f"breakdown.{cause}" in columns]
    data = pd.DataFrame({cause: parts[f"breakdown.{cause}"].tolist() for cause in named})
    rest = [c for c in columns if str(c).partition(".")[2] not in named]
    if rest:
        data["other"] = parts[rest].sum(axis=1).tolist()
    unit, times = time_unit(tallest)
    figure = new_figure(_HEIGHT, f"Where a step goes over {scale.measure.words}", sweep.subject + note)
    labels = [fitted(figure, cause_label(str(cause)), 2.2) for cause in data.columns]
    side = widest(figure, labels) + 0.55
    left, width = MARGIN + 0.95, WIDTH - 2 * MARGIN - 0.95 - side
    axes = place(figure, left, 0.65, width, _HEIGHT - 0.65 - 0.8)
    places = [scale.at(v) for v in best[x].tolist()]
    floor = [0.0] * len(places)
    bars = []
    for cause in data.columns:
        heights = [v * times for v in data[cause]]
        bars.append(
            axes.bar(places, heights, 0.78, floor, color=colour(str(cause)), edgecolor="white", linewidth=0.4)
        )
        floor = [a + b for a, b in zip(floor, heights, strict=True)]
    axes.grid(axis="y")
    group_thousands(axes.yaxis)
    axes.set_xlim(-0.5, len(scale.values) - 0.5)
    axes.set_ylim(0, 1.05 * tallest * times)
    axes.set_ylabel(f"time of a step [{unit}]")
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
    data.insert(0, x, best[x].tolist())
    return figure, data


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
