"""The commands of sweeps: what they say of points that ran, of those that did not, and of charts."""

import pytest

from simulator.cli import main
from support.inputs import shipped


@pytest.fixture
def sweep(tmp_path):
    """Write a sweep over a perceptron, run a command on it, and return its exit code and folder."""

    def run(text, *arguments):
        file = tmp_path / "sweep.yaml"
        file.write_text(f"scenario: {shipped('mlp_adam')}\n{text}")
        return main(["sweep", str(file), "--out", str(tmp_path / "out"), "--workers", "1", *arguments])

    return run


def test_a_sweep_tells_its_best_point_what_does_not_fit_and_its_charts(sweep, capsys, tmp_path):
    capacities = (
        "axes: {cluster.accelerator.memory_capacity: [1 MB, 80 GB], training.global_batch_size: [64, 128]}"
    )
    assert sweep(capacities) == 0
    said = capsys.readouterr().out
    assert "4 points: 2 ok, 2 do not fit" in said
    assert "the best: " in said and "global batch size 128" in said
    assert "the smallest that does not fit needs" in said
    assert "lines.png" in said
    assert main(["plot", str(tmp_path / "out"), "--kind", "bar"]) == 0
    assert capsys.readouterr().out.strip().endswith("bar.png")
    assert main(["plot", str(tmp_path / "out"), "--kind", "scaling"]) == 2
    assert "nothing to show in a chart of kind scaling" in capsys.readouterr().err


def test_a_sweep_without_anything_to_draw_says_why(sweep, capsys, tmp_path):
    assert sweep("axes: {training.micro_batch_size: [3, 5]}") == 0
    said = capsys.readouterr().out
    assert "no charts: no point of the sweep has a result" in said
    for arguments in ([], ["--kind", "line"]):
        assert main(["plot", str(tmp_path / "out"), *arguments]) == 2
        assert "no point of the sweep has a result" in capsys.readouterr().err
    assert sweep("axes: {training.steps: [2]}") == 0
    assert "1 point: 1 ok" in (said := capsys.readouterr().out)
    assert "no charts: no axis of the sweep has more than one value" in said


def test_a_dry_run_tells_what_is_left_out_and_what_stands_above(sweep, capsys):
    axes = "axes: {training.steps: {from: 1, to: 25000, step: 1}, simulation.seed: [1, 2]}\n"
    assert sweep(axes + "where: [simulation.seed < 2]", "--dry-run", "--set", "simulation.seed=1") == 0
    said = capsys.readouterr().out
    assert "1: 1 (--set)" in said
    assert "25,000 points of 50,000: where leaves out the others" in said
    assert "--yes runs them" in said
