"""The table of a sweep: a row a point, whatever its axes are called and whichever grid they come from."""

import errno
from collections import Counter
from pathlib import Path

import pytest

from simulator.errors import EnvironmentFailure
from simulator.sweep import export, load_sweep_file, run_sweep
from simulator.sweep.axes import Span
from simulator.sweep.point import OK, Outcome
from simulator.sweep.table import load_table
from support.inputs import shipped

RESULT = '{"model":"of the result","accelerator":"of the result","mfu":0.5}'
BANDWIDTH = "cluster.scale_out.bandwidth"


def same(base, overrides):
    return Outcome(OK, "", RESULT, 0.0, "nobody")


def table(tmp_path, text):
    file = tmp_path / "sweep.yaml"
    file.write_text(f"scenario: {shipped('quickstart')}\n{text}")
    run_sweep(load_sweep_file(file), tmp_path / "out", workers=0, evaluate=same)
    return load_table(tmp_path / "out")


def test_an_axis_called_like_a_figure_of_results_is_the_axis(tmp_path):
    frame = table(tmp_path, "axes: {model: [llama3-8b, llama2-7b]}").frame
    assert frame["model"].tolist() == ["llama3-8b", "llama2-7b"]
    assert frame["accelerator"].tolist() == ["of the result"] * 2
    assert frame["mfu"].tolist() == [0.5, 0.5]


def test_an_axis_of_another_grid_has_the_value_of_the_base(tmp_path):
    frame = table(
        tmp_path,
        "grids:\n"
        "  - axes: {training.recompute: [none, full]}\n"
        "  - axes: {cluster.accelerator.memory_bandwidth: [4 TB/s]}\n"
        "  - axes: {cluster.accelerator: [A100-SXM4-80GB]}\n",
    ).frame
    # quickstart recomputes selectively on H100 with 3.35 TB/s.
    assert frame["training.recompute"].tolist() == ["none", "full", "selective", "selective"]
    bandwidth = frame["cluster.accelerator.memory_bandwidth"].tolist()
    assert bandwidth[:3] == [3.35e12, 3.35e12, 4e12]
    assert bandwidth[3] != bandwidth[3], "what another whole part has is not the base's figure"
    assert frame["cluster.accelerator"].tolist()[::3] == ["H100-SXM5-80GB", "A100-SXM4-80GB"]


def test_what_a_point_has_no_part_of_is_nothing(tmp_path):
    def unlike(base, overrides):
        nodes = overrides["cluster.nodes"]
        parts = '{"send":0.5}' if nodes == 2 else "{}"
        return Outcome(
            OK, "", f'{{"step_time_s":1.0,"breakdown":{parts}}}' if nodes < 3 else "", 0.0, "nobody"
        )

    file = tmp_path / "sweep.yaml"
    file.write_text(f"scenario: {shipped('quickstart')}\naxes: {{cluster.nodes: [1, 2, 3]}}")
    run_sweep(load_sweep_file(file), tmp_path / "out", workers=0, evaluate=unlike)
    sends = load_table(tmp_path / "out").frame["breakdown.send"].tolist()
    assert sends[:2] == [0.0, 0.5]
    assert sends[2] != sends[2], "a point without a result has none at all"


def test_an_export_that_cannot_be_written_names_the_file_that_was_wanted(tmp_path, monkeypatch):
    table(tmp_path, "axes: {cluster.nodes: [1]}")

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr("pandas.DataFrame.to_csv", refuse)
    with pytest.raises(EnvironmentFailure, match=r"points\.csv: not written: Read-only file system"):
        export(tmp_path / "out", tmp_path / "points.csv")


@pytest.mark.parametrize(
    ("written", "unit"),
    [
        ("[50 Gb/s, 100 Gb/s]", "Gb/s"),
        ("{from: 50 Gb/s, to: 1e3Gb/s, points: 3, scale: log}", "Gb/s"),
        ("[50 Gb/s, 50 GB/s]", None),
    ],
)
def test_the_unit_in_which_an_axis_is_written_is_kept(tmp_path, written, unit):
    (axis,) = table(tmp_path, f"axes: {{{BANDWIDTH}: {written}}}").about["axes"]
    assert axis["unit"] == unit


@pytest.mark.parametrize("logarithmic", [False, True])
def test_whole_numbers_are_drawn_evenly(logarithmic):
    span = Span("training.micro_batch_size", 1, 8, logarithmic)
    counts = Counter(span.drawn((i + 0.5) / 9000) for i in range(9000))
    assert sorted(counts) == list(range(1, 9))
    if logarithmic:
        # As many of 1 as of 2, of 3 ... in proportion to log((n + 1) / n): 1 to 2 is log 2 of log 9.
        assert counts[1] / 9000 == pytest.approx(0.6931 / 2.1972, rel=0.01)
    else:
        assert set(counts.values()) == {1125}
