"""The pipeline as a Gantt chart: which stage works on which micro-batch when, and when it idles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import MARGIN, SMALL, WIDTH, new_figure, place, text_width, time_unit
from simulator.report.palette import BACKWARD, FORWARD, IDLE, INK, QUIET, colour
from simulator.report.saved import SavedResult
from simulator.report.text import percent, subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PHASES: Final = {
    "forward": (FORWARD, "forward", INK),
    "backward": (BACKWARD, "backward", "white"),
    "optimizer": (colour("compute.optimizer"), "optimizer", INK),
}
_OTHER: Final = (colour("data"), "other work", INK)

_GAP: Final = 0.005
"""Part of the step from which on a gap between kernels of no micro-batch (the optimizer's) is shown."""
_SIZES: Final = (SMALL, 7.5, 6)
_LEGIBLE: Final = 0.2
"""Height of a row from which on numbers fit into it [in]."""


@dataclass(frozen=True, slots=True)
class Bar:
    """An unbroken stretch of one stage's work on one micro-batch in one direction, in seconds."""

    stage: int
    micro_batch: int
    phase: str
    start_s: float
    end_s: float


def pipeline_bars(activities: Any) -> list[Bar]:
    """The passes of the last step, by stage: neighbouring kernels of one micro-batch and way as one bar.

    What is recomputed belongs to the backward pass that needs it. Of a stage whose ranks are simulated
    one by one the first is shown.
    """
    computing = activities["cause"].str.startswith("compute") | (activities["cause"] == "optimizer")
    work = activities[computing & (activities["stage"] >= 0) & (activities["end_s"] > activities["start_s"])]
    work = work[work["step"] == work["step"].max()]
    owners = work.groupby("stage")["owner"].first()
    work = work[work["owner"] == work["stage"].map(owners)].sort_values(["stage", "start_s", "id"])
    shortest = _GAP * (work["end_s"].max() - work["start_s"].min()) if len(work) else 0.0
    bars: list[Bar] = []
    columns = (work[name].tolist() for name in ("stage", "micro_batch", "phase", "start_s", "end_s"))
    for stage, micro_batch, phase, start, end in zip(*columns, strict=True):
        phase = "backward" if phase == "recompute" else phase
        last = bars[-1] if bars else None
        same = last is not None and (last.stage, last.micro_batch, last.phase) == (stage, micro_batch, phase)
        if last and same and (micro_batch >= 0 or start - last.end_s <= shortest):
            bars[-1] = Bar(last.stage, last.micro_batch, phase, last.start_s, max(last.end_s, end))
        else:
            bars.append(Bar(int(stage), int(micro_batch), str(phase), start, end))
    return bars


def step_end(activities: Any) -> float:
    """When the last step is over: its last kernel, update or exchange, not samples for later ones [s]."""
    ends = activities["cause"].str.startswith(("compute", "communication", "optimizer", "offload"))
    last = activities["step"] == activities.loc[ends, "step"].max()
    return float(activities.loc[ends & last, "end_s"].max())


def draw_pipeline(saved: SavedResult) -> Figure | None:
    """The last step of a pipelined plan, None where there is no pipeline; the figures are activities.csv."""
    bars = pipeline_bars(saved.activities)
    stages = sorted({bar.stage for bar in bars})
    if len(stages) < 2:
        return None
    from matplotlib.collections import PolyCollection

    row = {stage: position for position, stage in enumerate(stages)}
    begin, end = min(bar.start_s for bar in bars), step_end(saved.activities)
    unit, scale = time_unit(end - begin)
    band = min(0.5, max(0.12, 6.0 / len(stages)))
    height = 1.05 + band * len(stages) + 0.65
    idle = 1 - sum(bar.end_s - bar.start_s for bar in bars) / ((end - begin) * len(stages))
    title = f"The pipeline: the stages idle {percent(idle)} of the step"
    left = MARGIN + 0.62
    room = WIDTH - left - MARGIN - 0.1
    figure = new_figure(height, title, f"last step; numbers are micro-batches; {subject(saved.values)}")
    sizes = _type_sizes(figure, bars, room / (end - begin)) if band >= _LEGIBLE else {}
    if not sizes:
        figure = new_figure(height, title, f"last step; {subject(saved.values)}")
    axes = place(figure, left, 0.6, room, band * len(stages))
    span = (end - begin) * scale
    ground = [_box(0, span, position) for position in range(len(stages))]
    axes.add_collection(PolyCollection(ground, facecolors=IDLE, linewidths=0))
    boxes = [_box((bar.start_s - begin) * scale, (bar.end_s - begin) * scale, row[bar.stage]) for bar in bars]
    looks = [_PHASES.get(bar.phase, _OTHER) for bar in bars]
    narrow = len(bars) > 400
    axes.add_collection(
        PolyCollection(
            boxes,
            facecolors=[look[0] for look in looks],
            edgecolors="white",
            linewidths=0.0 if narrow else 0.6,
        )
    )
    axes.set_xlim(0, span)
    axes.set_ylim(len(stages), 0)
    _number(axes, bars, row, scale, sizes)
    every = -(-len(stages) // 32)
    axes.set_yticks(
        [position + 0.5 for position in range(0, len(stages), every)],
        [str(stage) for stage in stages[::every]],
    )
    axes.set_ylabel("pipeline stage")
    axes.set_xlabel(f"time since the step began [{unit}]")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    present = [look for look in (*_PHASES.values(), _OTHER) if look in looks]
    entries = {name: hue for hue, name, _ in present} | {"idle (bubble, waits)": IDLE}
    _legend(figure, entries, left, height - 0.88)
    return figure


def _box(start: float, end: float, row: int) -> list[tuple[float, float]]:
    return [(start, row + 0.06), (end, row + 0.06), (end, row + 0.94), (start, row + 0.94)]


def _type_sizes(figure: Figure, bars: list[Bar], inches_per_second: float) -> dict[str, float]:
    """Phases whose bars are wide enough for their numbers -> the largest type in which nearly all fit."""
    sizes: dict[str, float] = {}
    for phase in {bar.phase for bar in bars if bar.micro_batch >= 0}:
        mine = [bar for bar in bars if bar.phase == phase and bar.micro_batch >= 0]
        digits = len(str(max(bar.micro_batch for bar in mine)))
        lengths = sorted((bar.end_s - bar.start_s) * inches_per_second for bar in mine)
        narrow = lengths[len(lengths) // 20]
        fitting = [size for size in _SIZES if text_width(figure, "0" * digits, size) + 0.03 <= narrow]
        if fitting:
            sizes[phase] = fitting[0]
    return sizes


def _number(axes: Axes, bars: list[Bar], row: dict[int, int], scale: float, sizes: dict[str, float]) -> None:
    """Write the number of its micro-batch into every bar of the phases that have room for it."""
    begin = min(bar.start_s for bar in bars)
    for bar in bars:
        if bar.micro_batch >= 0 and bar.phase in sizes:
            middle = ((bar.start_s + bar.end_s) / 2 - begin) * scale
            axes.text(
                middle, row[bar.stage] + 0.5, str(bar.micro_batch), ha="center", va="center_baseline",
                fontsize=sizes[bar.phase], color=_PHASES.get(bar.phase, _OTHER)[2],
            )  # fmt: skip


def _legend(figure: Figure, entries: dict[str, str], left: float, up: float) -> None:
    """Coloured squares with their meaning in one line above the chart."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    for name, hue in entries.items():
        square = Rectangle(
            (left / width, up / height),
            0.14 / width,
            0.14 / height,
            facecolor=hue,
            transform=figure.transFigure,
        )
        figure.add_artist(square)
        figure.text(
            (left + 0.2) / width, (up + 0.02) / height, name, fontsize=SMALL, color=QUIET, va="bottom"
        )
        left += 0.2 + text_width(figure, name) + 0.25
