"""Step times that others measured on A100 clusters, predicted from data sheets."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from simulator.run import run, simulate
from simulator.scenario import scenario_from_mapping
from simulator.validation import scenario_mapping

HERE = Path(__file__).parent


def rows(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(newline="", encoding="utf-8") as stream:
        return [{key: text for key, text in row.items() if text} for row in csv.DictReader(stream)]


def error(row: dict[str, str]) -> float:
    """Predicted over measured, less one."""
    result = simulate(scenario_from_mapping(scenario_mapping(row)))
    return result.step_time_s / float(row["measured_step_time_s"]) - 1


@pytest.mark.parametrize(
    ("name", "mean", "worst"),
    [("megatron_2021.csv", 0.04, 0.08), ("korthikanti_2022.csv", 0.035, 0.055)],
)
def test_step_times_of_published_runs(name: str, mean: float, worst: float) -> None:
    """Of Narayanan et al. 2021 (1.7B to 310B; 530B and 1T are left to `clustersim validate`) and of
    Korthikanti et al. 2022 (22B and 175B)."""
    chosen = [row for row in rows(name) if row["model"] not in ("gpt-530B", "gpt-1T", "GPT-530B", "GPT-1T")]
    errors = {row["id"]: error(row) for row in chosen}
    assert len(errors) >= 4
    assert fmean(abs(e) for e in errors.values()) < mean, errors
    assert max(abs(e) for e in errors.values()) < worst, errors


@pytest.mark.parametrize(
    "layer",
    rows("korthikanti_2022_layer.csv"),
    ids=lambda row: f"{row['recompute']}-{row['sequence_parallel']}",
)
def test_forward_and_backward_pass_of_one_layer(layer: dict[str, str]) -> None:
    """One layer of the 22B model on eight A100: kernels, collectives and recomputation, pass by pass."""
    row = next(row for row in rows("korthikanti_2022.csv") if row["model"] == "GPT-22B")
    one = row | {"num_hidden_layers": "1", "recompute": layer["recompute"]}
    one["sequence_parallel"] = layer["sequence_parallel"]
    outcome = run(scenario_from_mapping(scenario_mapping(one)))
    program, record = outcome.lowered.program, outcome.record
    phase = np.array([label.phase for label in program.classes.labels])[program.cls]
    device = np.array([kind != "host" for kind in program.lanes.kinds])[program.lane]
    of_layer = device & (program.tags["layer"] == 0)

    def span(*phases: str) -> float:
        chosen = of_layer & np.isin(phase, phases)
        begin = record.start[chosen].min()
        before = device & ~chosen & (record.end <= begin)
        return float(record.end[chosen].max() - record.end[before].max()) / 1e9

    assert span("forward") == pytest.approx(float(layer["forward_ms"]), rel=0.05)
    assert span("backward", "recompute") == pytest.approx(float(layer["backward_ms"]), rel=0.07)
