"""Every scenario that ships runs, says what it shows, and obeys the conservation laws on both players."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from simulator.run import check, run
from simulator.scenario import Scenario, load_scenario, resolved_yaml, scenario_from_mapping
from support.inputs import SHIPPED, shipped
from support.laws import assert_conserves, play_on_both

LARGEST_FOR_THE_REFERENCE_PLAYER = 20_000


def reduced(path: Path) -> Scenario:
    """The scenario with few micro-batches, and few layers, where it has many: both players finish soon."""
    scenario = load_scenario(path)
    lowered = check(scenario)
    plan = lowered.plan
    few = plan.pipeline_parallel * (2 if plan.schedule.startswith("dualpipe") else 1)
    small = {
        "training.global_batch_size": scenario.training.micro_batch_size * plan.data_parallel * max(2, few),
        "model.num_hidden_layers": plan.placement.depth,
    }
    changes: dict[str, int | None] = {}
    while lowered.program.num_activities > LARGEST_FOR_THE_REFERENCE_PLAYER and small:
        key = next(iter(small))
        changes[key] = small.pop(key)
        if key == "model.num_hidden_layers":
            changes["parallelism.pipeline_layers"] = None
        scenario = load_scenario(path, changes)
        lowered = check(scenario)
    return scenario


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_opens_with_a_comment(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 30


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_runs_and_conserves(path: Path) -> None:
    outcome = run(reduced(path))
    program, record, result = outcome.lowered.program, outcome.record, outcome.result
    assert_conserves(program, record)
    assert math.fsum(result.breakdown.values()) == result.step_time_s
    assert all(seconds > 0 for seconds in result.breakdown.values())
    assert sum(result.memory_by_part.values()) == result.peak_memory_bytes
    assert math.isclose(sum(b.share for b in result.bottlenecks), 1.0)
    assert all(0.0 <= use <= 1.0 for use in result.utilization.values())
    assert (result.tokens_per_s is None) == (not result.fits)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_both_players_write_the_same_record(path: Path) -> None:
    play_on_both(check(reduced(path)).program)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_resolved_scenario_gives_the_same_result(path: Path, tmp_path: Path) -> None:
    scenario = reduced(path)
    text = resolved_yaml(scenario)
    again = tmp_path / "again.yaml"
    again.write_text(text, encoding="utf-8")
    assert resolved_yaml(load_scenario(again)) == text
    assert run(load_scenario(again)).result.breakdown == run(scenario).result.breakdown


def test_bytes_sent_are_bytes_received() -> None:
    path = shipped("llama3_70b_h100")
    program = check(reduced(path)).program
    drawn = np.zeros(len(program.capacities.names), np.int64)
    count = np.bincount(program.cls, minlength=len(program.classes.labels))
    rows = np.repeat(np.arange(len(count)), np.diff(program.classes.demand_ptr))
    np.add.at(drawn, program.classes.demand_capacity, program.classes.demand_amount * count[rows])
    names = program.capacities.names
    for kind in ("scale_up", "scale_out"):
        sent = sum(int(d) for name, d in zip(names, drawn, strict=True) if name.endswith(f"{kind}.send"))
        received = sum(
            int(d) for name, d in zip(names, drawn, strict=True) if name.endswith(f"{kind}.receive")
        )
        assert sent == received > 0


def test_storage_hands_out_every_sample_once() -> None:
    scenario = load_scenario(shipped("starved_vision"))
    lowered = check(scenario)
    program = lowered.program
    capacity = program.capacities.names.index("storage.storage_read")
    rows = np.flatnonzero(program.classes.demand_capacity == capacity)
    count = np.bincount(program.cls, minlength=len(program.classes.labels))
    cls = np.searchsorted(program.classes.demand_ptr, rows, side="right") - 1
    read = int((program.classes.demand_amount[rows] * count[cls]).sum())
    assert scenario.data is not None
    steps = lowered.warmup_steps + lowered.measured_steps + scenario.data.prefetch
    assert read == steps * scenario.training.global_batch_size * scenario.data.sample_size


def test_the_starved_job_says_so_and_more_servers_help() -> None:
    path = shipped("starved_vision")
    starved = run(load_scenario(path)).result
    assert max(starved.breakdown, key=lambda cause: starved.breakdown[cause]) == "data_stall"
    assert starved.bottlenecks[0].resource == "storage_read"
    assert any("starves on data" in warning for warning in starved.warnings)
    # While a step decodes and computes, the server reads for those that follow: it is hardly ever idle.
    assert starved.utilization["storage_read"] > 0.9
    fed = run(load_scenario(path, {"cluster.storage.servers": 16, "data.loader_workers": 64})).result
    assert fed.step_time_s < 0.7 * starved.step_time_s


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("servers", [1, 3, 16])
def test_one_step_of_warming_up_is_enough(prefetch: int, servers: int) -> None:
    path = shipped("starved_vision")
    changes = {
        "data.prefetch": prefetch,
        "cluster.storage.servers": servers,
        "training.global_batch_size": 16384,
    }
    short = run(load_scenario(path, changes)).result
    long = run(load_scenario(path, {**changes, "simulation.warmup_steps": 6})).result
    assert short.step_time_s == long.step_time_s


def test_a_quarter_of_the_network_is_felt() -> None:
    whole = run(reduced(shipped("llama3_70b_h100"))).result
    quarter = run(reduced(shipped("llama3_70b_quarter_network"))).result
    assert quarter.step_time_s > whole.step_time_s

    def exposed(breakdown: dict[str, float]) -> float:
        return sum(v for k, v in breakdown.items() if k.startswith("communication") or k == "pipeline_bubble")

    assert exposed(quarter.breakdown) > exposed(whole.breakdown)


def test_what_does_not_fit_is_a_result() -> None:
    result = run(load_scenario(shipped("does_not_fit"))).result
    assert not result.fits
    assert result.peak_memory_bytes > result.memory_capacity_bytes
    assert result.tokens_per_s is None
    assert result.mfu is None
    assert result.step_time_s > 0


def test_a_checkpoint_is_shared_out_over_its_interval() -> None:
    path = shipped("quickstart")
    plain = run(load_scenario(path)).result
    often = run(load_scenario(path, {"checkpoint.interval": 10})).result
    rarely = run(load_scenario(path, {"checkpoint.interval": 1000})).result
    assert "checkpoint" not in plain.breakdown
    assert math.isclose(often.breakdown["checkpoint"], 100 * rarely.breakdown["checkpoint"])
    # 16 bytes of state a parameter, written by four servers at 5 GB/s, is the least that it can take.
    least = 8.03e9 * (2 + 12) / 20e9
    assert 10 * often.breakdown["checkpoint"] >= least
    assert math.isclose(often.step_time_s - plain.step_time_s, often.breakdown["checkpoint"], rel_tol=1e-9)


def test_json_has_every_promised_field() -> None:
    from simulator.report import result_json

    result = run(load_scenario(shipped("mlp_adam"))).result
    promised = {
        "name",
        "num_gpus",
        "step_time_s",
        "tokens_per_s",
        "tokens_per_s_per_gpu",
        "samples_per_s",
        "model_tflops_per_gpu",
        "mfu",
        "hfu",
        "peak_memory_bytes",
        "memory_capacity_bytes",
        "fits",
        "memory_by_part",
        "breakdown",
        "bottlenecks",
        "utilization",
        "basis",
        "warnings",
        "num_activities",
        "num_events",
        "wall_s",
        "player",
        "version",
        "seed",
    }
    document = json.loads(result_json(result))
    assert promised <= document.keys()


def test_a_scenario_from_python_equals_the_file() -> None:
    path = shipped("mlp_adam")
    scenario = load_scenario(path)
    again = scenario_from_mapping(scenario.model_dump(mode="python", exclude_none=True))
    assert run(again).result.breakdown == run(scenario).result.breakdown
