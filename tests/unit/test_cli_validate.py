"""`clustersim validate` from its arguments to its tables, with a simulation that can be reckoned by hand."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from simulator.cli import main
from simulator.errors import UnsupportedError

HEADER = (
    "id,group,num_hidden_layers,hidden_size,num_attention_heads,vocab_size,sequence_length,micro_batch_size,"
    "global_batch_size,gpu,num_gpus,scale_up,tensor_parallel,precision,measured_step_time_s,"
    "measured_tokens_per_s_per_gpu,measured_peak_memory_gib,memory_kind"
)
BODY = "24,1024,16,50257,2048,1,16,A100-SXM-80GB,8,NVLink3"
ROWS = (
    f"one,near,{BODY},1,bf16,2.2,,,",
    f"two,near,{BODY},1,bf16,,2048,20,allocated",
    f"three,far,{BODY},1,bf16,4,1024,,",
    f"four,far,{BODY},1,fp1,4,,,",
    f"five,far,{BODY},2,bf16,4,,,",
)


@pytest.fixture
def measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five rows; every simulation takes 2 s and 10 GiB, does not fit, and knows no tensor parallelism."""

    def simulate(scenario: Any, **_named: Any) -> Any:
        if scenario.parallelism.tensor_parallel > 1:
            raise UnsupportedError(("parallelism", "tensor_parallel"), "is not modelled")
        return types.SimpleNamespace(
            step_time_s=2.0,
            peak_memory_bytes=10 * 2**30,
            memory_by_kind=dict.fromkeys(("allocated", "reserved"), 10 * 2**30),
            fits=False,
            tokens_per_s=None,
        )

    monkeypatch.setitem(sys.modules, "simulator.run", types.SimpleNamespace(simulate=simulate))
    monkeypatch.setenv("COLUMNS", "100")
    path = tmp_path / "m.csv"
    path.write_text("\n".join([HEADER, *ROWS, ""]))
    return path


def test_predictions_have_the_columns_of_the_contract(measurements: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    assert main(["validate", str(measurements), "--out", str(out), "--quiet"]) == 0
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "id",
        "status",
        "reason",
        "predicted_step_time_s",
        "predicted_tokens_per_s_per_gpu",
        "predicted_peak_memory_gib",
    ]
    assert [(row["id"], row["status"]) for row in rows] == [
        ("one", "ok"),
        ("two", "ok"),
        ("three", "ok"),
        ("four", "unsupported"),
        ("five", "unsupported"),
    ]
    # 16 sequences of 2048 tokens in 2 s on 8 GPUs; what does not fit has its time all the same.
    assert [float(rows[0][name]) for name in list(rows[0])[3:]] == [2.0, 2048.0, 10.0]
    assert rows[3]["reason"].startswith('training.precision: "fp1" is not modelled')
    assert rows[4]["reason"] == "parallelism.tensor_parallel: is not modelled"


def test_json_says_how_far_off(measurements: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(measurements), "--json"]) == 0
    streams = capsys.readouterr()
    assert streams.err == ""
    found = json.loads(streams.out)
    assert (found["rows"], found["predicted"], found["coverage"]) == (5, 3, 0.6)
    time, memory = found["metrics"]
    assert [group["name"] for group in time["groups"]] == ["far", "near"]
    far, near = time["groups"]
    # Row two's 2048 tokens per second and GPU are a step of 2 s; row three's time counts once.
    assert (far["rows"], far["predicted"], far["mape"], far["bias"]) == (3, 1, 0.5, -0.5)
    assert (near["rows"], near["mape"]) == (2, pytest.approx((0.2 / 2.2) / 2))
    assert time["mean_over_groups"] == pytest.approx((0.5 + near["mape"]) / 2)
    assert (memory["total"]["rows"], memory["total"]["mape"], memory["groups"][0]["name"]) == (
        1,
        0.5,
        "allocated",
    )
    assert sum(found["reasons"].values()) == 2


def test_tables_say_the_same(measurements: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(measurements)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{measurements}: training runs, 3 of 5 rows predicted (60.0%)"
    cells = [line.split() for line in lines]
    assert ["far", "3", "33%", "50.0%", "50.0%", "50.0%", "50.0%", "-50.0%"] in cells
    assert ["near", "2", "100%", "4.5%", "4.5%", "8.2%", "9.1%", "-4.5%"] in cells
    assert ["mean", "over", "2", "groups", "27.3%"] in cells
    assert ["three", "4", "2", "-50.0%"] in cells
    assert ["1", "parallelism.tensor_parallel:", "is", "not", "modelled"] in cells


def test_only_and_sample_choose_rows(measurements: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(measurements), "--json", "--only", "^near$"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2
    assert main(["validate", str(measurements), "--json", "--sample", "2"]) == 0
    groups = json.loads(capsys.readouterr().out)["metrics"][0]["groups"]
    assert sorted(group["name"] for group in groups) == ["far", "near"]


def test_a_bad_file_is_told_and_nothing_is_written(
    measurements: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measurements.write_text("\n".join([HEADER, ROWS[0].replace("2.2", "-2.2"), ROWS[0], ""]))
    assert main(["validate", str(measurements), "--out", str(tmp_path / "p.csv")]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    first, second = streams.err.splitlines()
    assert first.startswith(f"{measurements}:2:{ROWS[0].index('2.2') + 1}: measured_step_time_s: -2.2")
    assert second.startswith(f"{measurements}:3:1: id: ")
    assert not (tmp_path / "p.csv").exists()


SLOW = """\
import sys
import time
import time
from pathlib import Path

from simulator.cli import main
from simulator.validation import TrainingRuns


def predict(self, cells, calibration):
    if cells["id"] != "one":
        Path(sys.argv[0]).with_suffix(".ready").touch()
        time.sleep(60)
    return {"predicted_step_time_s": 1.0}


TrainingRuns.predict = predict

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupted_validation_leaves_nothing_behind(
    measurements: Path, tmp_path: Path, workers: str
) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    out = tmp_path / "predictions.csv"
    arguments = [str(measurements), "--out", str(out), "--workers", workers]
    with subprocess.Popen(
        [sys.executable, str(script), *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while not script.with_suffix(".ready").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        # Workers hold stderr as well: it closes when the last of them is gone. On a busy machine the command
        # may have told its progress before.
        assert process.stderr.read().splitlines()[-1] == "clustersim: interrupted"
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir() if "predictions" in path.name] == []
