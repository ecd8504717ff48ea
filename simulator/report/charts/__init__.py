"""The charts of a result, each a pure function of what its folder holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from simulator.report.charts.breakdown import draw_breakdown
from simulator.report.charts.campaign import draw_campaign
from simulator.report.charts.memory import draw_memory
from simulator.report.charts.pipeline import draw_pipeline
from simulator.report.charts.roofline import draw_roofline
from simulator.report.charts.style import house_style, pictures
from simulator.report.charts.utilization import draw_utilization
from simulator.report.saved import SavedResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CHARTS", "rendered"]

CHARTS: dict[str, Callable[[SavedResult], Figure | None]] = {
    "breakdown": draw_breakdown,
    "utilization": draw_utilization,
    "memory": draw_memory,
    "roofline": draw_roofline,
    "pipeline": draw_pipeline,
    "campaign": draw_campaign,
}
"""Name of each chart -> what draws it; None where the result has nothing to show."""


def rendered(saved: SavedResult) -> Iterator[tuple[str, bytes]]:
    """File name and content of every chart of a result, PNG and SVG each."""
    files: list[tuple[str, bytes]] = []
    # Once for all: to set and check matplotlib's three hundred settings takes as long as to draw a chart.
    with house_style():
        for name, draw in CHARTS.items():
            figure = draw(saved)
            if figure is not None:
                files += pictures(figure, name)
    yield from files
