"""Recomputation by number of layers: what is kept, what is computed again, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.advise.bounds import bounds
from simulator.errors import PlanError, ScenarioError
from simulator.program.planning.recomputation import Recomputation, computed_again
from simulator.run import Outcome, run
from simulator.scenario import scenario_from_mapping
from simulator.specs.calibration import Calibration

LAYERS, STREAM = 8, 1024 * 2048 * 2
"""Layers of the model, and bytes of the residual stream of one micro-batch."""


def outcome(training: dict[str, Any], **blocks: Any) -> Outcome:
    return run(scenario(training, **blocks))


def scenario(training: dict[str, Any], **blocks: Any) -> Any:
    given = {
        "name": "layers",
        "cluster": {"system": "dgx-h100", "nodes": 1},
        "model": {
            "name": "small",
            "num_hidden_layers": LAYERS,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_attention_heads": 16,
            "vocab_size": 32000,
            "max_position_embeddings": 1024,
            "norm": "rmsnorm",
            "position_embedding": "rotary",
        },
        "training": {"sequence_length": 1024, "micro_batch_size": 1, "global_batch_size": 32, **training},
        "parallelism": {},
        "software": {"base": "megatron-core", "cuda_graphs": True},
    }
    return scenario_from_mapping({**given, **blocks})


def activations(result: Any) -> int:
    return int(result.memory_by_part["activations"])


def again(result: Outcome) -> dict[int, int]:
    """Layer -> FLOP that are computed again in the last step, both of the first stage."""
    program, facts = result.lowered.program, result.lowered.facts
    recomputed = np.array([label.phase == "recompute" for label in program.classes.labels])[program.cls]
    chosen = recomputed & (program.tags["stage"] == 0)
    layers, flops = program.tags["layer"][chosen], facts.flops[program.cls[chosen]]
    return {int(layer): int(flops[layers == layer].sum()) for layer in np.unique(layers)}


def full(number: int | None = None, method: str | None = None) -> dict[str, Any]:
    return {"recompute": "full", "recompute_num_layers": number, "recompute_method": method}


@pytest.mark.parametrize("number", [1, 3, 8])
def test_block_keeps_the_input_of_the_first_layers_and_all_of_the_others(number: int) -> None:
    """Activations lie on the line between none and full: n layers of the inputs, L - n of everything."""
    none, every = (outcome(each).result for each in ({}, full()))
    layer = (activations(none) - activations(every)) // LAYERS
    found = outcome(full(number, "block"))
    assert activations(found.result) == activations(none) - number * layer
    assert found.result.memory_by_operator["layer.input"] == number * STREAM
    work = again(found)
    assert sorted(work) == list(range(number)) and len(set(work.values())) == 1
    assert none.step_time_s < found.result.step_time_s <= every.step_time_s


def test_all_layers_by_number_are_full_recomputation() -> None:
    every, block, uniform = (outcome(each).result for each in (full(), full(LAYERS), full(1, "uniform")))
    for other in (block, uniform):
        assert other.breakdown == every.breakdown
        assert other.memory_by_part == every.memory_by_part


@pytest.mark.parametrize("number", [2, 4, 8])
def test_uniform_keeps_an_input_a_group_and_computes_every_layer_again(number: int) -> None:
    every, found = outcome(full()), outcome(full(number, "uniform"))
    groups = -(-LAYERS // number)
    kept = found.result.memory_by_operator["layer.input"]
    # At the peak the last group has been computed again, or none has (the loss): one input a group.
    assert kept == groups * STREAM
    assert again(found) == again(every)
    assert found.result.hfu == pytest.approx(
        every.result.hfu * every.result.step_time_s / found.result.step_time_s
    )


def test_groups_trade_inputs_for_the_activations_of_one_group() -> None:
    """Inputs of all groups, and all that the N layers of one keep while it is computed again."""
    head = {"model": scenario({}).model.model_copy(update={"vocab_size": 1000}).model_dump(exclude_none=True)}
    numbers = (2, 4, 8)
    none, *grouped = (
        outcome(each, **head).result.memory_by_operator
        for each in ({}, *(full(n, "uniform") for n in numbers))
    )

    def of_layers(kept: dict[str, int]) -> int:
        return sum(size for name, size in kept.items() if name.startswith(("attention", "mlp")))

    layer = of_layers(none) / LAYERS
    for number, kept in zip(numbers, grouped, strict=True):
        assert kept["layer.input"] == LAYERS // number * STREAM
        # The peak is inside the last layer's backward pass, which has let go of some of its own.
        assert (number - 1) * layer < of_layers(kept) <= number * layer


def test_numbers_count_in_each_stage() -> None:
    plan = {"parallelism": {"pipeline_parallel": 2}}
    found = outcome(full(1), **plan)
    program = found.lowered.program
    recomputed = np.array([label.phase == "recompute" for label in program.classes.labels])[program.cls]
    assert set(program.tags["layer"][recomputed].tolist()) == {0, 4}


def test_groups_are_computed_again_before_their_last_backward_pass() -> None:
    assert computed_again(("all", "input", "nothing", "nothing", "input", "all")) == (
        (), (), (), (1, 2, 3), (4,), (),
    )  # fmt: skip
    assert computed_again(("all", "input", "nothing")) == ((), (), (1, 2))
    assert Recomputation("none").modes([]) == ()


@pytest.mark.parametrize("training", [full(3), full(4, "uniform"), full(2, "uniform")], ids=str)
@pytest.mark.parametrize("stages", [1, 4])
def test_bounds_stay_below_the_simulation(training: dict[str, Any], stages: int) -> None:
    if stages == 4:
        training = training | {"recompute_num_layers": 2}
    made = scenario(training, parallelism={"pipeline_parallel": stages})
    found, result = bounds(made, Calibration.load()), run(made).result
    assert found.memory_bytes <= result.peak_memory_bytes
    assert found.step_s <= result.step_time_s


@pytest.mark.parametrize(
    ("training", "parallelism", "message"),
    [
        ({"recompute_num_layers": 2}, {}, 'recompute_num_layers: needs recompute: full, but it is "none"'),
        ({"recompute_method": "block"}, {}, "recompute_method: needs recompute: full"),
        (full(None, "uniform"), {}, "uniform needs recompute_num_layers"),
        (full(9), {}, "9 layers, but the model has 8; without it, all are recomputed"),
        (full(3), {"pipeline_parallel": 4}, "3 layers, but a part of the model (8 layers in 4 parts) has 2"),
        (full(0), {}, "recompute_num_layers"),
        (full(2, "uniform"), {"data_parallel_sharding": "parameters"}, "groups of 2 layers are not modelled"),
    ],
    ids=str,
)  # fmt: skip
def test_numbers_that_mean_nothing_are_refused(
    training: dict[str, Any], parallelism: dict[str, Any], message: str
) -> None:
    with pytest.raises((PlanError, ScenarioError)) as refused:
        outcome(training, parallelism=parallelism)
    assert message in str(refused.value)


def test_a_model_given_layer_by_layer_has_no_layers_to_recompute() -> None:
    model = {"name": "line", "layers": [{"type": "linear", "in_features": 8, "out_features": 8}]}
    with pytest.raises(ScenarioError, match="does nothing for a model given layer by layer"):
        outcome({"recompute": "full", "sequence_length": 1}, model=model)
