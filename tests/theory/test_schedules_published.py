"""The order of pipeline schedules in speed and memory, as it was measured on eight A100.

Source: Qi et al., Zero Bubble Pipeline Parallelism, arXiv:2401.10241, table 4: 6.2 billion parameters, 32
micro-batches; samples per second and GPU, and memory [GB].
"""

from __future__ import annotations

from pathlib import Path

from simulator.run import run
from simulator.scenario import load_scenario

MEASURED = {"1f1b": (3.7, 39), "zb-1p": (4.0, 42), "zb-2p": (4.35, 70)}


def test_schedules_rank_as_measured() -> None:
    path = Path(__file__).parents[2] / "scenarios" / "zero_bubble_6b.yaml"
    results = {
        name: run(load_scenario(path, {"parallelism.pipeline_schedule": name})).result for name in MEASURED
    }
    speed = sorted(MEASURED, key=lambda name: MEASURED[name][0])
    assert sorted(results, key=lambda name: -results[name].step_time_s) == speed
    memory = sorted(MEASURED, key=lambda name: MEASURED[name][1])
    assert sorted(results, key=lambda name: results[name].peak_memory_bytes) == memory
    # How much faster than 1F1B, to five hundredths of the step.
    for name in ("zb-1p", "zb-2p"):
        gain = results["1f1b"].step_time_s / results[name].step_time_s - 1
        published = MEASURED[name][0] / MEASURED["1f1b"][0] - 1
        assert abs(gain - published) < 0.05, (name, gain, published)
