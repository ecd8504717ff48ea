"""The whole training: where its time goes, and what another interval between checkpoints would do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from simulator.campaign import PARTS
from simulator.report.charts.style import (
    BODY,
    MARGIN,
    SMALL,
    WIDTH,
    beside,
    new_figure,
    place,
    quiet_frame,
    widest,
)
from simulator.report.palette import ALARM, INK, QUIET, colour
from simulator.report.saved import SavedResult
from simulator.report.text import campaign_label, percent, subject
from simulator.units import human

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW: Final = 0.32
_CURVE: Final = 3.1
"""Height of the lower panel with its labels [in]."""
_UNITS: Final = (("y", 365 * 86400.0), ("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
_NAMES: Final = {"y": "years", "d": "days", "h": "hours", "min": "minutes", "s": "s"}


def draw_campaign(saved: SavedResult) -> Figure | None:
    """A bar a part of the mean time; below, goodput over the interval. ``campaign`` of result.json."""
    campaign = saved.values.get("campaign")
    if not campaign:
        return None
    parts = [(part, campaign["parts"][part]) for part in PARTS if campaign["parts"].get(part)]
    curve = _CURVE if len(campaign["intervals"]) > 1 else 0.0
    bars = _ROW * len(parts)
    height = 0.75 + bars + 0.65 + curve
    took = human(campaign["mean_s"], "duration")
    title = f"Where {took} go that train {campaign['steps']:,} steps"
    figure = new_figure(height, title, subject(saved.values))
    labels = [campaign_label(part) for part, _ in parts]
    figures = [f"{human(time, 'duration')}   {percent(time / campaign['mean_s'])}" for _, time in parts]
    left = MARGIN + widest(figure, labels) + 0.12
    axes = place(figure, left, 0.6 + curve, WIDTH - left - MARGIN - widest(figure, figures) - 0.15, bars)
    _bars(axes, parts, labels, figures)
    if curve:
        _intervals(place(figure, left, 0.6, WIDTH - left - MARGIN - 0.3, curve - 1.15), campaign)
    return figure


def _bars(axes: Axes, parts: list[tuple[str, float]], labels: list[str], figures: list[str]) -> None:
    longest = max(time for _, time in parts)
    unit, scale = next((unit for unit in _UNITS if longest >= 2 * unit[1]), _UNITS[-1])
    rows = range(len(parts))
    lengths = [time / scale for _, time in parts]
    axes.barh(rows, lengths, height=0.72, color=[colour(part) for part, _ in parts])
    for row, text, length in zip(rows, figures, lengths, strict=True):
        beside(axes, text, length, row)
    axes.set_yticks(rows, labels)
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set_xlim(0, longest / scale)
    axes.set_xlabel(f"mean time of the whole training [{_NAMES[unit]}]")
    quiet_frame(axes)


def _intervals(axes: Axes, campaign: Mapping[str, Any]) -> None:
    points = campaign["intervals"]
    axes.plot([p["interval"] for p in points], [100 * p["goodput"] for p in points], color=INK, lw=1.6)
    marks = {
        campaign["interval"]: ("as given", ALARM, "s"),
        campaign["best_interval"]: ("best", "#009E73", "o"),
    }
    if campaign["interval"] == campaign["best_interval"]:
        marks = {campaign["interval"]: ("as given, and best", "#009E73", "o")}
    for point in points:
        if point["interval"] in marks:
            words, hue, marker = marks[point["interval"]]
            said = f"{words}: {point['interval']:,} steps, {percent(point['goodput'])}"
            axes.plot(
                [point["interval"]], [100 * point["goodput"]], marker, color=hue, ms=8, label=said, ls="none"
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps:,.0f}")
    axes.set_xlabel("steps between checkpoints")
    axes.set_ylabel("goodput [%]")
    axes.set_title("What another interval between checkpoints would do", loc="left", fontsize=BODY)
    axes.grid(axis="both")
    axes.tick_params(which="minor", labelbottom=False)
    axes.legend(loc="lower center", fontsize=SMALL, frameon=True, framealpha=1.0, edgecolor=QUIET)
