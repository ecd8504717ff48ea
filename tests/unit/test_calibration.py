"""Constants from measurements: recovered where they are known, refused where they cannot be."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from simulator.calibration import calibrate, check_calibration_path, read_measurements, write_calibration
from simulator.calibration._least_squares import minimise
from simulator.cli import main
from simulator.errors import ClustersimError, ScenarioError
from simulator.measurements import EngineAttention, Matmuls, NodeCollectives
from simulator.specs import Calibration
from simulator.specs.calibration import evidence_path

GPUS = ("A100-SXM-80GB", "H100-SXM-80GB")
TRUTH = Calibration.load().with_values(
    scale_up_fraction=0.6,
    collective_latency=9e-6,
    ll_fraction=0.5,
    attention_peak_fraction=0.5,
    attention_block_latency=5e-6,
)


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def cells(row: dict[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in row.items()}


def collectives(factor: float = 1.0) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for gpu, link in zip(GPUS, ("NVLink3", "NVLink4"), strict=True):
        for collective in ("all_reduce", "all_gather", "reduce_scatter", "alltoall"):
            for ranks in (2, 8):
                for power in range(10, 32, 2):
                    row: dict[str, object] = {
                        "id": f"{gpu}-{collective}-{ranks}-{power}",
                        "gpu": gpu,
                        "gpus_per_node": 8,
                        "scale_up": link,
                        "n_ranks": ranks,
                        "n_nodes": 1,
                        "collective": collective,
                        "bytes": 2**power,
                        "source": "a public table",
                    }
                    seconds = NodeCollectives().work(cells(row)).seconds(TRUTH)
                    rows.append({**row, "time_us": seconds * 1e6 * factor})
    return rows


def attention() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for gpu in GPUS:
        for length in (1024, 2048, 4096, 8192):
            for heads in (8, 16, 32, 64):
                row: dict[str, object] = {
                    "id": f"{gpu}-{length}-{heads}",
                    "gpu": gpu,
                    "batch": 2,
                    "sequence_length": length,
                    "num_attention_heads": heads,
                    "num_key_value_heads": heads,
                    "head_dim": 128,
                    "causal": "True",
                    "source": "a public table VLLM 1",
                }
                rows.append({**row, "time_us": EngineAttention().work(cells(row)).seconds(TRUTH) * 1e6})
    return rows


def fitted(folder: Path, **named: object) -> Calibration:
    done = calibrate(
        read_measurements(folder), base=Calibration.load(), name="mine", command="again", **named
    )
    return done.calibration


def test_least_squares_finds_the_line_that_outliers_do_not_move() -> None:
    x = np.linspace(0.0, 1.0, 40)
    y = 2.0 + 3.0 * x
    y[5] += 50.0
    found = minimise(
        lambda c: c[0] + c[1] * x - y,
        np.array([1.0, 1.0]),
        np.array([1e3, 1e3]),
        scale=0.05,
        prior_weight=1e-3,
    )
    assert found.x == pytest.approx([2.0, 3.0], abs=0.02)


def test_constants_that_made_the_measurements_are_found_again(tmp_path: Path) -> None:
    write(tmp_path / "c.csv", collectives())
    write(tmp_path / "a.csv", attention())
    found = fitted(tmp_path)
    for name in ("scale_up_fraction", "collective_latency", "attention_peak_fraction"):
        before = Calibration.load().constants[name].value
        assert found.constants[name].value == pytest.approx(TRUTH.constants[name].value, rel=0.08), name
        assert before != pytest.approx(TRUTH.constants[name].value, rel=0.15), name
    for row in read_measurements(tmp_path).observations:
        assert row.work.seconds(found) == pytest.approx(row.seconds, rel=0.15)


def test_what_no_row_depends_on_keeps_its_value_and_source(tmp_path: Path) -> None:
    write(tmp_path / "c.csv", collectives())
    found, shared = fitted(tmp_path), Calibration.load()
    for name in ("scale_out_fraction", "direct_link_fraction", "matmul_peak_fraction", "host_launch_time"):
        assert found.constants[name] == shared.constants[name], name
    changed = found.constants["scale_up_fraction"]
    assert (changed.basis, changed.command) == ("fitted", "again")
    assert "a public table" in changed.fitted_to
    assert changed.unit == shared.constants["scale_up_fraction"].unit
    assert changed.meaning == shared.constants["scale_up_fraction"].meaning
    assert found.range is not None
    assert found.range.scale_up == ["NVLink3", "NVLink4"]
    assert found.range.message_bytes == [1024, 2**30]
    assert found.range.scale_out_bandwidth is None


def test_the_same_measurements_give_the_same_file(tmp_path: Path) -> None:
    write(tmp_path / "c.csv", collectives())
    for name in ("one.yaml", "two.yaml"):
        write_calibration(fitted(tmp_path), tmp_path / name)
    assert (tmp_path / "one.yaml").read_bytes() == (tmp_path / "two.yaml").read_bytes()
    again = Calibration.load(tmp_path / "one.yaml")
    assert again.constants["scale_up_fraction"].value == pytest.approx(0.6, rel=0.08)


def test_leaving_an_accelerator_out_is_a_fit_that_has_not_seen_it(tmp_path: Path) -> None:
    rows = collectives()[::2]
    slow = [{**row, "time_us": 2 * float(str(row["time_us"]))} for row in rows if row["gpu"] == GPUS[0]]
    write(tmp_path / "c.csv", [*slow, *(row for row in rows if row["gpu"] == GPUS[1])])
    done = calibrate(
        read_measurements(tmp_path),
        base=Calibration.load(),
        name="mine",
        command="again",
        leave_one_out=True,
    )
    without = done.calibration.without("accelerator A100")
    # Without the slow half only what the other half says is left, and the weak prior.
    whole = done.calibration.constants["scale_up_fraction"].value
    assert without.constants["scale_up_fraction"].value == pytest.approx(0.6, rel=0.15)
    assert whole < without.constants["scale_up_fraction"].value / 1.15
    trial = next(trial for trial in done.trials if trial.left_out == "accelerator A100")
    assert trial.bias == pytest.approx(-0.5, abs=0.06)
    assert trial.rows == len(slow)
    spread = done.calibration.constants["scale_up_fraction"].uncertainty
    assert spread > 0.05


def test_too_few_measurements_are_refused_by_kind(tmp_path: Path) -> None:
    write(tmp_path / "c.csv", collectives()[:30])
    with pytest.raises(ClustersimError, match=r"collectives: 30 measurements for 14 constants; at least 56"):
        fitted(tmp_path)


def test_one_size_only_is_refused(tmp_path: Path) -> None:
    one = [row for row in collectives() if row["bytes"] == 2**20]
    copies = [{**row, "id": f"{row['id']}-{number}"} for number in range(4) for row in one]
    write(tmp_path / "c.csv", copies)
    with pytest.raises(ClustersimError, match="too few sizes of collectives"):
        fitted(tmp_path)


def test_contradictory_measurements_are_named_with_both_lines(tmp_path: Path) -> None:
    rows = collectives()
    rows.append({**rows[3], "id": "again", "time_us": 4 * float(str(rows[3]["time_us"]))})
    write(tmp_path / "c.csv", rows)
    with pytest.raises(ScenarioError) as caught:
        read_measurements(tmp_path)
    (problem,) = caught.value.problems
    assert problem.line == len(rows) + 1
    assert f"contradicts {tmp_path / 'c.csv'}:5" in problem.message
    assert "4.0 times" in problem.message


def test_kernels_faster_than_the_data_sheet_are_refused(tmp_path: Path) -> None:
    row = {"id": "a", "gpu": GPUS[0], "precision": "bf16", "m": 8192, "n": 8192, "k": 8192}
    least = 2 * 8192**3 / 312e12 * 1e6
    assert Matmuls().size(cells(row)) == 2 * 8192**3
    write(tmp_path / "g.csv", [{**row, "time_us": least / 2}])
    with pytest.raises(ScenarioError, match=r"g\.csv:2:1: 624 TFLOP/s contradict the 312 of A100"):
        read_measurements(tmp_path)


@pytest.mark.parametrize("text", ["nan", "0", "-3", "fast", ""])
def test_what_is_no_measurement_is_refused_where_it_stands(tmp_path: Path, text: str) -> None:
    rows = collectives()[:3]
    rows[1]["time_us"] = text
    write(tmp_path / "c.csv", rows)
    with pytest.raises(ScenarioError) as caught:
        read_measurements(tmp_path)
    (problem,) = caught.value.problems
    assert problem.line == 3
    assert problem.message.startswith("time_us: ")


def test_a_folder_without_measurements_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert main(["calibrate", "--measurements", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["calibrate", "--measurements", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main(["calibrate"]) == 2
    assert "--measurements DIR and --device" in capsys.readouterr().err


def test_a_calibration_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "c.csv", collectives())
    out = tmp_path / "mine.yaml"
    out.write_text("precious")
    assert main(["calibrate", "--measurements", str(tmp_path), "--out", str(out)]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert out.read_text() == "precious"
    with pytest.raises(ClustersimError, match="no such folder"):
        check_calibration_path(tmp_path / "no" / "mine.yaml")
    with pytest.raises(ClustersimError, match=r"\.yaml"):
        check_calibration_path(tmp_path / "mine.txt")


def test_the_command_writes_a_calibration_that_a_scenario_can_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measurements = tmp_path / "measurements"
    measurements.mkdir()
    write(measurements / "c.csv", collectives())
    out = tmp_path / "mine.yaml"
    assert main(["calibrate", "--measurements", str(measurements), "--out", str(out)]) == 0
    assert "scale_up_fraction" in capsys.readouterr().out
    command = Calibration.load(out).constants["scale_up_fraction"].command
    assert command == "clustersim calibrate --measurements DIR --out mine.yaml"
    assert not evidence_path(out).exists()


def test_the_shipped_constants_say_what_fits_them_again() -> None:
    shared = Calibration.load()
    fitted_here = [each for each in shared.constants.values() if each.command]
    assert len(fitted_here) >= 20
    assert all(each.basis == "fitted" for each in fitted_here)
    assert all(each.command.startswith("clustersim calibrate") for each in fitted_here)
    for refit in shared.refits:
        for name, value in refit.values.items():
            apart = abs(math.log(value / shared.constants[name].value))
            # The stated uncertainty is the root mean square of these.
            assert apart <= shared.constants[name].uncertainty * math.sqrt(len(shared.refits)) + 0.01
