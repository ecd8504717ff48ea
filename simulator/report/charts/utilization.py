"""Use of every kind of capacity over the measured steps: a band a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import (
    BODY,
    MARGIN,
    SMALL,
    WIDTH,
    fitted,
    new_figure,
    place,
    text_width,
    time_unit,
    widest,
)
from simulator.report.palette import INK, QUIET, colour
from simulator.report.saved import SavedResult
from simulator.report.text import percent, resource_label, subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BAND: Final = 0.52
_LONGEST_LABEL: Final = 2.4
_MOST: Final = 24
_FLOOR: Final = 0.96
_REACH: Final = 0.86
_GROUND: Final = "#F1F1F1"


def draw_utilization(saved: SavedResult) -> Figure:
    """Utilisation of each kind over time, 0 to 100 % within its band; the figures are utilization.csv."""
    from matplotlib.collections import LineCollection, PolyCollection

    bands = _bands(saved.utilization)
    means = {kind: sum(use) / len(use) for kind, (_, use) in bands.items()}
    mean = means | {kind: use for kind, use in saved.values["utilization"].items() if kind in bands}
    kinds = sorted(bands, key=lambda kind: (-mean[kind], kind))[:_MOST]
    times = next(iter(bands.values()))[0] if bands else [0.0, 1.0]
    unit, scale = time_unit(times[-1] - times[0])
    height = 0.95 + _BAND * max(1, len(kinds)) + 0.65
    figure = new_figure(height, "How busy every kind of capacity is", subject(saved.values))
    labels = [fitted(figure, resource_label(kind), _LONGEST_LABEL) for kind in kinds]
    left = MARGIN + widest(figure, labels) + 0.12
    right = text_width(figure, "100.0 %", BODY) + 0.2
    axes = place(figure, left, 0.6, WIDTH - left - MARGIN - right, _BAND * max(1, len(kinds)))
    outlines, tops, grounds = [], [], []
    end = (times[-1] - times[0]) * scale
    for row, kind in enumerate(kinds):
        moments, use = bands[kind]
        points = _stairs([(moment - times[0]) * scale for moment in moments], use, row)
        floor = row + _FLOOR
        outlines.append([(points[0][0], floor), *points, (points[-1][0], floor)])
        tops.append(points)
        grounds.append([(0.0, floor), (end, floor), (end, floor - _REACH), (0.0, floor - _REACH)])
        axes.text(
            1.02,
            row + 0.5,
            percent(mean[kind]),
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=BODY,
        )
    hues = [colour(kind) for kind in kinds]
    axes.add_collection(PolyCollection(grounds, facecolors=_GROUND, linewidths=0))
    axes.add_collection(PolyCollection(outlines, facecolors=hues, alpha=0.75, linewidths=0))
    axes.add_collection(LineCollection(tops, colors=hues, linewidths=0.9))
    axes.text(
        1.02, -0.22, "mean", transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL, color=QUIET
    )
    axes.set_yticks([row + 0.5 for row in range(len(kinds))], labels)
    axes.set_ylim(max(1, len(kinds)), 0)
    axes.set_xlim(0, end)
    axes.set_xlabel(
        f"time since the first measured step began [{unit}]; a band reaches from 0 to 100 %", color=INK
    )
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _bands(table: Any) -> dict[str, tuple[list[float], list[float]]]:
    """Kind -> edges of the intervals (one more than values) and the values."""
    bands = {}
    for kind, rows in table.groupby("kind", sort=True):
        moments, use = rows["time_s"].tolist(), rows["utilization"].tolist()
        width = moments[1] - moments[0] if len(moments) > 1 else 1.0
        bands[str(kind)] = ([*moments, moments[-1] + width], use)
    return bands


def _stairs(edges: list[float], use: list[float], row: int) -> list[tuple[float, float]]:
    """The outline of a band: y grows downward, so full use is `_REACH` above the floor of its row."""
    points = []
    for position, value in enumerate(use):
        level = row + _FLOOR - _REACH * min(max(value, 0.0), 1.0)
        points += [(edges[position], level), (edges[position + 1], level)]
    return points
