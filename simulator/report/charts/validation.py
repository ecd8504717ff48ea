"""Predicted against measured, a panel a file: what lies on the diagonal was predicted right."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import DPI, SMALL, house_style
from simulator.report.text import shown

if TYPE_CHECKING:
    from simulator.measurements import MetricScore, Validation

_COLUMNS: Final = 3
_SIDE: Final = 3.6
_MOST_NAMED: Final = 6
_CYCLE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_OTHERS: Final = "#9A9A9A"
_BAND: Final = 0.2
"""Error that the grey band along the diagonal stands for."""


def draw_validation(files: Sequence[Validation]) -> bytes:
    """The chart as PNG; the groups that are furthest off have colours, all others are grey."""
    from matplotlib.figure import Figure

    panels = [(each, score) for each in files for score in each.metrics if score.points]
    rows = max(1, math.ceil(len(panels) / _COLUMNS))
    with house_style():
        figure = Figure(figsize=(_SIDE * _COLUMNS, _SIDE * rows), facecolor="white")
        figure.subplots_adjust(
            left=0.085, right=0.98, bottom=0.45 / (_SIDE * rows), top=1 - 0.45 / (_SIDE * rows)
        )
        figure.subplots_adjust(wspace=0.3, hspace=0.42)
        for place, (validation, score) in enumerate(panels):
            _panel(figure.add_subplot(rows, _COLUMNS, place + 1), validation, score)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def _panel(axes: Any, validation: Validation, score: MetricScore) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = [each for point in score.points for each in (point.measured, point.predicted)]
    low, high = min(values) / 1.3, max(values) * 1.3
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.fill_between(
        [low, high],
        [low * (1 - _BAND), high * (1 - _BAND)],
        [low * (1 + _BAND), high * (1 + _BAND)],
        color="#EDEDED",
        linewidth=0,
    )
    axes.plot([low, high], [low, high], color="#6B6B6B", linewidth=0.8)
    named = [group.name for group in score.groups if group.mape is not None][:_MOST_NAMED]
    _points(axes, score, None, named)
    for name in reversed(named):
        _points(axes, score, name, named)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    for axis in (axes.xaxis, axes.yaxis):
        # Powers of ten would be set as formulas, which the house's style does not parse.
        axis.set_major_locator(LogLocator(10.0, numticks=7))
        axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_title(f"{validation.kind}\n{score.metric.name}", fontsize=SMALL, loc="left")
    axes.set_xlabel(f"measured [{score.metric.unit}]", fontsize=SMALL)
    axes.set_ylabel(f"predicted [{score.metric.unit}]", fontsize=SMALL)
    axes.legend(fontsize=6, frameon=False, loc="upper left", handletextpad=0.1, labelspacing=0.25)


def _points(axes: Any, score: MetricScore, name: str | None, named: Sequence[str]) -> None:
    chosen = [point for point in score.points if (point.group == name if name else point.group not in named)]
    if not chosen:
        return
    errors = {group.name: group.mape for group in score.groups}
    error = errors.get(name) if name else None
    axes.plot(
        [point.measured for point in chosen],
        [point.predicted for point in chosen],
        "o",
        markersize=2.2,
        markeredgewidth=0,
        alpha=0.7,
        color=_CYCLE[named.index(name)] if name else _OTHERS,
        label=f"{shown(name, 34)} {error:.0%}" if name and error is not None else "others",
    )
