"""What fills the memory of a GPU: by part, by pipeline stage, and over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import (
    MARGIN,
    SMALL,
    WIDTH,
    beside,
    fitted,
    new_figure,
    place,
    quiet_frame,
    time_unit,
    widest,
)
from simulator.report.palette import ALARM, INK, QUIET, colour
from simulator.report.saved import SavedResult
from simulator.report.text import gib, grouped, part_label, subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GIB: Final = 2**30
_MOST: Final = 12
_ROW: Final = 0.32
_STAGES: Final = 1.5
_TIME: Final = 1.7
_FOOT: Final = 0.62
_MOST_LINES: Final = 6
_MOST_FIGURES: Final = 12
_HUES: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_memory(saved: SavedResult) -> Figure:
    """Memory by part at the peak, per stage where there are several, and over the measured steps.

    The figures are ``memory_by_part`` and ``memory_by_stage`` of result.json and memory.csv.
    """
    values = saved.values
    parts = grouped(values["memory_by_part"], _MOST)
    stages = [size / _GIB for size in values["memory_by_stage"]]
    heights = (
        [_ROW * (len(parts) + 1)]
        + ([_STAGES] if len(stages) > 1 else [])
        + ([_TIME] if len(saved.memory) else [])
    )
    height = 0.95 + sum(heights) + _FOOT * len(heights)
    peak, capacity = values["peak_memory_bytes"], values["memory_capacity_bytes"]
    verdict = f"{gib(peak)} of {gib(capacity)} in use at the peak"
    if not values["fits"]:
        verdict = f"Does not fit: needs {gib(peak)}, has {gib(capacity)}"
    figure = new_figure(height, verdict, f"memory of one GPU; {subject(values)}")
    labels = [fitted(figure, part_label(part), 2.4) for part, _ in parts]
    left = MARGIN + max(widest(figure, [*labels, "peak"]), 0.55) + 0.12
    room = WIDTH - left - 2 * MARGIN
    reach = room / (room - widest(figure, [gib(peak)]) - 0.2)
    bottom = height - 0.95 - heights[0]
    _waterfall(place(figure, left, bottom, room, heights[0]), parts, labels, (peak, capacity), reach)
    if len(stages) > 1:
        bottom -= _FOOT + _STAGES
        _by_stage(place(figure, left, bottom, room, _STAGES), stages, capacity / _GIB)
    if len(saved.memory):
        bottom -= _FOOT + _TIME
        _over_time(place(figure, left, bottom, room, _TIME), saved.memory, capacity / _GIB)
    return figure


def _waterfall(
    axes: Axes, parts: list[tuple[str, float]], labels: list[str], ends: tuple[int, int], reach: float
) -> None:
    (peak, capacity), begin = ends, 0.0
    starts, sizes = [], []
    for _, size in parts:
        starts.append(begin / _GIB)
        sizes.append(size / _GIB)
        begin += size
    rows = range(len(parts) + 1)
    hues = [*(colour(part) for part, _ in parts), QUIET if peak <= capacity else ALARM]
    axes.barh(rows, [*sizes, peak / _GIB], left=[*starts, 0.0], height=0.72, color=hues)
    for row, start, size in zip(rows, [*starts, 0.0], [*sizes, peak / _GIB], strict=True):
        beside(axes, gib(size * _GIB), start + size, row)
    axes.set_yticks(rows, [*labels, "peak"])
    axes.set_ylim(len(parts) + 0.5, -0.5)
    axes.set_xlim(0, max(peak * reach, capacity * 1.02) / _GIB)
    axes.axvline(capacity / _GIB, color=INK, linestyle="--", linewidth=1.1)
    top = axes.get_xaxis_transform()
    axes.annotate(
        "capacity",
        (capacity / _GIB, 1),
        (0, 3),
        xycoords=top,
        textcoords="offset points",
        ha="right",
        fontsize=SMALL,
    )
    axes.set_xlabel("memory by part [GiB]")
    quiet_frame(axes)


def _by_stage(axes: Axes, stages: list[float], capacity: float) -> None:
    hues = [ALARM if size > capacity else "#0072B2" for size in stages]
    axes.bar(range(len(stages)), stages, width=min(0.72, 0.12 * len(stages)), color=hues)
    if len(stages) <= _MOST_FIGURES:
        for stage, size in enumerate(stages):
            axes.annotate(
                f"{size:,.1f}", (stage, size), (0, 2), textcoords="offset points", ha="center", fontsize=SMALL
            )
    axes.axhline(capacity, color=INK, linestyle="--", linewidth=1.1)
    axes.set_ylim(0, max(*stages, capacity) * 1.08)
    axes.set_xlim(-0.6, len(stages) - 0.4)
    every = -(-len(stages) // 16)
    axes.set_xticks(range(0, len(stages), every))
    axes.set_xlabel("pipeline stage")
    axes.set_ylabel("peak [GiB]")
    axes.grid(axis="y")


def _over_time(axes: Axes, table: Any, capacity: float) -> None:
    first, last = float(table["time_s"].min()), float(table["time_s"].max())
    unit, scale = time_unit(last - first)
    groups = [(stage, rows) for stage, rows in table.groupby("stage", sort=True)]
    every = -(-len(groups) // _MOST_LINES)
    top = capacity
    for position, (stage, rows) in enumerate(groups[::every]):
        size = (rows["bytes"] / _GIB).tolist()
        moments = [(moment - first) * scale for moment in rows["time_s"].tolist()]
        moments.append((last - first) * scale)
        size.append(size[-1])
        top = max(top, *size)
        axes.plot(
            moments,
            size,
            drawstyle="steps-post",
            linewidth=1.2,
            color=_HUES[position],
            label=f"stage {stage}",
        )
    axes.axhline(capacity, color=INK, linestyle="--", linewidth=1.1)
    axes.set_ylim(0, top * 1.08)
    axes.set_xlim(0, max((last - first) * scale, 1e-9))
    if len(groups) > 1:
        axes.legend(loc="lower right", fontsize=SMALL, ncols=3, framealpha=0.9, edgecolor="none")
    axes.set_xlabel(f"time since the first measured step began [{unit}]")
    axes.set_ylabel("in use [GiB]")
    axes.grid(axis="y")
