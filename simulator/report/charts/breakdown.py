"""Where the time of a step went: a bar a cause, the longest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from simulator.report.charts.style import (
    MARGIN,
    WIDTH,
    beside,
    fitted,
    new_figure,
    place,
    quiet_frame,
    time_unit,
    widest,
)
from simulator.report.palette import colour
from simulator.report.saved import SavedResult
from simulator.report.text import cause_label, grouped, step_time, subject, told

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST: Final = 16
_ROW: Final = 0.32
_LONGEST_LABEL: Final = 3.0


def draw_breakdown(saved: SavedResult) -> Figure:
    """Seconds of a step by cause, with percent; the figures are ``breakdown`` of result.json."""
    step = float(saved.values["step_time_s"])
    causes = grouped(saved.values["breakdown"], _MOST)
    height = 0.75 + _ROW * max(1, len(causes)) + 0.65
    figure = new_figure(height, f"Where a step of {step_time(step)} goes", subject(saved.values))
    labels = [fitted(figure, cause_label(cause), _LONGEST_LABEL) for cause, _ in causes]
    figures = ["   ".join(figures) for figures in told(causes, step)]
    left = MARGIN + widest(figure, labels) + 0.12
    room = WIDTH - left - MARGIN - widest(figure, figures) - 0.15
    axes = place(figure, left, 0.6, room, height - 0.6 - 0.75)
    unit, scale = time_unit(step)
    longest = max((value for _, value in causes), default=1.0) * scale
    rows = range(len(causes))
    lengths = [value * scale for _, value in causes]
    axes.barh(rows, lengths, height=0.72, color=[colour(cause) for cause, _ in causes])
    for row, text, length in zip(rows, figures, lengths, strict=True):
        beside(axes, text, length, row)
    axes.set_yticks(rows, labels)
    axes.set_ylim(max(1, len(causes)) - 0.5, -0.5)
    axes.set_xlim(0, longest)
    axes.set_xlabel(f"time of a step [{unit}]")
    quiet_frame(axes)
    return figure
