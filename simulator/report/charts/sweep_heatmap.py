"""Two axes as a field of cells: a figure, or which capacity limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import MARGIN, SMALL, WIDTH, fitted, new_figure, place, text_width, widest
from simulator.report.charts.sweep_lines import best_points, wide
from simulator.report.charts.ticks import Scale, below, group_thousands, mark_decades, mark_x, mark_y
from simulator.report.palette import INK, QUIET, colour
from simulator.report.sweeps import SavedSweep, brief, others_note, value_label
from simulator.report.text import resource_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL: Final = 0.42
_LEAST: Final = 2.4
_MOST: Final = 5.6
_NOTHING: Final = {
    "does_not_fit": ("does not fit", "////"),
    "illegal": ("no legal plan", ""),
    "failed": ("failed", "xx"),
}
_GROUND: Final = "#ECECEC"

Cell = tuple[Any, Any, Any, tuple[str, ...]]
"""Value across, value up, colour, and ways to tell the cell's figure, the longest first."""


def draw_heatmap(sweep: SavedSweep, x: str, y: str, metric: str) -> tuple[Figure, pd.DataFrame]:
    """A figure over two axes, light to dark; what has no figure says why."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize

    measure = sweep.measure(metric)
    best = best_points(sweep, [x, y], metric)
    values = best[metric] * measure.scale
    scale = LogNorm if wide(values.tolist()) else Normalize
    norm = scale(*((float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)))
    shades = colormaps["cividis"]
    cells: list[Cell] = [
        (a, b, shades(norm(v)), (value_label(v, measure._replace(scale=1.0)), brief(v)))
        for a, b, v in zip(best[x], best[y], values, strict=True)
    ]
    title = f"{measure.label[:1].upper()}{measure.label[1:]}"
    figure, axes, left, width, bottom, height = _field(sweep, x, y, title, cells, side=1.0)
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(
        ScalarMappable(norm, shades), cax=place(figure, left + width + 0.2, bottom, 0.16, height)
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL)
    bar.ax.minorticks_off()
    if scale is LogNorm:
        mark_decades(bar.ax.yaxis, float(values.min()), float(values.max()))
    group_thousands(bar.ax.yaxis)
    _absent(figure, axes, sweep, x, y, best)
    return figure, best[[x, y, metric]]


def draw_bottlenecks(sweep: SavedSweep, x: str, y: str) -> tuple[Figure, pd.DataFrame]:
    """Which capacity limits most of the critical path, over two axes; the figure is its share of the path."""
    metric = sweep.metric()
    best = best_points(sweep, [x, y], metric)
    shares = [float(row.get(f"limited_by.{row['bottleneck']}", 0.0)) for _, row in best.iterrows()]
    cells: list[Cell] = [
        (a, b, colour(str(kind)), (f"{share:.0%}".replace("%", " %"), f"{share * 100:.0f}"))
        for a, b, kind, share in zip(best[x], best[y], best["bottleneck"], shares, strict=True)
    ]
    kinds = best["bottleneck"].value_counts().index.tolist()
    labels = {kind: resource_label(str(kind)) for kind in kinds}
    figure, axes, left, width, bottom, height = _field(
        sweep, x, y, "What limits the step", cells, side=2.1, note="; share of the critical path [%]"
    )
    top = bottom + height
    for row, kind in enumerate(kinds[:12]):
        spot = place(figure, left + width + 0.2, top - 0.2 - row * 0.26, 0.18, 0.16)
        spot.add_patch(_cell((0.5, 0.5), colour(str(kind))))
        spot.set_axis_off()
        words = fitted(figure, labels[kind], 1.65)
        figure.text(
            (left + width + 0.46) / WIDTH,
            (top - 0.12 - row * 0.26) / figure.get_size_inches()[1],
            words,
            fontsize=SMALL,
            va="center",
        )
    _absent(figure, axes, sweep, x, y, best)
    data = best[[x, y, "bottleneck"]].copy()
    data["share"] = shares
    return figure, data


def _field(
    sweep: SavedSweep,
    x: str,
    y: str,
    title: str,
    cells: Sequence[Cell],
    side: float,
    note: str = "",
) -> tuple[Figure, Axes, float, float, float, float]:
    """Axes with the cells drawn: figure, axes, left, width, bottom and height of the field [in]."""
    across, up = Scale(sweep, x, even=True), Scale(sweep, y, even=True)
    height = min(_MOST, max(_LEAST, _CELL * len(up.values)))
    have = {(across.at(a), up.at(b)) for a, b, *_ in cells}
    absent = any(
        (across.at(a), up.at(b)) not in have for a, b in zip(sweep.frame[x], sweep.frame[y], strict=True)
    )
    bottom = 0.95 if absent else 0.65
    whole = height + 0.8 + bottom
    others = [key for key in sweep.varying() if key not in (x, y)]
    note += others_note("the best of", others)
    figure = new_figure(whole, title, sweep.subject + note)
    room = 1.7
    names = widest(figure, [fitted(figure, label, room) for label in up.labels])
    left = MARGIN + 0.35 + names + 0.1
    width = WIDTH - left - MARGIN - side
    lower = below(figure, across, width)
    bottom, height = bottom + lower, height - lower
    axes = place(figure, left, bottom, width, height)
    for a, b, hue, _ in cells:
        axes.add_patch(_cell((across.at(a), up.at(b)), hue))
    placed = [(across.at(a), up.at(b), hue, texts) for a, b, hue, texts in cells]
    _write(figure, axes, placed, width / len(across.values), height / len(up.values))
    axes.set_xlim(-0.5, len(across.values) - 0.5)
    axes.set_ylim(-0.5, len(up.values) - 0.5)
    mark_x(figure, axes, across, width)
    mark_y(figure, axes, up, height, room)
    axes.set_xlabel(fitted(figure, across.measure.label, width))
    axes.set_ylabel(fitted(figure, up.measure.label, height))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure, axes, left, width, bottom, height


def _write(
    figure: Figure,
    axes: Axes,
    cells: Sequence[Cell],
    width: float,
    height: float,
) -> None:
    """The figure of each cell [in], in the longest way of telling it that has room in all of them."""
    if height < 0.19:
        return
    for texts in zip(*(cell[3] for cell in cells), strict=True):
        if widest(figure, list(texts)) <= width - 0.08:
            for (a, b, hue, _), text in zip(cells, texts, strict=True):
                axes.text(a, b, text, ha="center", va="center", fontsize=SMALL, color=_legible(hue))
            return


def _cell(where: tuple[float, float], hue: Any, **more: Any) -> Any:
    from matplotlib.patches import Rectangle

    corner = where[0] - 0.5, where[1] - 0.5
    return Rectangle(corner, 1, 1, facecolor=hue, edgecolor="white", linewidth=0.8, **more)


def _legible(hue: Any) -> str:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(hue)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _absent(figure: Figure, axes: Axes, sweep: SavedSweep, x: str, y: str, best: pd.DataFrame) -> None:
    """Cells without a figure: grey, with a pattern by reason and a line that explains it."""
    across, up = Scale(sweep, x, even=True), Scale(sweep, y, even=True)
    have = {(across.at(a), up.at(b)) for a, b in zip(best[x], best[y], strict=True)}
    order = list(_NOTHING)
    reasons: dict[tuple[float, float], str] = {}
    for a, b, status in zip(sweep.frame[x], sweep.frame[y], sweep.frame["status"], strict=True):
        where = across.at(a), up.at(b)
        if where not in have and status in _NOTHING:
            reasons[where] = min(reasons.get(where, status), status, key=order.index)
    for where, status in reasons.items():
        axes.add_patch(_cell(where, _GROUND, hatch=_NOTHING[status][1]))
    found = [status for status in order if status in reasons.values()]
    if not found:
        return
    bottom, left = 0.2, MARGIN
    for status in found:
        words, hatch = _NOTHING[status]
        spot = place(figure, left, bottom, 0.28, 0.16)
        spot.add_patch(_cell((0.5, 0.5), _GROUND, hatch=hatch))
        spot.set_axis_off()
        height = figure.get_size_inches()[1]
        figure.text(
            (left + 0.36) / WIDTH, (bottom + 0.08) / height, words, fontsize=SMALL, va="center", color=QUIET
        )
        left += 0.36 + text_width(figure, words) + 0.3
