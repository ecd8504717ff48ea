"""Operators under the roofs of their GPU: arithmetic intensity against the speed that they reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from simulator.report.charts.style import DPI, MARGIN, SMALL, WIDTH, fitted, new_figure, place, text_width
from simulator.report.palette import INK, QUIET, colour
from simulator.report.saved import SavedResult
from simulator.report.text import percent, shown, subject
from simulator.units import human

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT: Final = 5.6
_LIST: Final = 3.35
_NAMED: Final = 14
_TERA: Final = 1e12
_PIXEL: Final = DPI / 72
"""Pixels in a point of type."""
_ANGLES: Final = (270, 0, 300, 330, 240, 180, 210, 90, 60, 120, 30, 150)
"""Directions in which a number is tried beside its point: away from the roofs first."""

Box = tuple[float, float, float, float]
"""Left, bottom, right, top [px]."""


@dataclass(frozen=True, slots=True)
class Point:
    """An operator: FLOP per byte, TFLOP/s reached, part of the time of all operators."""

    name: str
    cause: str
    phase: str
    intensity: float
    speed: float
    share: float


def roofline_points(operators: Any) -> list[Point]:
    """Operators that compute and move bytes, the longest first."""
    whole = float(operators["time_s"].sum())
    columns = (operators[name].tolist() for name in ("name", "cause", "phase", "flops", "bytes", "time_s"))
    points = [
        Point(str(name), str(cause), str(phase), flops / size, flops / time / _TERA, time / whole)
        for name, cause, phase, flops, size, time in zip(*columns, strict=True)
        if flops > 0 and size > 0 and time > 0
    ]
    return sorted(points, key=lambda point: (-point.share, point.name, point.phase))


def draw_roofline(saved: SavedResult) -> Figure | None:
    """Operators on logarithmic axes, None where none computes; the figures are operators.csv."""
    points = roofline_points(saved.operators)
    if not points:
        return None
    table = saved.operators
    computing = table[(table["flops"] > 0) & (table["bytes"] > 0)]
    peaks = sorted({float(value) / _TERA for value in computing["peak_flops"].tolist() if value > 0})
    widths = sorted({float(value) / _TERA for value in computing["memory_bandwidth"].tolist() if value > 0})
    figure = new_figure(
        _HEIGHT, "Roofline: how close operators come to the limits of the GPU", subject(saved.values)
    )
    left, width, tall = MARGIN + 0.75, WIDTH - 0.75 - 2 * MARGIN - _LIST - 0.2, _HEIGHT - 0.65 - 0.85
    axes = place(figure, left, 0.65, width, tall)
    _scales(axes, points, peaks, widths)
    taken = _roofs(axes, peaks, widths, tall / width)
    hues = [colour(point.cause) for point in points]
    sizes = [30 + 900 * point.share for point in points]
    axes.scatter(
        [point.intensity for point in points], [point.speed for point in points], s=sizes, c=hues,
        edgecolors="white", linewidths=0.6, alpha=0.9, zorder=3,
    )  # fmt: skip
    _numbers(figure, points, sizes, taken)
    _key(figure, points, left + width + 0.3)
    return figure


def _scales(axes: Axes, points: list[Point], peaks: list[float], widths: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    ridge = [peak / width for peak in peaks for width in widths]
    reach = [point.intensity for point in points] + ridge
    speeds = [point.speed for point in points] + peaks
    axes.set_xlim(min(reach) / 4, max(4 * max(reach), 12 * max(ridge, default=0.0)))
    axes.set_ylim(min(speeds) / 4, max(speeds) * 2.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(10, numticks=8))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axes.set_xlabel("arithmetic intensity [FLOP per byte of device memory]")
    axes.set_ylabel("speed reached [TFLOP/s]")
    axes.grid()


def _roofs(axes: Axes, peaks: list[float], widths: list[float], shape: float) -> list[Box]:
    """Draw the limits with their names; the places that the names take."""
    from matplotlib.collections import LineCollection

    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    lines, labels = [], []
    for peak in peaks:
        start = min((peak / width for width in widths), default=left)
        lines.append([(start, peak), (right, peak)])
        text = f"{human(peak * _TERA, 'compute')} peak"
        labels.append(
            axes.annotate(
                text, (right, peak), (-3, 3), textcoords="offset points", ha="right", fontsize=SMALL
            )
        )
    slope = math.log10(right / left) / math.log10(high / low) * shape
    for width in widths:
        top = max(peaks, default=high)
        lines.append([(low / width, low), (top / width, top)])
        middle = math.sqrt(max(left, low / width) * min(right, top / width))
        labels.append(
            axes.annotate(
                f"{human(width * _TERA, 'bandwidth')} memory",
                (middle, middle * width),
                (-4, 4),
                textcoords="offset points",
                rotation=math.degrees(math.atan(slope)),
                rotation_mode="anchor",
                ha="center",
                fontsize=SMALL,
            )
        )
    axes.add_collection(LineCollection(lines, colors=INK, linewidths=1.2), autolim=False)
    canvas: Any = axes.figure.canvas
    extents = [label.get_window_extent(canvas.get_renderer()) for label in labels]
    return [(box.x0, box.y0, box.x1, box.y1) for box in extents] + _along(axes, lines)


def _along(axes: Axes, lines: list[list[tuple[float, float]]]) -> list[Box]:
    """Small boxes along the roofs, so that no number is written across them."""
    boxes: list[Box] = []
    for line in lines:
        (x0, y0), (x1, y1) = axes.transData.transform(line).tolist()
        pieces = max(1, int(math.hypot(x1 - x0, y1 - y0) / 8))
        for piece in range(pieces + 1):
            x, y = x0 + (x1 - x0) * piece / pieces, y0 + (y1 - y0) * piece / pieces
            boxes.append((x - 2, y - 2, x + 2, y + 2))
    return boxes


def _numbers(figure: Figure, points: list[Point], sizes: list[float], taken: list[Box]) -> None:
    """Number the points where nothing else stands, with a thin line where that is not beside the point."""
    axes = figure.axes[0]
    places = [(x, y) for x, y in axes.transData.transform([(p.intensity, p.speed) for p in points]).tolist()]
    radii = [math.sqrt(size / math.pi) * _PIXEL for size in sizes]
    boxes = [*taken]
    for (x, y), radius in zip(places, radii, strict=True):
        boxes.append((x - 0.7 * radius, y - 0.7 * radius, x + 0.7 * radius, y + 0.7 * radius))
    frame = axes.bbox
    for members in _neighbours(places[:_NAMED]):
        text = ", ".join(str(member + 1) for member in members)
        wide, tall = text_width(figure, text) * DPI + 6, 12 * _PIXEL
        (x, y), radius = places[members[0]], radii[members[0]]
        for distance, angle in ((d, a) for d in (0, 10, 22, 36, 52, 72, 96) for a in _ANGLES):
            away = radius + 3 * _PIXEL + distance * _PIXEL
            cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            cx, cy = x + (away + wide / 2) * cosine, y + (away + tall / 2) * sine
            box = (cx - wide / 2, cy - tall / 2, cx + wide / 2, cy + tall / 2)
            inside = frame.x0 < box[0] and box[2] < frame.x1 and frame.y0 < box[1] and box[3] < frame.y1
            clear = inside and not any(_overlap(box, other) for other in boxes)
            if clear and (distance or _belongs((cx, cy), members, places, radii)):
                boxes.append(box)
                _write_number(axes, text, (x, y), (cx, cy), line=distance > 0)
                break


def _belongs(
    label: tuple[float, float], members: list[int], places: list[tuple[float, float]], radii: list[float]
) -> bool:
    """Whether the eye gives a label to its own point and to no other one near it."""
    gaps = [math.dist(label, place) - radius for place, radius in zip(places, radii, strict=True)]
    own = min(gaps[member] for member in members)
    return all(gap > own + 5 * _PIXEL for index, gap in enumerate(gaps) if index not in members)


def _neighbours(places: list[tuple[float, float]]) -> list[list[int]]:
    """Points that the eye cannot tell apart, together: they share one label."""
    groups: list[list[int]] = []
    for index, (x, y) in enumerate(places):
        for group in groups:
            first = places[group[0]]
            if math.hypot(x - first[0], y - first[1]) < 6 * _PIXEL and len(group) < 4:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def _write_number(
    axes: Axes, text: str, at: tuple[float, float], to: tuple[float, float], *, line: bool
) -> None:
    offset = ((to[0] - at[0]) / _PIXEL, (to[1] - at[1]) / _PIXEL)
    data = axes.transData.inverted().transform(at)
    arrow = (
        {"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2} if line else None
    )
    axes.annotate(
        text, (float(data[0]), float(data[1])), offset, textcoords="offset points", ha="center",
        va="center", fontsize=SMALL, color=INK, arrowprops=arrow, zorder=4,
    )  # fmt: skip


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _title(point: Point) -> str:
    """Name and phase, without what goes without saying: a gradient is of the backward pass."""
    said = not point.phase or point.name.endswith("gradient")
    return point.name if said else f"{point.name}, {point.phase}"


def _key(figure: Figure, points: list[Point], left: float) -> None:
    """The list of the numbered operators, with their part of the time of all operators."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    up = height - 0.95
    figure.text((left + 0.42) / width, up / height, "operator", fontsize=SMALL, color=QUIET, va="center")
    figure.text(1 - MARGIN / width, up / height, "time", fontsize=SMALL, color=QUIET, ha="right", va="center")
    for number, point in enumerate(points[:_NAMED], start=1):
        up -= 0.255
        dot = Line2D(
            [(left + 0.32) / width],
            [up / height],
            marker="o",
            markersize=6,
            color=colour(point.cause),
            transform=figure.transFigure,
        )
        figure.add_artist(dot)
        name = fitted(figure, shown(_title(point), 80), _LIST - 1.15)
        figure.text((left + 0.2) / width, up / height, str(number), fontsize=SMALL, va="center", ha="right")
        figure.text((left + 0.42) / width, up / height, name, fontsize=SMALL, va="center")
        figure.text(
            1 - MARGIN / width, up / height, percent(point.share), fontsize=SMALL, va="center", ha="right"
        )
    if len(points) > _NAMED:
        up -= 0.255
        rest = f"and {len(points) - _NAMED} more, not numbered"
        figure.text((left + 0.42) / width, up / height, rest, fontsize=SMALL, va="center", color=QUIET)
