"""Sensitivity against the same change written into the scenario, and comparisons of results."""

import pytest

from simulator import load_scenario, simulate
from simulator.advise import sensitivity
from simulator.cli._output import print_table
from simulator.errors import ClustersimError
from simulator.report import compare_folders, draw_comparison_chart, write_result_folder
from simulator.scenario import resolved_yaml
from simulator.sweep.keys import key_facts
from support.inputs import shipped

SMALL = {
    "parallelism.tensor_parallel": 1,
    "parallelism.sequence_parallel": False,
    "model": {"base": "llama3-8b", "num_hidden_layers": 2},
    "training.sequence_length": 2048,
    "training.global_batch_size": 8,
    "simulation.warmup_steps": 0,
    "simulation.player": "compiled",
}


def job(**changes):
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return load_scenario(shipped("quickstart"), {**SMALL, **changed})


@pytest.fixture(scope="module")
def found():
    return sensitivity(job())


@pytest.mark.parametrize(
    ("key", "factor", "value"),
    [
        ("cluster.accelerator.memory_bandwidth", 2.0, "6.7 TB/s"),
        ("cluster.accelerator.peak_flops.bf16", 0.5, "494.7 TFLOP/s"),
        ("cluster.scale_up.bandwidth", 0.5, "225 GB/s"),
        ("cluster.storage.servers", 2.0, 8),
    ],
)
def test_a_change_is_what_the_scenario_with_that_figure_gives(found, key, factor, value):
    effect = next(effect for effect in found.effects if effect.key == key)
    written = simulate(job(**{key.replace(".", "__"): value}))
    assert effect.change[factor] == pytest.approx(
        found.result.step_time_s / written.step_time_s - 1, abs=1e-9
    )


def test_no_better_figure_makes_the_job_slower(found):
    for effect in found.effects:
        better = 0.5 if effect.less_is_better else 2.0
        for factor, sign in ((better, 1), (1 / better, -1)):
            change = effect.change.get(factor)
            # A hundredth: tiles fill compute units in whole waves, and more units may leave more idle.
            assert change is None or change * sign > -0.01, effect


def test_every_figure_that_a_machine_has_is_tried_once(found):
    keys = [effect.key for effect in found.effects]
    assert len(keys) == len(set(keys))
    assert {
        "cluster.accelerator.memory_capacity",
        "cluster.host.pcie_bandwidth",
        "cluster.storage.latency",
    } < set(keys)
    assert not any("fp8" in key for key in keys), "the job computes in bf16"


def test_what_is_counted_is_tried_where_its_number_changes():
    starved = load_scenario(
        shipped("starved_vision"), {"cluster.nodes": 1, "training.global_batch_size": 2048}
    )
    found = sensitivity(starved)
    servers = next(effect for effect in found.effects if effect.key == "cluster.storage.servers")
    assert starved.cluster.storage.servers == 1
    assert list(servers.change) == [2.0]
    # Twice the servers have twice the bandwidth and twice the operations: worth no less than twice either.
    others = [e for e in found.effects if e.key.startswith("cluster.storage.read_")]
    assert others
    assert all(servers.change[2.0] >= effect.change[2.0] - 1e-9 for effect in others)
    assert servers.elasticity == servers.change[2.0]


def test_the_most_valuable_figure_stands_first(found):
    elasticities = [effect.elasticity for effect in found.effects]
    assert elasticities == sorted(elasticities, reverse=True)


def test_where_something_else_begins_to_limit_is_where_it_does():
    slow = {"cluster__accelerator__memory_bandwidth": "800 GB/s"}
    found = sensitivity(job(**slow))
    turning = found.turning
    assert turning is not None and turning.next is not None
    key = turning.key.replace(".", "__")
    assert found.result.bottlenecks[0].resource == turning.limits
    there = simulate(job(**{**slow, key: turning.value}))
    assert there.bottlenecks[0].resource == turning.next
    assert found.result.step_time_s / there.step_time_s == pytest.approx(turning.speedup, rel=1e-3)
    facts = key_facts(turning.key)
    before = simulate(job(**{**slow, key: facts.written(facts.number(turning.value) / 1.03)}))
    assert before.bottlenecks[0].resource == turning.limits


def test_a_figure_that_never_hands_over_what_limits_has_no_turning(found):
    """Power holds the matrix units' rate: the network gains most, and the matrix units limit all the same."""
    turning = found.turning
    assert turning is not None and turning.next is None
    assert found.result.bottlenecks[0].resource == turning.limits == "tensor"
    key = turning.key.replace(".", "__")
    furthest = simulate(job(**{key: turning.value}))
    assert furthest.bottlenecks[0].resource == turning.limits
    assert found.result.step_time_s / furthest.step_time_s == pytest.approx(turning.speedup, rel=1e-3)


def written(folder, scenario):
    return write_result_folder(simulate(scenario), resolved_yaml(scenario), folder, charts=False)


def test_a_comparison_tells_what_changed_and_what_it_did(tmp_path):
    one = written(tmp_path / "one", job())
    other = written(tmp_path / "other", job(cluster__accelerator__memory_bandwidth="6.7 TB/s"))
    compared = compare_folders([one, other])
    assert compared.names == ("one", "other")
    assert compared.changes == {"cluster.accelerator.memory_bandwidth": ("3.35 TB/s", "6.7 TB/s")}
    first, second = compared.figures["time of a step [s]"]
    assert second < first
    assert sum(values[0] for values in compared.breakdown.values()) == pytest.approx(first)
    assert [path.suffix for path in draw_comparison_chart(compared, tmp_path / "chart")] == [
        ".png",
        ".svg",
        ".csv",
    ]


def test_of_a_part_that_is_another_altogether_the_name_is_told(tmp_path):
    changed = job(cluster__accelerator="A100-SXM4-80GB", cluster__scale_out__bandwidth="25 GB/s")
    folders = [written(tmp_path / "one", job()), written(tmp_path / "two", changed)]
    compared = compare_folders(folders)
    changes, left_out = compared.told()
    assert changes == {
        "cluster.accelerator.name": ("H100-SXM5-80GB", "A100-SXM4-80GB"),
        "cluster.scale_out.bandwidth": ("50 GB/s", "25 GB/s"),
    }
    inside = [key for key in compared.changes if key.startswith("cluster.accelerator.")]
    assert left_out == {"cluster.accelerator": len(inside) - 1}


def test_a_table_without_room_goes_on_below_with_its_first_column(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    heads = ("figure", *(f"result {i}" for i in range(5)))
    rows = [(f"figure {row}", *(f"{row}{i}.25 (+12.5%)" for i in range(5))) for row in range(2)]
    print_table(heads, rows, numeric=True, split=True)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert sum(line.startswith("figure 1") for line in lines) > 1
    for i in range(5):
        assert any(line.startswith("figure 1") and f"1{i}.25 (+12.5%)" in line for line in lines)


def test_a_comparison_needs_two_results(tmp_path):
    with pytest.raises(ClustersimError, match="2 to 8 result folders"):
        compare_folders([written(tmp_path / "one", job())])


def test_a_sweep_is_no_result_to_compare(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.sqlite").touch()
    with pytest.raises(ClustersimError, match="it is a sweep"):
        compare_folders([tmp_path / "one", tmp_path / "two"])
