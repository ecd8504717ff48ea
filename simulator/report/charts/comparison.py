"""Results side by side: a stacked bar each, of where the time of a step goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from simulator.report.charts.style import (
    MARGIN,
    SMALL,
    WIDTH,
    beside,
    fitted,
    new_figure,
    place,
    time_unit,
    widest,
)
from simulator.report.compare import Comparison
from simulator.report.palette import colour
from simulator.report.text import cause_label, grouped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ROW: Final = 0.55
_MOST: Final = 12
_COLUMNS: Final = 3


def draw_comparison(comparison: Comparison) -> tuple[Figure, pd.DataFrame]:
    """A bar a result, as long as its step, in the colours of what it spent the time on."""
    import pandas as pd

    totals = {cause: sum(values) for cause, values in comparison.breakdown.items()}
    named = [cause for cause, _ in grouped(totals, _MOST) if cause in comparison.breakdown]
    rest = [cause for cause in comparison.breakdown if cause not in named]
    parts = {cause: list(comparison.breakdown[cause]) for cause in named}
    if rest:
        left_over = zip(*(comparison.breakdown[cause] for cause in rest), strict=True)
        parts["other"] = [sum(column) for column in left_over]
    steps = [sum(column) for column in zip(*parts.values(), strict=True)] or [0.0] * len(comparison.names)
    unit, scale = time_unit(max(steps))
    lines = -(-len(parts) // _COLUMNS)
    foot = 0.75 + 0.24 * lines
    height = 0.8 + _ROW * len(comparison.names) + foot
    change = steps[0] / steps[-1] if len(steps) == 2 and steps[-1] else None
    title = "Where the time of a step goes"
    if change is not None and all(result.values.get("fits", True) for result in comparison.results):
        title = f"{comparison.names[1]}: {change:.2f} times as fast a step as {comparison.names[0]}"
    models = dict.fromkeys(str(result.values["model"]) for result in comparison.results)
    figure = new_figure(height, title, ", ".join(models))
    labels = [fitted(figure, name, 2.2) for name in comparison.names]
    fits = [bool(result.values.get("fits", True)) for result in comparison.results]
    figures = [
        f"{step * scale:,.4g} {unit}{'' if fit else ', does not fit'}"
        for step, fit in zip(steps, fits, strict=True)
    ]
    left = MARGIN + widest(figure, labels) + 0.12
    right = widest(figure, figures) + 0.15
    width = WIDTH - left - MARGIN - right
    axes = place(figure, left, foot, width, _ROW * len(comparison.names))
    floor = [0.0] * len(steps)
    rows = list(range(len(steps)))
    for cause, seconds in parts.items():
        lengths = [value * scale for value in seconds]
        axes.barh(rows, lengths, 0.66, floor, color=colour(cause), edgecolor="white", linewidth=0.4)
        floor = [a + b for a, b in zip(floor, lengths, strict=True)]
    for row, text in enumerate(figures):
        beside(axes, text, floor[row], row)
    axes.set_yticks(rows, labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(floor) or 1.0)
    axes.set_xlabel(f"time of a step [{unit}]")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _key(figure, list(parts), height)
    data = pd.DataFrame(parts, index=list(comparison.names)).rename_axis("result").reset_index()
    return figure, data


def _key(figure: Figure, causes: list[str], height: float) -> None:
    column = (WIDTH - 2 * MARGIN) / _COLUMNS
    lines = -(-len(causes) // _COLUMNS)
    for number, cause in enumerate(causes):
        at = MARGIN + column * (number // lines)
        up = 0.2 + 0.24 * (lines - 1 - number % lines)
        spot = place(figure, at, up, 0.2, 0.14)
        spot.set_facecolor(colour(cause))
        spot.set_xticks([])
        spot.set_yticks([])
        for spine in spot.spines.values():
            spine.set_visible(False)
        words = fitted(figure, cause_label(cause), column - 0.4)
        figure.text((at + 0.28) / WIDTH, (up + 0.07) / height, words, fontsize=SMALL, va="center")
