"""Which charts a sweep gets: chosen from its axes, or asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from simulator.errors import ClustersimError
from simulator.report.charts.style import house_style, pictures
from simulator.report.charts.sweep_heatmap import draw_bottlenecks, draw_heatmap
from simulator.report.charts.sweep_lines import draw_lines
from simulator.report.charts.sweep_pareto import cost_of, draw_pareto
from simulator.report.charts.sweep_scaling import draw_scaling
from simulator.report.charts.sweep_scatter import draw_influences, draw_scatter
from simulator.report.charts.sweep_stack import draw_stack
from simulator.report.charts.ticks import HUES
from simulator.report.sweeps import SavedSweep
from simulator.report.tables import to_csv

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

KINDS: Final = ("line", "bar", "heatmap", "bottleneck", "stack", "scatter", "pareto", "scaling", "influence")
"""Kinds of chart that can be asked for."""

DEFAULT: Final = ("lines", "heatmap", "bottlenecks", "breakdown", "scaling", "pareto", "influence")
"""Names of the charts that follow from the axes."""

_WITHOUT: Final = {
    "scatter": ("by",),
    "pareto": ("by",),
    "stack": ("y", "by"),
    "scaling": ("x", "y"),
    "bottleneck": ("y",),
    "influence": ("x", "by"),
}
"""What cannot be chosen of a kind."""

_MOST_CELLS: Final = 60
Chart = tuple["Figure", "pd.DataFrame"]


def sweep_charts(sweep: SavedSweep, wanted: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """File name and content of every chart of a sweep: PNG, SVG, and its data as CSV.

    Args:
        sweep: The points.
        wanted: What was asked for: any of ``x``, ``y``, ``by`` and ``kind``; the default charts if nothing.

    Raises:
        ClustersimError: A column that does not exist, a kind that needs axes that the sweep does not have.
    """
    with house_style():
        charts = _asked(sweep, wanted) if wanted else _default(sweep)
        for name, chart in charts:
            if chart is None:
                continue
            figure, data = chart
            yield from pictures(figure, name)
            yield f"{name}.csv", to_csv(data)


def _default(sweep: SavedSweep) -> Iterator[tuple[str, Chart | None]]:
    """Those that suit the axes, then what the file wishes, so that a wish in vain costs no other chart."""
    if sweep.nothing():
        return
    yield from _suited(sweep)
    if sweep.plot:
        yield from _asked(sweep, sweep.plot)


def _suited(sweep: SavedSweep) -> Iterator[tuple[str, Chart | None]]:
    """By the number of axes, and whether they are crossed or drawn from."""
    axes = sweep.varying()
    metric = sweep.metric()
    if sweep.scattered():
        yield "influence", draw_influences(sweep, metric)
        yield "pareto", draw_pareto(sweep, cost_of(sweep), metric)
        return
    x, by = _x_and_by(sweep, axes)
    if len(axes) <= 2:
        yield "lines", draw_lines(sweep, x, metric, by)
    if len(axes) >= 2:
        across, up = _two(sweep, axes)
        if max(sweep.frame[key].nunique() for key in (across, up)) <= _MOST_CELLS:
            yield "heatmap", draw_heatmap(sweep, across, up, metric)
            yield "bottlenecks", draw_bottlenecks(sweep, across, up)
    if sweep.frame[x].nunique() <= _MOST_CELLS:
        yield "breakdown", draw_stack(sweep, x)
    if sweep.frame["num_gpus"].nunique() > 1:
        other = [key for key in axes if not _is_size(sweep, key) and sweep.frame[key].nunique() <= len(HUES)]
        yield "scaling", draw_scaling(sweep, other[0] if other else None)
    if len(axes) >= 3:
        yield "pareto", draw_pareto(sweep, cost_of(sweep), metric)


def _asked(sweep: SavedSweep, wanted: Mapping[str, str]) -> Iterator[tuple[str, Chart | None]]:
    kind = wanted.get("kind")
    if kind is not None and kind not in KINDS:
        raise ClustersimError(f"plot: kind must be one of {', '.join(KINDS)}")
    if nothing := sweep.nothing():
        raise ClustersimError(f"plot: {nothing}")
    axes = sweep.varying()
    metric = sweep.require(wanted["y"]) if "y" in wanted else sweep.metric()
    x, by = _asked_axes(sweep, axes, wanted, metric)
    kind = kind or ("line" if x in sweep.keys or x == "num_gpus" else "scatter")
    if unused := [key for key in _WITHOUT.get(kind, ()) if key in wanted]:
        raise ClustersimError(f"plot: {unused[0]} cannot be chosen for a chart of kind {kind}")
    if kind != "bottleneck" and not sweep.numeric(metric):
        raise ClustersimError(f'plot: "{metric}" holds no numbers')
    name = "-".join([kind, *(wanted[key].replace(".", "_") for key in ("x", "y", "by") if key in wanted)])
    chart = _drawn(sweep, kind, wanted, axes, x, by, metric)
    if chart is None:
        raise ClustersimError(f"plot: the sweep has nothing to show in a chart of kind {kind}")
    yield name, chart


def _asked_axes(
    sweep: SavedSweep, axes: list[str], wanted: Mapping[str, str], metric: str
) -> tuple[str, str | None]:
    default_x, default_by = _x_and_by(sweep, axes)
    by = sweep.require(wanted["by"]) if "by" in wanted else None
    x = sweep.require(wanted["x"]) if "x" in wanted else (by == default_x and default_by) or default_x
    if by is None and default_by != x:
        by = default_by
    if "by" in wanted and by in (x, metric):
        raise ClustersimError(f'plot: "{by}" stands on an axis of the chart already; --by needs another key')
    return x, by


def _drawn(
    sweep: SavedSweep,
    kind: str,
    wanted: Mapping[str, str],
    axes: list[str],
    x: str,
    by: str | None,
    metric: str,
) -> Chart | None:
    if kind in ("heatmap", "bottleneck"):
        if len(axes) < 2 and "by" not in wanted:
            raise ClustersimError(f"plot: a {kind} needs two axes; the sweep varies {', '.join(axes)}")
        across, up = (
            (x, by) if "x" in wanted and "by" in wanted and by else _two(sweep, axes, wanted.get("x") and x)
        )
        if kind == "heatmap":
            return draw_heatmap(sweep, across, up, metric)
        return draw_bottlenecks(sweep, across, up)
    if kind in ("pareto", "scatter"):
        x = x if "x" in wanted else cost_of(sweep)
        if not sweep.numeric(x):
            raise ClustersimError(f'plot: "{x}" holds no numbers')
        return draw_pareto(sweep, x, metric) if kind == "pareto" else draw_scatter(sweep, x, metric)
    if kind == "influence":
        return draw_influences(sweep, metric)
    if kind == "stack":
        return draw_stack(sweep, x)
    if kind == "scaling":
        return draw_scaling(sweep, by)
    return draw_lines(sweep, x, metric, by, bars=kind == "bar")


def _x_and_by(sweep: SavedSweep, axes: list[str]) -> tuple[str, str | None]:
    """Along x the axis of numbers with the most values; by the other, if it has few."""
    ranked = sorted(axes, key=lambda key: (-sweep.numeric(key), -sweep.frame[key].nunique(), axes.index(key)))
    x = ranked[0]
    by = next((key for key in reversed(ranked) if key != x), None)
    return x, by


def _two(sweep: SavedSweep, axes: list[str], x: str | None = None) -> tuple[str, str]:
    """Two axes for a field: those of numbers first, the one with more values across."""
    ranked = sorted(axes, key=lambda key: (-sweep.numeric(key), axes.index(key)))
    if x is not None:
        return x, next(key for key in ranked if key != x)
    one, other = ranked[0], ranked[1]
    return (one, other) if sweep.frame[one].nunique() >= sweep.frame[other].nunique() else (other, one)


def _is_size(sweep: SavedSweep, key: str) -> bool:
    return bool((sweep.frame.groupby(key, dropna=False)["num_gpus"].nunique() == 1).all()) and key.startswith(
        "cluster."
    )
