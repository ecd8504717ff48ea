"""Layers that are not trained: what falls away below the first that is, and what that saves."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from simulator.engine.checks import check_conservation
from simulator.errors import PlanError, ScenarioError
from simulator.run import Outcome, run
from simulator.scenario import scenario_from_mapping

LAYERS, HIDDEN, VOCABULARY = 8, 1024, 32000
LAYER = 12 * HIDDEN**2 + 2 * HIDDEN
"""Parameters of a layer: four attention matrices, an MLP of four times the width, two norms."""


def outcome(frozen: int, training: dict[str, Any] | None = None, **blocks: Any) -> Outcome:
    mapping = {
        "name": "frozen",
        "cluster": {"system": "dgx-h100", "nodes": 1},
        "model": {
            "name": "small",
            "num_hidden_layers": LAYERS,
            "hidden_size": HIDDEN,
            "intermediate_size": 4 * HIDDEN,
            "num_attention_heads": 16,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 1024,
            "norm": "rmsnorm",
            "position_embedding": "rotary",
        },
        "training": {
            "sequence_length": 1024,
            "micro_batch_size": 1,
            "global_batch_size": 32,
            "frozen_layers": frozen,
            **(training or {}),
        },
        "parallelism": {},
        "software": {"base": "megatron-core", "cuda_graphs": True},
    }
    return run(scenario_from_mapping({**mapping, **blocks}))


def work(found: Outcome, phase: str, *, of: str = "") -> int:
    """FLOP of the matrices in a phase of the last step, of one micro-batch after another."""
    program, facts = found.lowered.program, found.lowered.facts
    chosen = np.array([label.phase == phase and label.name.endswith(of) for label in program.classes.labels])[
        program.cls
    ]
    return int(facts.model_flops[program.cls[chosen]].sum())


@pytest.mark.parametrize("frozen", [2, 7, 8])
def test_backward_passes_end_at_the_first_layer_that_is_trained(frozen: int) -> None:
    """Matrices: a backward pass is twice a forward pass, in L - n of L layers and in the head."""
    whole, found = outcome(0), outcome(frozen)
    head = 2 * 1024 * HIDDEN * VOCABULARY * 4  # four micro-batches
    assert work(found, "forward") == work(whole, "forward")
    layers = work(whole, "backward") - 2 * head
    assert work(found, "backward") == layers * (LAYERS - frozen) // LAYERS + 2 * head
    program = found.lowered.program
    backward = np.array([label.phase == "backward" for label in program.classes.labels])[program.cls]
    assert set(program.tags["layer"][backward].tolist()) <= {-1, *range(frozen, LAYERS)}


@pytest.mark.parametrize("frozen", [2, 8])
def test_what_is_frozen_has_neither_gradients_nor_optimizer_state(frozen: int) -> None:
    parts = outcome(frozen).lowered.states[0].parts
    trained = (LAYERS - frozen) * LAYER + VOCABULARY * HIDDEN + HIDDEN
    assert parts["parameters"] == 2 * (LAYERS * LAYER + 2 * VOCABULARY * HIDDEN + HIDDEN)
    assert (parts["gradients"], parts["optimizer"]) == (4 * trained, 12 * trained)


def test_frozen_layers_keep_no_activations_and_take_no_time_backward() -> None:
    results = [outcome(frozen, {"recompute": "full"}).result for frozen in range(LAYERS + 1)]
    steps = [result.step_time_s for result in results]
    assert steps == sorted(steps, reverse=True) and steps[-1] < 0.6 * steps[0]
    inputs = [result.memory_by_operator.get("layer.input", 0) for result in results]
    assert inputs == [2 * 1024 * HIDDEN * (LAYERS - frozen) for frozen in range(LAYERS + 1)]


def test_stages_below_do_not_wait_for_gradients_that_nobody_wants() -> None:
    found = outcome(5, parallelism={"pipeline_parallel": 4})
    program, record = found.lowered.program, found.record
    check_conservation(program, record)
    names = np.array([label.name for label in program.classes.labels])[program.cls]
    sends = program.tags["stage"][names == "send.backward"]
    assert set(sends.tolist()) == {3}
    # The first stage runs its forward passes on end: it waits for nobody.
    lane = program.lanes.names.index("stage0.compute")
    mine = np.flatnonzero((program.lane == lane) & (record.end > record.start))
    forward = [a for a in mine if program.classes.labels[program.cls[a]].phase == "forward"]
    assert all(record.start[b] == record.end[a] for a, b in pairwise(forward))


def test_parameters_are_not_gathered_for_a_backward_pass_that_is_none() -> None:
    def gathers(frozen: int) -> int:
        program = outcome(frozen, parallelism={"data_parallel_sharding": "parameters"}).lowered.program
        return sum(
            program.classes.labels[cls].name == "parameters.all_gather" for cls in program.cls.tolist()
        )

    blocks, micro_batches = LAYERS + 2, 4
    assert gathers(0) == 2 * blocks * micro_batches
    assert gathers(5) == (blocks + blocks - 6) * micro_batches


def test_adapters_stand_above_the_frozen_layers_only() -> None:
    found = outcome(6, {"lora_rank": 8, "lora_targets": ["mlp.up"]})
    program = found.lowered.program
    adapters = np.array(["lora" in label.name for label in program.classes.labels])[program.cls]
    assert set(program.tags["layer"][adapters].tolist()) == {6, 7}
    assert found.lowered.states[0].dense == 2 * 8 * (HIDDEN + 4 * HIDDEN)


LINE = {
    "name": "line",
    "layers": [
        {"type": "linear", "in_features": 4096, "out_features": 4096},
        {"type": "activation", "features": 4096, "function": "relu"},
        {"type": "linear", "in_features": 4096, "out_features": 4096},
        {"type": "activation", "features": 4096, "function": "relu"},
        {"type": "linear", "in_features": 4096, "out_features": 10},
        {"type": "loss", "features": 10, "function": "cross_entropy"},
    ],
}


@pytest.mark.parametrize("frozen", [2, 3, 4])
def test_of_a_model_given_layer_by_layer_the_last_are_trained(frozen: int) -> None:
    found = outcome(frozen, {"sequence_length": 1, "micro_batch_size": 4}, model=LINE)
    program = found.lowered.program
    names = {label.name for label in program.classes.labels}
    assert ("2.linear.weight_gradient" in names) == (frozen == 2)
    assert not any(name.startswith(("0.linear.", "1.activation.", "2.linear.input")) for name in names)
    trained = 4096 * 10 + 10 + (4096**2 + 4096 if frozen == 2 else 0)
    assert found.lowered.states[0].dense == trained


@pytest.mark.parametrize(
    ("frozen", "training", "blocks", "message"),
    [
        (9, {}, {}, "frozen_layers: 9 layers, but the model has 8"),
        (8, {"lora_rank": 4}, {}, "8 of 8 layers leave none with adapters"),
        (5, {"sequence_length": 1}, {"model": LINE}, "5 of 6 layers leave none with parameters to train"),
    ],
)
def test_what_leaves_nothing_to_train_is_refused(
    frozen: int, training: dict[str, Any], blocks: dict[str, Any], message: str
) -> None:
    with pytest.raises((PlanError, ScenarioError)) as refused:
        outcome(frozen, training, **blocks)
    assert message in str(refused.value)


def test_an_embedding_that_is_the_head_is_not_frozen_apart_from_it() -> None:
    model = {**outcome(0).scenario.model.model_dump(exclude_none=True), "tie_word_embeddings": True}
    with pytest.raises(ScenarioError, match="cannot be frozen apart from it"):
        outcome(2, model=model)
