"""Scaling: throughput of a GPU relative to the smallest cluster, against GPUs, with the ideal line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import MARGIN, SMALL, WIDTH, fitted, new_figure, place, widest
from simulator.report.charts.sweep_lines import best_points
from simulator.report.charts.ticks import DASHES, HUES, MARKERS, Scale, mark_x
from simulator.report.palette import QUIET
from simulator.report.sweeps import SavedSweep

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_HEIGHT: Final = 4.6


def draw_scaling(sweep: SavedSweep, by: str | None) -> tuple[Figure, pd.DataFrame] | None:
    """Efficiency against GPUs, a line for each value of an axis; None with fewer than two sizes."""
    import pandas as pd

    frame = sweep.frame.dropna(subset=["samples_per_s", "num_gpus"])
    if frame["num_gpus"].nunique() < 2:
        return None
    keys = ["num_gpus"] if by is None else ["num_gpus", by]
    best = best_points(sweep, keys, "samples_per_s").copy()
    best["per_gpu"] = best["samples_per_s"] / best["num_gpus"]
    scale = Scale(sweep, "num_gpus")
    series: list[tuple[str, Any]] = [("", None)]
    if by is not None:
        values = Scale(sweep, by, even=True)
        series = list(zip(values.labels, values.values, strict=True))[: len(HUES)]
    figure = new_figure(
        _HEIGHT, "Scaling efficiency", f"{sweep.subject}; relative to each line's fewest GPUs"
    )
    labels = [fitted(figure, label, 1.9) for label, _ in series]
    heading = fitted(figure, sweep.measure(by).label, 2.3) if by else ""
    side = widest(figure, [*labels, heading, "ideal"]) + 0.55
    left, width = MARGIN + 0.95, WIDTH - 2 * MARGIN - 0.95 - side
    axes = place(figure, left, 0.65, width, _HEIGHT - 0.65 - 0.8)
    ideal = axes.axhline(100.0, color=QUIET, linewidth=1.2, linestyle=(0, (2, 2)))
    lines, rows = [], []
    for number, (label, value) in enumerate(series):
        mine = best if by is None else best[best[by].isna() if value is None else best[by] == value]
        if mine.empty:
            continue
        mine = mine.sort_values("num_gpus")
        efficiency = mine["per_gpu"] / mine["per_gpu"].iloc[0] * 100
        (line,) = axes.plot(
            mine["num_gpus"],
            efficiency,
            color=HUES[number % len(HUES)],
            linestyle=DASHES[number // 2 % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            linewidth=1.8,
        )
        lines.append((line, labels[number]))
        rows += [(label, g, e) for g, e in zip(mine["num_gpus"], efficiency, strict=True)]
    axes.grid(axis="y")
    axes.set_ylim(0, max([105.0, *(row[2] * 1.05 for row in rows)]))
    axes.set_xlabel("GPUs")
    axes.set_ylabel("throughput per GPU [%]")
    mark_x(figure, axes, scale, width, width / 22 * 1.0)
    legend = axes.legend(
        [ideal, *(line for line, label in lines if label)],
        ["ideal", *(label for _, label in lines if label)],
        title=heading or None,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.02),
        frameon=False,
        fontsize=SMALL,
        title_fontsize=SMALL,
        alignment="left",
        handlelength=2.4,
    )
    legend.get_title().set_color(QUIET)
    return figure, pd.DataFrame(rows, columns=[by or "all", "num_gpus", "efficiency_percent"])
