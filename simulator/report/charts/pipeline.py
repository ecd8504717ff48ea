"""The pipeline as a Gantt chart: which stage works on which micro-batch when, and when it idles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import MARGIN, SMALL, WIDTH, new_figure, place, text_width, time_unit
from simulator.report.palette import BACKWARD, FORWARD, IDLE, INK, QUIET, colour
from simulator.report.saved import SavedResult
from simulator.report.text import percent, subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PHASES: Final = {
    "forward": (FORWARD, "forward", INK),
    "backward": (BACKWARD, "backward", "white"),
    "optimizer": (colour("compute.optimizer"), "optimizer", INK),
}
_OTHER: Final = (colour("data"), "other work", INK)

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
    bars: list[Bar] = []
    columns = (work[name].tolist() for name in ("stage", "micro_batch", "phase", "start_s", "end_s"))
    for stage, micro_batch, phase, start, end in zip(*columns, strict=True):
        phase = "backward" if phase == "recompute" else phase
        last = bars[-1] if bars else None
        if last and (last.stage, last.micro_batch, last.phase) == (stage, micro_batch, phase):
            bars[-1] = Bar(last.stage, last.micro_batch, phase, last.start_s, max(last.end_s, end))
        else:
            bars.append(Bar(int(stage), int(micro_batch), str(phase), start, end))
    return bars


def draw_pipeline(saved: SavedResult) -> Figure | None:
    """The last step of a pipelined plan, None where there is no pipeline; the figures are activities.csv."""
    bars = pipeline_bars(saved.activities)
    stages = sorted({bar.stage for bar in bars})
    if len(stages) < 2:
        return None
    from matplotlib.collections import PolyCollection

    row = {stage: position for position, stage in enumerate(stages)}
    begin, end = min(bar.start_s for bar in bars), max(bar.end_s for bar in bars)
    unit, scale = time_unit(end - begin)
    band = min(0.5, max(0.12, 6.0 / len(stages)))
    height = 1.05 + band * len(stages) + 0.65
    idle = 1 - sum(bar.end_s - bar.start_s for bar in bars) / ((end - begin) * len(stages))
    title = f"The pipeline: the stages idle {percent(idle)} of the step"
    numbered = band >= _LEGIBLE
    detail = "numbers are micro-batches; " if numbered else ""
    figure = new_figure(height, title, f"last step; {detail}{subject(saved.values)}")
    left = MARGIN + 0.62
    axes = place(figure, left, 0.6, WIDTH - left - MARGIN - 0.1, band * len(stages))
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
    if numbered:
        _number(figure, axes, bars, row, begin, scale, (WIDTH - left - MARGIN - 0.1) / span)
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


def _number(
    figure: Figure, axes: Any, bars: list[Bar], row: dict[int, int], begin: float, scale: float, inches: float
) -> None:
    """Write the number of its micro-batch into every bar that is wide enough for it."""
    widths = {digits: text_width(figure, "0" * digits) + 0.05 for digits in range(1, 7)}
    for bar in bars:
        text = str(bar.micro_batch)
        length = (bar.end_s - bar.start_s) * scale
        if bar.micro_batch >= 0 and length * inches >= widths[len(text)]:
            middle = (bar.start_s - begin) * scale + length / 2
            ink = _PHASES.get(bar.phase, _OTHER)[2]
            axes.text(middle, row[bar.stage] + 0.5, text, ha="center", va="center", fontsize=SMALL, color=ink)


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
