from __future__ import annotations

import dataclasses
import io
import itertools
import math
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from test_report_sample import GIB, make_result, memory, utilization

from simulator.analysis.memory import ACTIVATIONS, BUFFERS, TRANSIENT
from simulator.analysis.result import Result
from simulator.program.drafting.memory import BUCKETS, COMMUNICATION, FRAGMENTATION, FRAMEWORK, WORKSPACE
from simulator.program.pricing.slots import SLOTS
from simulator.report import draw_charts
from simulator.report.charts import CHARTS, rendered
from simulator.report.charts.pipeline import pipeline_bars, step_end
from simulator.report.charts.roofline import roofline_points
from simulator.report.charts.style import house_style, texts_of
from simulator.report.palette import colour
from simulator.report.saved import as_saved

NASTY = '<script>alert("$\\frac{1}{$")</script>&\x00\x1b\u202e$'


def with_frames(result: Result, **frames: pd.DataFrame) -> Result:
    tables = dataclasses.replace(result._tables, frames=result._tables.frames | frames)
    return dataclasses.replace(result, _tables=tables)


def nasty() -> Result:
    result = make_result()
    renamed = {name: getattr(result, name) for name in ("activities", "operators")}
    frames = {name: frame.assign(name=NASTY + "漢" * 90, phase=NASTY) for name, frame in renamed.items()}
    frames["utilization"] = result.utilization_timeline.replace({"kind": {"tensor": NASTY * 5}})
    return dataclasses.replace(
        with_frames(result, **frames), name=NASTY * 9, model=NASTY * 9, accelerator="$" * 300,
        breakdown={NASTY * 4: 0.1, "compute.matmul": 0.1}, memory_by_part={NASTY * 4: GIB, "$": 2 * GIB},
    )  # fmt: skip


def too_large() -> Result:
    result = make_result()
    parts = {"parameters": 16 * GIB, "optimizer": 96 * GIB, "activations": 40 * GIB, "workspace": GIB // 100}
    return dataclasses.replace(
        result, fits=False, memory_by_part=parts, peak_memory_bytes=sum(parts.values())
    )


def tiny() -> Result:
    """A perceptron: microseconds, kilobytes, no communication."""
    result = make_result(stages=1, micro_batches=1, layers=1)
    operators = result.operators.assign(
        time_s=result.operators.time_s / 1e3, flops=result.operators.flops / 1e9
    )
    frames = {"operators": operators, "utilization": utilization(0.0, 3e-6), "memory": memory(0.0, 3e-6, 1)}
    frames["memory"]["bytes"] //= 2**26
    return dataclasses.replace(
        with_frames(result, **frames), step_time_s=3e-6,
        breakdown={"compute.matmul": 2.5e-6, "latency": 0.5e-6},
        memory_by_part={"parameters": 900, "activations": 300}, peak_memory_bytes=1200,
    )  # fmt: skip


def empty() -> Result:
    result = make_result(stages=1)
    frames = {key: frame.iloc[:0] for key, frame in result._tables.frames.items()}
    return dataclasses.replace(with_frames(result, **frames), breakdown={}, memory_by_part={}, utilization={})


def busy() -> Result:
    """More of everything than there is room for."""
    result = make_result(stages=24, micro_batches=48, layers=1, steps=2)
    copies = [result.operators.assign(name=f"operator.{index}") for index in range(9)]
    slower = [frame.assign(time_s=frame.time_s * (1 + index / 9)) for index, frame in enumerate(copies)]
    breakdown = {f"communication.kind_{index}": result.step_time_s / 40 for index in range(40)}
    parts = {f"part_of_the_memory_number_{index}": GIB for index in range(40)}
    return dataclasses.replace(
        with_frames(result, operators=pd.concat(slower)), breakdown=breakdown, memory_by_part=parts
    )


CASES = {
    "usual": make_result,
    "nasty": nasty,
    "too large": too_large,
    "tiny": tiny,
    "empty": empty,
    "busy": busy,
}


@pytest.fixture(scope="module", params=list(CASES))
def figures(request: pytest.FixtureRequest) -> dict[str, Figure]:
    saved = as_saved(CASES[request.param]())
    drawn = {}
    with house_style():
        for name, draw in CHARTS.items():
            figure = draw(saved)
            if figure is not None:
                figure.draw_without_rendering()
                drawn[name] = figure
    return drawn


def extents(figure: Figure) -> list[tuple[str, Any]]:
    """What is written where; of tick labels those that stand within the axes, as the others are not drawn."""
    canvas: Any = figure.canvas
    renderer = canvas.get_renderer()
    ticks, shown = set(), []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = (high - low) * 1e-9
            for tick in axis.get_major_ticks():
                ticks |= {id(tick.label1), id(tick.label2)}
                if low - slack <= tick.get_loc() <= high + slack and tick.label1.get_text():
                    shown.append(tick.label1)
    shown += [text for text in texts_of(figure) if id(text) not in ticks]
    # The extent of an annotation includes its arrow, which may cross what it likes; that of a Text does not.
    boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in shown]
    return [(text, box) for text, box in boxes if box.width > 0]


def test_no_text_overlaps_another_or_leaves_the_picture(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        boxes = extents(figure)
        for text, box in boxes:
            inside = (
                box.x0 >= -1
                and box.y0 >= -1
                and box.x1 <= figure.bbox.x1 + 1
                and box.y1 <= figure.bbox.y1 + 1
            )
            assert inside, (name, text, box)
        for (one, first), (other, second) in itertools.combinations(boxes, 2):
            width = min(first.x1, second.x1) - max(first.x0, second.x0)
            height = min(first.y1, second.y1) - max(first.y0, second.y0)
            rotated = "memory" in one + other and name == "roofline"
            assert rotated or width <= 1 or height <= 1, (name, one, other, width, height)


def test_every_axis_says_what_it_shows_and_in_which_unit(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        labels = [axes.get_xlabel() for axes in figure.axes] + [axes.get_ylabel() for axes in figure.axes]
        for label in filter(None, labels):
            assert "[" in label or label == "pipeline stage", (name, label)
        assert all(axes.get_xlabel() for axes in figure.axes), name


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    return dict(rendered(as_saved(make_result())))


def test_pictures_are_what_they_claim(pictures: dict[str, bytes]) -> None:
    drawn = [name for name in CHARTS if name != "campaign"]  # which this result does not have
    assert sorted(pictures) == sorted(f"{name}.{kind}" for name in drawn for kind in ("png", "svg"))
    for name, data in pictures.items():
        if name.endswith("png"):
            picture = Image.open(io.BytesIO(data))
            assert picture.width == 1350
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20
        else:
            assert ET.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"
            assert b"<dc:date>" not in data


def test_names_do_no_harm_in_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("utilization", "pipeline"):
        monkeypatch.delitem(CHARTS, name)
    for name, data in rendered(as_saved(nasty())):
        if name.endswith("svg"):
            root = ET.fromstring(data)
            assert not [item for item in root.iter() if item.tag.endswith("script")], name
            assert b"\x00" not in data


def test_pictures_are_the_same_every_time_whatever_the_settings_of_the_user(
    pictures: dict[str, bytes],
) -> None:
    import matplotlib as mpl

    theirs = {"font.size": 31, "savefig.bbox": "tight", "axes.facecolor": "red", "text.parse_math": True}
    with mpl.rc_context(theirs):
        assert dict(rendered(as_saved(make_result()))) == pictures
        assert mpl.rcParams["font.size"] == 31


def test_bars_of_the_breakdown_add_up_to_the_step() -> None:
    result = make_result()
    with house_style():
        figure = CHARTS["breakdown"](as_saved(result))
    assert figure is not None
    widths = [patch.get_width() for patch in figure.axes[0].patches]
    assert math.fsum(widths) / 1e3 == pytest.approx(result.step_time_s, rel=1e-9)
    assert widths == sorted(widths, reverse=True)


def test_parts_of_the_memory_stand_end_to_end() -> None:
    result = make_result()
    with house_style():
        figure = CHARTS["memory"](as_saved(result))
    assert figure is not None
    *parts, peak = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in figure.axes[0].patches]
    assert parts[0][0] == 0
    assert all(left[1] == pytest.approx(right[0]) for left, right in itertools.pairwise(parts))
    assert peak == pytest.approx((0, result.peak_memory_bytes / GIB))
    assert parts[-1][1] == pytest.approx(peak[1])


@pytest.mark.parametrize(("stages", "micro_batches"), [(2, 4), (4, 8)])
def test_the_pipeline_shows_every_pass_once_and_in_order(stages: int, micro_batches: int) -> None:
    bars = pipeline_bars(make_result(stages=stages, micro_batches=micro_batches).activities)
    passes = [(bar.stage, bar.micro_batch, bar.phase) for bar in bars if bar.phase != "optimizer"]
    wanted = set(itertools.product(range(stages), range(micro_batches), ("forward", "backward")))
    assert len(passes) == len(wanted)
    assert set(passes) == wanted
    rows = defaultdict(list)
    for bar in bars:
        rows[bar.stage].append(bar)
    for row in rows.values():
        assert all(left.end_s <= right.start_s for left, right in itertools.pairwise(row))


def test_a_pipeline_is_drawn_only_where_there_is_one() -> None:
    assert CHARTS["pipeline"](as_saved(make_result(stages=1))) is None


def test_operators_stand_at_their_intensity_and_speed_below_the_roofs() -> None:
    operators = make_result().operators
    points = roofline_points(operators)
    assert math.fsum(point.share for point in points) == pytest.approx(1)
    assert [point.share for point in points] == sorted((point.share for point in points), reverse=True)
    for point in points:
        row = operators[(operators.name == point.name) & (operators.phase == point.phase)].iloc[0]
        assert point.intensity == pytest.approx(row.flops / row.bytes)
        roof = min(row.peak_flops, point.intensity * row.memory_bandwidth) / 1e12
        assert point.speed <= roof


def test_colours_of_the_main_causes_differ_and_others_have_one_too() -> None:
    main = [
        "compute.matmul",
        "communication.all_reduce",
        "communication.all_gather",
        "pipeline_bubble",
        "data_stall",
    ]
    main += ["checkpoint", "compute.attention", "compute.optimizer"]
    assert len({colour(cause) for cause in main}) == len(main)
    assert re.fullmatch("#[0-9A-Fa-f]{6}", colour("compute.unheard_of"))


@pytest.mark.parametrize(
    "seen",
    [
        ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
        ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
        ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
    ],
    ids=["all colours", "without red", "without green", "without blue"],
)
def test_parts_of_the_memory_are_told_apart_by_everyone(seen: tuple[tuple[float, ...], ...]) -> None:
    """No two parts are closer than 15 in L*a*b*, whatever colours one sees.

    Source: Machado, Oliveira & Fernandes, IEEE TVCG 15(6), 2009: matrices of full severity on linear RGB.
    """
    hues = np.array([[int(colour(part)[i : i + 2], 16) / 255 for i in (1, 3, 5)] for part in PARTS])
    linear = np.where(hues <= 0.04045, hues / 12.92, ((hues + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)])
    xyz = np.clip(linear @ np.array(seen).T, 0, 1) @ to_xyz.T / to_xyz.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + np.diag([np.inf] * len(PARTS))
    assert apart.min() > 15


PARTS = (
    "parameters", "teacher", BUFFERS, "gradients", "gradient_copies", "gradient_placeholders",
    BUCKETS, "optimizer", ACTIVATIONS, TRANSIENT, SLOTS, WORKSPACE, FRAGMENTATION, FRAMEWORK, COMMUNICATION,
)  # fmt: skip
"""All that a device's memory can hold."""


def test_charts_drawn_again_replace_the_old_ones(
    tmp_path: Path, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("utilization", "roofline", "memory"):
        monkeypatch.delitem(CHARTS, name)
    folder = tmp_path / "charts"
    folder.mkdir()
    (folder / "breakdown.png").write_bytes(b"old")
    written = draw_charts(make_result(), folder)
    drawn = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert drawn == {name: data for name, data in pictures.items() if name.split(".")[0] in CHARTS}
    assert sorted(written) == sorted(folder.iterdir())


def test_what_is_recomputed_is_part_of_the_backward_pass() -> None:
    frame = make_result().activities
    again = (frame.phase == "backward") & (frame.name == "attention.norm")
    recomputed = frame.assign(phase=frame.phase.mask(again, "recompute"))
    assert pipeline_bars(recomputed) == pipeline_bars(frame)


def test_the_pipeline_reaches_to_the_end_of_the_step() -> None:
    """An exchange behind the update is part of the step, in which all stages idle."""
    result = make_result(stages=2)
    frame = result.activities
    behind = frame.sort_values("end_s").iloc[[-1]]
    behind = behind.assign(cause="communication.all_gather", start_s=behind.end_s, end_s=behind.end_s + 1.0)
    longer = with_frames(result, activities=pd.concat([frame, behind]))
    assert step_end(longer.activities) == step_end(frame) + 1.0
    ends = []
    for each in (result, longer):
        figure = CHARTS["pipeline"](as_saved(each))
        assert figure is not None
        ends.append(figure.axes[0].get_xlim()[1])
    begin = min(bar.start_s for bar in pipeline_bars(frame))
    assert ends[1] / (step_end(longer.activities) - begin) in (pytest.approx(1.0), pytest.approx(1000.0))
    assert ends[1] != ends[0]


def test_stages_that_do_the_same_share_a_line_and_its_name() -> None:
    result = make_result(stages=2)
    one = memory(0.0, 1.0, 1)
    same = with_frames(result, memory=pd.concat([one, one.assign(stage=1)]))
    figure = CHARTS["memory"](as_saved(same))
    assert figure is not None
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == ["stages 0, 1"]
