"""Optimizers: state by parameter as published, and what they do beyond one parameter."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from simulator.program import lower
from simulator.run import run
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.specs.calibration import Calibration
from simulator.specs.training import Optimizer
from simulator.workload import state_bytes
from simulator.workload.optimizers import OPTIMIZERS


def scenario(training: dict[str, Any], parallelism: dict[str, Any] | None = None) -> Scenario:
    return scenario_from_mapping(
        {
            "name": "optimizers",
            "cluster": {"system": "dgx-h100", "nodes": 1},
            "model": "gpt3-xl-1.3b",
            "training": {
                "sequence_length": 1024,
                "micro_batch_size": 1,
                "global_batch_size": 8,
                **training,
            },
            "parallelism": parallelism or {},
        }
    )


def test_every_optimizer_has_a_rule_and_a_source() -> None:
    assert set(get_args(Optimizer)) == set(OPTIMIZERS)
    assert all(rule.source for rule in OPTIMIZERS.values())


@pytest.mark.parametrize(
    ("optimizer", "bytes_of_state"),
    [("sgd", 4), ("momentum", 8), ("adagrad", 8), ("adamw", 12), ("adam_8bit", 6), ("lion", 8), ("muon", 8)],
)
def test_state_beside_sixteen_bit_parameters(optimizer: str, bytes_of_state: int) -> None:
    """An fp32 copy of the parameter and the rule's own numbers."""
    assert state_bytes("bf16", "fp32", optimizer).optimizer == bytes_of_state


def test_adam_in_pure_bf16_takes_eight_bytes_a_parameter() -> None:
    moments = {"first_moment": "bf16", "second_moment": "bf16"}
    pure = state_bytes("bf16", "bf16", "adam", master=False, **moments)
    assert (*pure.parameters, *pure.gradients, pure.optimizer, *pure.communication) == (2, 2, 2, 2, 4, 2, 2)


def test_muon_keeps_two_numbers_outside_the_matrices_of_layers() -> None:
    assert state_bytes("bf16", "fp32", "muon").elsewhere == 4
    state = lower(scenario({"optimizer": "muon"})).states[0]
    adamw = lower(scenario({"optimizer": "adamw"})).states[0]
    assert adamw.parts["optimizer"] == 12 * adamw.dense
    assert 8 * state.dense < state.parts["optimizer"] < 12 * state.dense


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize(
    "parallelism",
    [{}, {"data_parallel_sharding": "optimizer"}, {"tensor_parallel": 4, "sequence_parallel": True}],
    ids=["replicated", "sharded", "tensor"],
)
def test_every_optimizer_runs(optimizer: str, parallelism: dict[str, Any]) -> None:
    outcome = run(scenario({"optimizer": optimizer}, parallelism))
    names = {label.name for label in outcome.lowered.program.classes.labels}
    assert ("optimizer.muon.gram" in names) == OPTIMIZERS[optimizer].orthogonal
    assert ("optimizer.tensor_norms" in names) == OPTIMIZERS[optimizer].norms


def test_newton_schulz_does_its_arithmetic() -> None:
    """Five times (4 n n m + 2 n n n) for each of a layer's four matrices."""
    lowered = lower(scenario({"optimizer": "muon"}))
    facts, program = lowered.facts, lowered.program
    width = 2048
    expected = 0
    for n, m in ((width, 3 * width), (width, width), (width, 4 * width), (width, 4 * width)):
        expected += 24 * 5 * (4 * n * n * m + 2 * n**3)
    found = sum(
        facts.flops[cls]
        for cls in program.cls
        if program.classes.labels[cls].name.startswith("optimizer.muon")
    )
    assert found == pytest.approx(expected, rel=1e-12)


def test_settings_of_precision_change_the_state_and_the_traffic() -> None:
    half = lower(scenario({"communication_precision": "bf16", "gradient_precision": "fp32"}))
    full = lower(scenario({"gradient_precision": "fp32"}))

    def reduced(lowered: Any) -> float:
        classes = lowered.program.classes
        rows = [k for k, label in enumerate(classes.labels) if label.name == "gradients.all_reduce"]
        return float(
            sum(classes.demand_amount[classes.demand_ptr[k] : classes.demand_ptr[k + 1]].max() for k in rows)
        )

    assert reduced(half) == pytest.approx(reduced(full) / 2, rel=0.05)
    assert half.states == full.states


def test_adapters_alone_are_trained() -> None:
    lowered = lower(scenario({"lora_rank": 16, "lora_targets": ("attention.qkv",)}))
    state = lowered.states[0]
    assert state.dense == 24 * 16 * (2048 + 3 * 2048)
    assert state.parts["optimizer"] == 12 * state.dense
    names = [label.name for label in lowered.program.classes.labels]
    gradients = [name for name in names if name.endswith("weight_gradient")]
    assert gradients
    assert all(".lora_" in name for name in gradients)


def test_a_batch_of_one_and_a_full_batch_are_one_setting() -> None:
    """Stochastic, mini-batch and full-batch descent differ in the batch alone."""
    stochastic = run(scenario({"global_batch_size": 1}, {"data_parallel": 1, "tensor_parallel": 8})).result
    full = run(scenario({"global_batch_size": 64}, {"data_parallel": 1, "tensor_parallel": 8})).result
    assert stochastic.step_time_s < full.step_time_s < 64 * stochastic.step_time_s


@pytest.mark.parametrize(
    ("parallelism", "axes"),
    [
        ({}, []),
        ({"data_parallel_sharding": "optimizer"}, []),
        ({"data_parallel_sharding": "parameters"}, [8]),
        ({"tensor_parallel": 2}, [2]),
        ({"tensor_parallel": 2, "data_parallel_sharding": "parameters"}, [4, 2]),
    ],
    ids=str,
)
def test_muon_gathers_what_is_split(parallelism: dict[str, Any], axes: list[int]) -> None:
    """Whole matrices are needed: of its share, in bf16, a GPU keeps one part of p and sends the others."""
    constants = Calibration.load()
    ideal = constants.with_values(**{name: 1.0 for name in constants.constants if name.endswith("_fraction")})
    lowered = lower(scenario({"optimizer": "muon"}, parallelism), ideal)
    classes, plan = lowered.program.classes, lowered.plan
    share = lowered.states[0].dense / (plan.degree("shard") if plan.sharding.parameters else 1)
    for way in ("gather", "scatter"):
        rows = [k for k, label in enumerate(classes.labels) if label.name == f"muon.{way}.all_to_all"]
        # Device memory is read once for what is sent, and written once for what comes.
        moved = [classes.demand_amount[classes.demand_ptr[k] : classes.demand_ptr[k + 1]].max() for k in rows]
        assert sorted(moved) == pytest.approx(sorted(2 * 2 * share * (p - 1) / p for p in axes), rel=1e-3)
