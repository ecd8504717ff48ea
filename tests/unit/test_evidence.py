"""The evidence grade of a result, its error band, and what it names as outside of what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator import load_scenario, simulate
from simulator.analysis.result import Evidence
from simulator.documents import write_yaml
from simulator.errors import ScenarioError
from simulator.report import result_json
from simulator.specs import Calibration
from simulator.specs.calibration import calibration_names
from support.inputs import shipped


def evidence(*, calibration: Calibration | None = None, **changes: str) -> Evidence:
    overrides = {key.replace("__", "."): value for key, value in changes.items()}
    found = simulate(load_scenario(shipped("quickstart"), overrides), calibration=calibration).evidence
    assert found is not None
    return found


def test_what_was_measured_is_interpolated() -> None:
    found = evidence()
    assert (found.grade, found.outside) == ("interpolated", ())
    assert found.error_band is not None
    assert found.error_band.low < 0 < found.error_band.high
    assert "none of them in the fits" in found.error_band.source


def test_another_accelerator_is_named() -> None:
    found = evidence(cluster__accelerator="MI300X", cluster__scale_up="xGMI-MI300X")
    assert found.grade == "extrapolated from data sheet"
    assert any(item.startswith("accelerator: MI300X (measured: A100, H100") for item in found.outside)
    assert any(item.startswith("scale-up: xGMI-MI300X (measured: NVLink") for item in found.outside)
    assert found.error_band is not None
    assert "without its accelerator" in found.error_band.source


def test_changed_figures_are_named_once_they_are_far_off() -> None:
    near = evidence(cluster__accelerator="{base: H100-SXM5-80GB, memory_bandwidth: 4 TB/s}")
    assert near.outside == ()
    far = evidence(cluster__accelerator="{base: H100-SXM5-80GB, memory_bandwidth: 6.7 TB/s}")
    assert far.outside == (
        "figures of the accelerator: memory bandwidth is 2.0 times that of H100-SXM5-80GB",
    )


def test_another_precision_is_named() -> None:
    found = evidence(training__precision="fp32")
    assert any(item.startswith("precision: fp32 (measured on H100: bf16, fp8)") for item in found.outside)
    assert evidence(training__precision="fp16").outside == ()


def test_scale_and_messages_are_held_against_what_was_measured() -> None:
    shared = Calibration.load()
    assert shared.range is not None
    small = shared.range.model_copy(update={"ranks": 2, "message_bytes": [1.0, 1000.0]})
    proof = None if shared.evidence is None else shared.evidence.model_copy(update={"num_gpus": 4})
    changed = shared.model_copy(update={"range": small, "evidence": proof})
    found = evidence(calibration=changed)
    assert any(item.startswith("scale: ") for item in found.outside)
    assert any(item.startswith("messages: ") and "sent at once" in item for item in found.outside)


def test_a_calibration_that_says_nothing_claims_nothing() -> None:
    found = evidence(calibration=Calibration.load().with_values(memory_fraction=0.8))
    assert found.grade == "extrapolated from data sheet"
    assert found.outside[0].startswith("everything: ")


def own_calibration(path: Path, machine: str) -> None:
    shared = Calibration.load().model_copy(update={"name": "mine", "machine": machine, "refits": []})
    path.write_text(write_yaml(shared.model_dump(mode="json", exclude={"evidence"}, exclude_none=True)))


def test_a_scenario_names_the_calibration_of_its_machine(tmp_path: Path) -> None:
    own_calibration(tmp_path / "mine.yaml", "H100-SXM5-80GB")
    text = (shipped("quickstart")).read_text()
    (tmp_path / "job.yaml").write_text(f"{text}\nsimulation: {{calibration: ./mine.yaml}}\n")
    result = simulate(load_scenario(tmp_path / "job.yaml"))
    assert result.evidence is not None
    assert result.evidence.grade == "calibrated on this machine"
    assert any(note.item == "calibration mine" for note in result.basis)
    other = load_scenario(tmp_path / "job.yaml", {"cluster.accelerator": "A100-SXM4-80GB"})
    assert simulate(other).evidence != result.evidence


def test_another_calibration_gives_another_time(tmp_path: Path) -> None:
    slow = Calibration.load().with_values(matmul_peak_fraction=0.4)
    scenario = load_scenario(shipped("quickstart"))
    assert simulate(scenario, calibration=slow).step_time_s > 1.3 * simulate(scenario).step_time_s


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("theirs", 'no calibration "theirs"; there are: shared'),
        ("./nowhere.yaml", "no such calibration file"),
        ("./broken.yaml", "constants"),
    ],
)
def test_a_calibration_that_is_not_there_is_refused_in_its_place(
    tmp_path: Path, value: str, said: str
) -> None:
    (tmp_path / "broken.yaml").write_text("name: x\ndescription: y\nconstants: {}\n")
    text = (shipped("quickstart")).read_text()
    path = tmp_path / "job.yaml"
    path.write_text(f"{text}\nsimulation:\n  calibration: {value}\n")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == (str(path), len(text.splitlines()) + 3, 16)
    assert said in problem.message


def test_result_json_holds_the_evidence() -> None:
    result = simulate(load_scenario(shipped("quickstart")))
    told = json.loads(result_json(result))["evidence"]
    assert set(told) == {"grade", "error_band", "outside"}
    assert told["grade"] == "interpolated"
    assert told["error_band"]["coverage"] == 0.8


def test_the_catalogues_evidence_is_no_calibration_of_its_own() -> None:
    assert calibration_names() == ("shared",)
    found = Calibration.load().evidence
    assert found is not None
    assert found.command.startswith("clustersim validate DIR")
    trial = found.trial("training runs, step time")
    assert trial is not None and trial.source_left_out is not None
    assert trial.fitted.rows > 100
