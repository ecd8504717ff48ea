"""Charts of sweeps: chosen by the axes, legible at any number of values, with their data beside them."""

import io
import itertools
from dataclasses import replace

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.text import Text

from simulator.errors import ClustersimError
from simulator.report import SavedSweep, TornadoRow, draw_sensitivity_chart, draw_sweep
from simulator.report.charts import sweeps as chosen
from simulator.report.charts.style import house_style, texts_of
from simulator.report.charts.sweep_lines import draw_lines
from simulator.report.charts.sweep_pareto import front
from simulator.report.charts.sweep_scatter import draw_influences
from simulator.report.charts.sweep_stack import draw_stack
from simulator.report.charts.tornado import draw_tornado
from simulator.report.sweeps import value_label

BANDWIDTH, FLOPS = "cluster.accelerator.memory_bandwidth", "cluster.accelerator.peak_flops.bf16"
CAUSES = ("compute.matmul", "communication.all_reduce", "pipeline_bubble")


def made(axes, *, dimensions=(), lost=3, sampled=(), units=()):
    """A sweep over these axes whose figures follow from a point's number; every `lost`-th does not fit."""
    rows = []
    drawn = zip(*axes.values(), strict=True) if sampled else itertools.product(*axes.values())
    for number, point in enumerate(drawn):
        fits = number % lost != lost - 1
        step = 1.0 + (number * 37 % 101) / 50
        rows.append(
            {
                "point": number,
                **dict(zip(axes, point, strict=True)),
                "status": "ok" if fits else "does_not_fit",
                "reason": "" if fits else "needs 90 GiB of 80 GiB",
                "num_gpus": 8 * (1 + number % 4) if "cluster.nodes" in axes else 8,
                "step_time_s": step,
                "tokens_per_s": 1e6 / step if fits else None,
                "tokens_per_s_per_gpu": 1e6 / step / 8 if fits else None,
                "samples_per_s": 100 / step if fits else None,
                "peak_memory_bytes": (20 + number % 50) * 2**30,
                "bottleneck": ("tensor", "memory_bandwidth", "scale_out")[number % 3],
                **{f"limited_by.{kind}": 0.4 for kind in ("tensor", "memory_bandwidth", "scale_out")},
                **{f"breakdown.{cause}": step / 3 for cause in CAUSES},
            }
        )
    about = {
        "axes": [
            {
                "key": key,
                "dimension": dict(dimensions).get(key),
                "derived": False,
                "sampled": key in sampled,
                "unit": dict(units).get(key),
            }
            for key in axes
        ],
        "model": "llama3-8b",
        "plot": {},
    }
    return SavedSweep.of("a sweep", about, pd.DataFrame(rows))


ONE = {BANDWIDTH: [1e12 * 2 ** (i / 2) for i in range(9)]}
TWO = {**ONE, FLOPS: [5e14, 1e15, 2e15]}
WIDE = {BANDWIDTH: [1e12 + 3.7e10 * i for i in range(40)], FLOPS: [1e15 + 1.3e13 * i for i in range(30)]}
NAMES = {
    "model": [f"a model with a long name, number {i}" for i in range(12)],
    "cluster.nodes": [1, 2, 3, 4, 5],
}
THREE = {
    "cluster.nodes": [1, 2, 4, 8],
    "training.recompute": ["none", "selective", "full"],
    FLOPS: [1e15, 2e15],
}
SIX = {
    "parallelism.tensor_parallel": [1, 2],
    "training.recompute": ["none", "full"],
    "parallelism.data_parallel_sharding": ["none", "optimizer", "parameters"],
    "cluster.accelerator": ["H100", "B200, memory_bandwidth: 10 TB/s, memory_capacity: 240 GB"],
    **ONE,
    FLOPS: [1e15, 2e15],
}
DECADES = {BANDWIDTH: [10.0**i for i in range(5, 14)], FLOPS: [10.0**i for i in range(9, 17)]}
SAMPLED = {
    BANDWIDTH: [1e12 * 1.07**i for i in range(40)],
    FLOPS: [1e15 + (i * 17 % 40) * 1e13 for i in range(40)],
    "training.micro_batch_size": [1 + i * 7 % 4 for i in range(40)],
    "training.recompute": ["full" if i % 3 else "none" for i in range(40)],
}
UNITS = {BANDWIDTH: "bandwidth", FLOPS: "compute"}
CHARTS = {
    "one": (ONE, ["lines", "breakdown"]),
    "two": (TWO, ["lines", "heatmap", "bottlenecks", "breakdown"]),
    "wide": (WIDE, ["lines", "heatmap", "bottlenecks", "breakdown"]),
    "names": (NAMES, ["lines", "heatmap", "bottlenecks", "breakdown", "scaling"]),
    "three": (THREE, ["heatmap", "bottlenecks", "breakdown", "scaling", "pareto"]),
    "six": (SIX, ["heatmap", "bottlenecks", "breakdown", "pareto"]),
    "decades": (DECADES, ["lines", "heatmap", "bottlenecks", "breakdown"]),
    "sampled": (SAMPLED, ["influence", "pareto"]),
}
"""Axes, and the charts that follow from them."""


def figures(axes, wanted=None):
    sweep = made(axes, dimensions=UNITS.items(), sampled=list(SAMPLED)[:3] if axes is SAMPLED else ())
    with house_style():
        charts = chosen._asked(sweep, wanted) if wanted else chosen._default(sweep)
        return [(name, chart[0]) for name, chart in charts if chart is not None]


def extents(figure):
    """What is written where; of tick labels those that stand within the axes, as the others are not drawn."""
    renderer = figure.canvas.get_renderer()
    ticks, seen = set(), []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = (high - low) * 1e-9
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                ticks |= {id(tick.label1), id(tick.label2)}
                if low - slack <= tick.get_loc() <= high + slack and tick.label1.get_text():
                    seen.append(tick.label1)
    seen += [text for text in texts_of(figure) if id(text) not in ticks]
    # The extent of an annotation includes its arrow, which may cross what it likes; that of a Text does not.
    boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in seen]
    return [(text, box) for text, box in boxes if box.width > 0]


def legible(figure):
    figure.draw_without_rendering()
    boxes = extents(figure)
    for text, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        apart = min(a.x1, b.x1) - max(a.x0, b.x0) <= 1 or min(a.y1, b.y1) - max(a.y0, b.y0) <= 1
        assert apart, (one, other)


@pytest.mark.parametrize(("axes", "charts"), CHARTS.values(), ids=CHARTS)
def test_the_charts_follow_from_the_axes_and_no_text_overlaps_another(axes, charts):
    drawn = figures(axes)
    assert [name for name, _ in drawn] == charts
    with house_style():
        for _, figure in drawn:
            legible(figure)


@pytest.mark.parametrize(
    "kind", ["line", "bar", "heatmap", "bottleneck", "stack", "scatter", "pareto", "influence"]
)
def test_every_kind_can_be_asked_for(kind):
    with house_style():
        ((_, figure),) = figures(TWO, {"kind": kind})
        legible(figure)


def test_units_stand_on_the_axes():
    (_, figure), *_ = figures(TWO)
    assert figure.axes[0].get_xlabel() == "accelerator memory bandwidth [TB/s]"
    assert figure.axes[0].get_ylabel() == "throughput [tokens/s per GPU]"


def test_an_axis_has_the_unit_in_which_it_is_written():
    axes = {"cluster.scale_out.bandwidth": [6.25e9, 12.5e9, 50e9]}
    sweep = made(axes, dimensions={"cluster.scale_out.bandwidth": "bandwidth"}.items())
    assert sweep.measure("cluster.scale_out.bandwidth").label == "scale out bandwidth [GB/s]"
    sweep = made(
        axes,
        dimensions={"cluster.scale_out.bandwidth": "bandwidth"}.items(),
        units={"cluster.scale_out.bandwidth": "Gb/s"}.items(),
    )
    measure = sweep.measure("cluster.scale_out.bandwidth")
    assert measure.label == "scale out bandwidth [Gb/s]"
    assert [value_label(v, measure) for v in axes["cluster.scale_out.bandwidth"]] == ["50", "100", "400"]


def test_values_over_many_decades_have_each_a_unit_and_times_are_shares():
    drawn = dict(figures(DECADES))
    axes = drawn["lines"].axes[0]
    assert axes.get_xlabel() == "accelerator memory bandwidth"
    assert axes.get_xticklabels()[0].get_text() == "100 kB/s"
    sweep = made(ONE)
    for column in [c for c in sweep.frame if str(c).startswith("breakdown.")]:
        sweep.frame[column] *= [10.0**i for i in range(len(sweep.frame))]
    with house_style():
        figure, data = draw_stack(sweep, BANDWIDTH)
    assert figure.axes[0].get_ylabel() == "share of a step [%]"
    shares = data[[c for c in data if str(c).endswith("(share)")]]
    assert shares.sum(axis=1).tolist() == pytest.approx([1.0] * len(data))


def test_every_name_along_x_is_told_in_full_where_there_is_room():
    names = ["H100", "B200, memory_bandwidth: 10 TB/s", "a hypothetical GPU of the year after the next"]
    (_, figure), *_ = figures({"cluster.accelerator": names})
    told = [" ".join(label.get_text().split()) for label in figure.axes[0].get_xticklabels()]
    assert told == ["H100", "B200", names[2]]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_legend_reads_as_its_lines_stand(sign):
    sweep = made(TWO)
    sweep.frame["tokens_per_s_per_gpu"] = 1e4 + sign * sweep.frame[FLOPS] / 1e12
    with house_style():
        figure, _ = draw_lines(sweep, BANDWIDTH, "tokens_per_s_per_gpu", FLOPS)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    rising = [value_label(value, sweep.listed(FLOPS)) for value in TWO[FLOPS]]
    assert labels == rising[::-sign]


def test_what_a_figure_depends_on_most_comes_first():
    sweep = made(SAMPLED, sampled=list(SAMPLED))
    sweep.frame["tokens_per_s_per_gpu"] = 1e4 - sweep.frame[FLOPS] / 1e12
    with house_style():
        figure, _ = draw_influences(sweep, "tokens_per_s_per_gpu")
    assert figure.axes[0].get_xlabel().startswith("accelerator peak rate")
    assert figure.axes[0].get_title(loc="right") == "r = -1.00"


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("breakdown.communication.all_reduce", "time of communication: all-reduce [s]"),
        ("limited_by.scale_out", "critical path limited by scale-out network [%]"),
        ("host_memory_bytes", "host memory [GiB]"),
        ("step_time_s", "time of a step [s]"),
    ],
)
def test_figures_are_told_in_words_with_their_units(column, label):
    sweep = made(TWO)
    sweep.frame["host_memory_bytes"] = 2**30
    assert sweep.measure(column).label == label


def test_figures_below_zero_and_all_the_same_stand_inside_the_axes():
    for figure in (-1.0, 0.0, 5.0):
        sweep = made(ONE)
        sweep.frame["tokens_per_s_per_gpu"] = figure
        with house_style():
            drawn, _ = draw_lines(sweep, BANDWIDTH, "tokens_per_s_per_gpu", None)
        low, high = drawn.axes[0].get_ylim()
        assert low <= min(0.0, figure) and high >= max(0.0, figure) and low < high
        assert figure == 0.0 or low < figure < high


def test_a_sweep_without_a_result_says_so():
    sweep = made(TWO)
    nothing = replace(sweep, frame=sweep.frame[["point", *TWO, "status", "reason"]])
    assert list(chosen._default(nothing)) == []
    with pytest.raises(ClustersimError, match="no point of the sweep has a result"):
        list(chosen._asked(nothing, {"kind": "line"}))


def test_charts_that_no_longer_suit_the_axes_are_taken_away(tmp_path):
    draw_sweep(made(TWO), tmp_path)
    draw_sweep(made(TWO), tmp_path, {"kind": "scatter"})
    draw_sweep(made(ONE), tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"lines", "breakdown", "scatter"}


@pytest.mark.parametrize(
    "wanted",
    [
        {"x": "nothing"},
        {"kind": "cake"},
        {"y": "reason"},
        {"kind": "pareto", "x": "status"},
        {"x": "bf16", "by": "bf16"},
        {"x": "bf16", "by": "step_time_s", "y": "step_time_s"},
        {"kind": "scatter", "by": "bf16"},
        {"kind": "stack", "y": "step_time_s"},
        {"kind": "scaling", "x": "bf16"},
        {"kind": "scaling"},
        {"kind": "influence", "x": "bf16"},
    ],
)
def test_what_cannot_be_drawn_is_refused(wanted):
    with pytest.raises(ClustersimError, match="plot:"):
        figures(TWO, wanted)


def test_an_axis_goes_before_figures_of_the_same_ending():
    made_of = made(TWO)
    assert made_of.require("memory_bandwidth") == BANDWIDTH
    assert made_of.require("tensor") == "limited_by.tensor"
    parts = made({"cluster.accelerator": ["H100", "B200"]})
    parts.frame["accelerator"] = "the result's own"
    assert parts.require("accelerator") == "cluster.accelerator"
    two_figures = made({**TWO, "training.tensor": [1]})
    two_figures.frame["utilization.scale_out"] = 0.5
    assert two_figures.require("tensor") == "training.tensor"
    with pytest.raises(ClustersimError, match=r"limited_by\.scale_out, utilization\.scale_out"):
        two_figures.require("scale_out")


def test_a_line_for_each_value_of_the_axis_that_would_be_along_x():
    ((_, figure),) = figures(TWO, {"by": "memory_bandwidth"})
    assert "rate" in figure.axes[0].get_xlabel()


def test_a_field_needs_two_axes():
    with pytest.raises(ClustersimError, match="needs two axes"):
        figures(ONE, {"kind": "heatmap"})


def test_each_chart_has_a_png_an_svg_and_its_data(tmp_path):
    sweep = made(TWO, dimensions=UNITS.items())
    files = {path.name for path in draw_sweep(sweep, tmp_path)}
    assert files == {
        f"{name}.{kind}"
        for name in ("lines", "heatmap", "bottlenecks", "breakdown")
        for kind in ("png", "svg", "csv")
    }
    data = pd.read_csv(io.BytesIO((tmp_path / "heatmap.csv").read_bytes()))
    expected = sweep.frame.dropna(subset=["tokens_per_s_per_gpu"])
    assert data["tokens_per_s_per_gpu"].tolist() == expected["tokens_per_s_per_gpu"].tolist()
    before = {name: (tmp_path / name).read_bytes() for name in files}
    with mpl.rc_context({"font.size": 33}):
        draw_sweep(sweep, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files} == before


def test_the_front_is_what_no_point_beats():
    sweep = made(THREE)
    best = front(sweep, "peak_memory_bytes", "tokens_per_s")
    pairs = sweep.frame.dropna(subset=["tokens_per_s"])[["peak_memory_bytes", "tokens_per_s"]]
    unbeaten = {
        (memory, rate)
        for memory, rate in pairs.itertuples(index=False)
        if not any(
            m <= memory and r >= rate and (m, r) != (memory, rate) for m, r in pairs.itertuples(index=False)
        )
    }
    assert set(best[["peak_memory_bytes", "tokens_per_s"]].itertuples(index=False, name=None)) == unbeaten


def test_an_empty_sweep_draws_nothing(tmp_path):
    assert draw_sweep(made({"cluster.nodes": []}), tmp_path) == []


def test_a_tornado_ranks_and_explains(tmp_path):
    rows = [
        TornadoRow(
            f"cluster.accelerator.figure_{i}",
            f"{i} TB/s",
            i % 2 == 1,
            {0.5: -i / 50, 0.9: -i / 300, 1.1: i / 300, 2.0: i / 60},
        )
        for i in range(30, 0, -1)
    ]
    rows.append(TornadoRow("cluster.accelerator.memory_capacity", "80 GiB", False, {0.5: None, 2.0: 0.0}))
    with house_style():
        figure, data = draw_tornado(rows, "a job")
        legible(figure)
    assert len(data) == 30 * 4 + 2
    assert len(draw_sensitivity_chart(rows, "a job", tmp_path)) == 3
