"""The order of pipeline schedules in speed and memory, as it was measured on eight A100.

Source: Qi et al., Zero Bubble Pipeline Parallelism, arXiv:2401.10241, table 4: 6.2 billion parameters, 32
micro-batches; samples per second and GPU, and memory [GB]. Zero-bubble schedules ran with updates validated
afterwards (section 4).
"""

from __future__ import annotations

import pytest

from simulator.analysis import Result
from simulator.errors import ScenarioError
from simulator.run import run
from simulator.scenario import load_scenario
from support.inputs import shipped

MEASURED = {
    "1f1b": (3.7, 39),
    "zb-1p": (4.0, 42),
    "interleaved_1f1b": (4.08, 48),
    "zb-2p": (4.35, 70),
}
SCENARIO = shipped("zero_bubble_6b")


def as_it_ran(name: str) -> Result:
    """Four chunks a stage where schedules interleave; a layer less on the first and the last stage."""
    changes = {"parallelism.pipeline_schedule": name}
    if name == "interleaved_1f1b":
        changes["parallelism.virtual_pipeline"] = "4"
    if name.startswith("zb"):
        changes["parallelism.optimizer_post_validation"] = "true"
    return run(load_scenario(SCENARIO, changes)).result


def test_schedules_rank_as_measured() -> None:
    results = {name: as_it_ran(name) for name in MEASURED}
    speed = sorted(MEASURED, key=lambda name: MEASURED[name][0])
    assert sorted(results, key=lambda name: -results[name].step_time_s) == speed
    memory = sorted(MEASURED, key=lambda name: MEASURED[name][1])
    assert sorted(results, key=lambda name: results[name].peak_memory_bytes) == memory
    # How much faster than 1F1B, to five hundredths of the step.
    for name in ("zb-1p", "zb-2p"):
        gain = results["1f1b"].step_time_s / results[name].step_time_s - 1
        published = MEASURED[name][0] / MEASURED["1f1b"][0] - 1
        assert abs(gain - published) < 0.05, (name, gain, published)


def test_stages_that_do_not_meet_begin_before_the_others_end() -> None:
    """With a meeting the last stage waits p - 1 forward passes for its first input, step after step.

    Without one its next step follows its last: at most that much is saved, and a good part of it is, though
    here the last stage (a layer less, and the head) is not quite as slow as the others.
    """
    meeting = run(load_scenario(SCENARIO, {"parallelism.pipeline_schedule": "zb-2p"})).result
    free = as_it_ran("zb-2p")
    stages, micro_batches = 8, 32
    forward = free.step_time_s / micro_batches / 3
    saved = meeting.step_time_s - free.step_time_s
    assert 0.3 * (stages - 1) * forward < saved < (stages - 1) * forward
    assert free.breakdown["pipeline_bubble"] < 0.8 * meeting.breakdown["pipeline_bubble"]


@pytest.mark.parametrize(
    "changes",
    [
        {"parallelism.pipeline_parallel": "1", "parallelism.pipeline_schedule": "1f1b"},
        {"training.gradient_clipping": "false"},
    ],
)
def test_post_validation_needs_something_to_validate(changes: dict[str, str]) -> None:
    asked = {"parallelism.optimizer_post_validation": "true", **changes}
    with pytest.raises(ScenarioError, match=r"optimizer_post_validation.*does nothing without"):
        run(load_scenario(SCENARIO, asked))
