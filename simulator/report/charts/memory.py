"""What fills the memory of a GPU: by part, by pipeline stage, and over time."""

from __future__ import annotations

from dataclasses import dataclass
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

_UNITS: Final = (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0))
_FAR: Final = 50
"""A capacity this many times the peak is not drawn: the parts would be too small to see."""
_MOST: Final = 12
_ROW: Final = 0.32
_STAGES: Final = 1.5
_TIME: Final = 1.7
_FOOT: Final = 0.62
_LEGEND: Final = 0.28
_MOST_FIGURES: Final = 12
_HUES: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHED: Final[dict[str, Any]] = {"color": INK, "linestyle": "--", "linewidth": 1.1}


@dataclass(frozen=True, slots=True)
class _Scale:
    """The unit of all axes, the capacity in it, and whether the capacity is near enough to be drawn."""

    unit: str
    size: float
    capacity: float
    drawn: bool


def draw_memory(saved: SavedResult) -> Figure:
    """Memory by part at the peak, per stage where there are several, and over the whole run.

    The figures are ``memory_by_part`` and ``memory_by_stage`` of result.json and memory.csv.
    """
    values = saved.values
    parts = grouped(values["memory_by_part"], _MOST)
    stages = values["memory_by_stage"]
    many = saved.memory["stage"].nunique() > 1
    panels = [_ROW * (len(parts) + 1)]
    panels += [_STAGES] if len(stages) > 1 else []
    panels += [_TIME + _LEGEND * many] if len(saved.memory) else []
    height = 0.95 + sum(panels) + _FOOT * len(panels)
    peak, capacity = values["peak_memory_bytes"], values["memory_capacity_bytes"]
    verdict = f"{gib(peak)} of {gib(capacity)} in use at the peak"
    if peak > capacity:
        verdict = f"Does not fit: needs {gib(peak)}, has {gib(capacity)}"
    figure = new_figure(height, verdict, f"memory of one GPU; {subject(values)}")
    labels = [fitted(figure, part_label(part), 2.4) for part, _ in parts]
    left = MARGIN + max(widest(figure, [*labels, "peak"]), 0.55) + 0.12
    room = WIDTH - left - 2 * MARGIN
    reach = room / (room - widest(figure, [gib(peak)]) - 0.2)
    scale = _scale(peak, capacity)
    bottom = height - 0.95 - panels[0]
    _waterfall(place(figure, left, bottom, room, panels[0]), parts, labels, peak / scale.size, scale, reach)
    if len(stages) > 1:
        bottom -= _FOOT + _STAGES
        _by_stage(place(figure, left, bottom, room, _STAGES), [size / scale.size for size in stages], scale)
    if len(saved.memory):
        bottom -= _FOOT + panels[-1]
        _over_time(place(figure, left, bottom, room, _TIME), saved.memory, scale)
    return figure


def _scale(peak: int, capacity: int) -> _Scale:
    near = peak * _FAR > capacity
    reach = max(peak, capacity) if near else max(peak, 1)
    unit, size = next(((unit, size) for unit, size in _UNITS if reach >= 2 * size), _UNITS[-1])
    return _Scale(unit, size, capacity / size, near)


def _waterfall(
    axes: Axes, parts: list[tuple[str, float]], labels: list[str], peak: float, scale: _Scale, reach: float
) -> None:
    begin, starts, sizes = 0.0, [], []
    for _, size in parts:
        starts.append(begin)
        sizes.append(size / scale.size)
        begin += size / scale.size
    rows = range(len(parts) + 1)
    hues = [*(colour(part) for part, _ in parts), QUIET if peak <= scale.capacity else ALARM]
    axes.barh(rows, [*sizes, peak], left=[*starts, 0.0], height=0.72, color=hues)
    for row, start, size in zip(rows, [*starts, 0.0], [*sizes, peak], strict=True):
        beside(axes, gib(size * scale.size), start + size, row)
    axes.set_yticks(rows, [*labels, "peak"])
    axes.set_ylim(len(parts) + 0.5, -0.5)
    axes.set_xlim(0, max(peak * reach, scale.capacity * 1.02 if scale.drawn else 0.0, 1e-9))
    if scale.drawn:
        axes.axvline(scale.capacity, **_DASHED)
        at, frame = (scale.capacity, 1), axes.get_xaxis_transform()
        axes.annotate(
            "capacity", at, (0, 3), xycoords=frame, textcoords="offset points", ha="right", fontsize=SMALL
        )
    axes.set_xlabel(f"memory by part [{scale.unit}]")
    quiet_frame(axes)


def _by_stage(axes: Axes, stages: list[float], scale: _Scale) -> None:
    hues = [ALARM if size > scale.capacity else _HUES[0] for size in stages]
    axes.bar(range(len(stages)), stages, width=min(0.72, 0.12 * len(stages)), color=hues)
    if len(stages) <= _MOST_FIGURES:
        for stage, size in enumerate(stages):
            at = (stage, size)
            axes.annotate(f"{size:,.1f}", at, (0, 2), textcoords="offset points", ha="center", fontsize=SMALL)
    _up_to_capacity(axes, max(stages), scale)
    axes.set_xlim(-0.6, len(stages) - 0.4)
    every = -(-len(stages) // 16)
    axes.set_xticks(range(0, len(stages), every))
    axes.set_xlabel("pipeline stage")
    axes.set_ylabel(f"peak [{scale.unit}]")


def _over_time(axes: Axes, table: Any, scale: _Scale) -> None:
    first, last = 0.0, float(table["time_s"].max())
    unit, per_second = time_unit(last - first)
    alike: dict[bytes, tuple[list[str], Any]] = {}  # two ends of a pipeline may do the same at the same time
    for stage, rows in table.groupby("stage", sort=True):
        key = rows[["time_s", "bytes"]].to_numpy(float).tobytes()
        alike.setdefault(key, ([], rows))[0].append(str(stage))
    groups = list(alike.values())
    every = -(-len(groups) // len(_HUES))
    top = 0.0
    for hue, (stages, rows) in zip(_HUES, groups[::every], strict=False):
        size = (rows["bytes"] / scale.size).tolist()
        moments = [(moment - first) * per_second for moment in rows["time_s"].tolist()]
        moments.append((last - first) * per_second)
        size.append(size[-1])
        top = max(top, *size)
        axes.plot(moments, size, drawstyle="steps-post", linewidth=1.2, color=hue, label=_label(stages))
    _up_to_capacity(axes, top, scale)
    axes.set_xlim(0, max((last - first) * per_second, 1e-9))
    if len(groups) > 1 or len(groups[0][0]) > 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(_HUES), fontsize=SMALL, frameon=False,
            borderaxespad=0.1, borderpad=0.1, handlelength=1.5, columnspacing=1.5,
        )  # fmt: skip
    axes.set_xlabel(f"simulated time, warm-up included [{unit}]")
    axes.set_ylabel(f"in use [{scale.unit}]")


def _label(stages: list[str]) -> str:
    if len(stages) == 1:
        return f"stage {stages[0]}"
    return "stages " + ", ".join(stages if len(stages) <= 2 else [stages[0], stages[1], "..."])


def _up_to_capacity(axes: Axes, top: float, scale: _Scale) -> None:
    if scale.drawn:
        axes.axhline(scale.capacity, **_DASHED)
        top = max(top, scale.capacity)
    axes.set_ylim(0, max(top, 1e-9) * 1.12)
    axes.grid(axis="y")
