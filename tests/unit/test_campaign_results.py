"""A whole training as a result: from the scenario file to the terminal, the chart and the sweep."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from simulator import Result, load_scenario, simulate
from simulator.errors import ScenarioError
from simulator.report import print_report
from simulator.report.charts import rendered
from simulator.report.document import result_json
from simulator.report.saved import as_saved
from simulator.sweep.keys import key_facts
from simulator.sweep.plots import column_complaint
from simulator.sweep.point import metrics

QUICKSTART = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"
FAILURES = {"hardware": {"mean_time": "20 d", "repair": "1 d"}}
TRAINING: dict[str, Any] = {
    "cluster.storage": "meta-tectonic",
    "checkpoint": {"interval": 100},
    "campaign": {"tokens": 10**11, "restart": "5 min", "failures": FAILURES},
}
CHANGES: dict[str, Any] = {
    "campaign.tokens": 10**10,
    "campaign.samples": 10**6,
    "campaign.steps": 10**5,
    "campaign.detection": "20 min",
    "campaign.restart": "20 min",
    "campaign.failures": {},
    "campaign.failures.hardware.mean_time": "5 d",
    "campaign.failures.hardware.of": "gpu",
    "campaign.failures.hardware.repair": "10 d",
    "campaign.failures.hardware.detection": "1 h",
    "campaign.spare_nodes": 2,
    "campaign.runs": 50,
    "checkpoint.interval": 1000,
    "simulation.seed": 1,
}


def trained(changes: dict[str, Any] | None = None) -> Result:
    return simulate(load_scenario(QUICKSTART, TRAINING | (changes or {})))


def without(key: str) -> dict[str, Any]:
    """The training without an amount, for another one."""
    amounts = ("campaign.samples", "campaign.steps")
    return {"campaign.tokens": None} if key in amounts else {}


@pytest.mark.parametrize("key", CHANGES)
def test_every_key_changes_it(key: str) -> None:
    assert trained({key: CHANGES[key], **without(key)}).campaign != trained().campaign


def test_an_amount_is_that_of_its_unit() -> None:
    tokens, samples = trained(), trained({"campaign.tokens": None, "campaign.samples": 10**11 // 8192})
    assert tokens.campaign is not None and samples.campaign is not None
    assert tokens.campaign.steps - samples.campaign.steps in (0, 1)
    assert tokens.campaign.steps == 1_525_879  # sequences of 8,192 tokens, 8 a step: the last is not full


def test_reading_a_checkpoint_takes_what_its_slowest_part_takes() -> None:
    """The state of Llama-3-8B through one server of 1 GB/s, then over PCIe, then to the other replicas."""
    slow = {"base": "meta-tectonic", "servers": 1, "read_bandwidth": "1 GB/s"}
    result = trained({"cluster.storage": slow})
    group = load_scenario(QUICKSTART).cluster.node_groups[0]
    parameters = 8_030_261_248
    copy = parameters * (2 / 2 + 12 / 8) / group.host.pcie_bandwidth
    passed_on = parameters * 2 / 2 / group.scale_up.bandwidth
    assert result.campaign is not None
    assert result.campaign.restore_s == pytest.approx(parameters * 14 / 1e9 + copy + passed_on, rel=1e-3)


def test_a_model_that_does_not_fit_is_not_trained() -> None:
    result = trained({"cluster.accelerator.memory_capacity": "20 GB"})
    assert not result.fits and result.campaign is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": None}, r"campaign\.failures: a failure would undo all that was trained"),
        ({"campaign.steps": 5}, r'campaign: give one of "tokens", "samples", "steps", not tokens and steps'),
        ({"campaign.tokens": None}, r'give one of "tokens", "samples", "steps", not none'),
        ({"campaign.failures.hardware.mttf": "1 d"}, r'did you mean "mean_time"'),
        ({"campaign.failures.hardware.mean_time": "5"}, r'has no unit; write for example "12 h" or "5 y"'),
        ({"campaign.failures.hardware.mean_time": "10 us"}, r'"us" measures time, not duration'),
        (
            {"campaign.failures.hardware.repair": None, "campaign.spare_nodes": 1},
            r"campaign\.spare_nodes: no node is ever away",
        ),
        (
            {"campaign.failures.hardware.mean_time": "2 min"},
            r"campaign\.failures: something fails every .*: this training practically never ends",
        ),
    ],
)
def test_what_is_wrong_is_told_at_its_place(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        trained(changes)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_terminal_tells_it(width: int) -> None:
    out = io.StringIO()
    print_report(trained(), None, Console(file=out, width=width))
    text = " ".join(out.getvalue().split())
    assert "The whole training" in text and "goodput" in text and "something fails every 20 d" in text
    assert max(map(len, out.getvalue().splitlines())) < width


def test_result_json_and_chart_hold_it() -> None:
    result = trained()
    told = json.loads(result_json(result))["campaign"]
    assert result.campaign is not None and told["mean_s"] == result.campaign.mean_s
    assert sum(told["parts"].values()) == pytest.approx(told["mean_s"])
    assert {"campaign.png", "campaign.svg"} <= {name for name, _ in rendered(as_saved(result))}
    step_only = simulate(load_scenario(QUICKSTART))
    assert "campaign.png" not in {name for name, _ in rendered(as_saved(step_only))}


def test_a_point_of_a_sweep_has_its_figures() -> None:
    scenario = load_scenario(QUICKSTART, TRAINING)
    result = simulate(scenario)
    figures = metrics(result, scenario)["campaign"]
    assert result.campaign is not None
    assert figures["goodput"] == result.campaign.goodput and figures["mean_s"] == result.campaign.mean_s
    assert "campaign" not in metrics(simulate(load_scenario(QUICKSTART)), scenario)


def test_the_same_seed_gives_the_same_training() -> None:
    assert trained().campaign == trained().campaign
    fewer, more = trained({"campaign.runs": 10}), trained({"campaign.runs": 11})
    assert fewer.campaign is not None and more.campaign is not None
    longest = 11 * more.campaign.mean_s - 10 * fewer.campaign.mean_s
    assert 0 < longest < 2 * more.campaign.p95_s


def test_a_sweep_knows_what_a_cause_says() -> None:
    assert key_facts("campaign.failures.hardware.mean_time").dimension == "duration"
    assert key_facts("campaign.failures.hardware.of") == key_facts("campaign.failures.hardware.name")
    assert column_complaint("campaign.goodput", ["checkpoint.interval"]) is None
    assert column_complaint("campaign.badput", ["checkpoint.interval"]) is not None
