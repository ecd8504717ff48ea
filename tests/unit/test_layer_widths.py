"""Layers of a list must meet: each takes what the one before it gives."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import ScenarioError
from simulator.run import simulate
from simulator.scenario import Scenario, scenario_from_mapping

IMAGE: list[dict[str, Any]] = [
    {
        "type": "convolution",
        "in_channels": 3,
        "out_channels": 8,
        "kernel_size": 3,
        "input_size": 16,
        "stride": 2,
    },
    {"type": "norm", "features": 8, "positions": 49, "norm": "batchnorm"},
    {"type": "activation", "features": 392},
    {"type": "pooling", "channels": 8, "input_size": 7, "output_size": 2},
    {"type": "linear", "in_features": 32, "out_features": 10},
    {"type": "loss", "features": 10},
]
TEXT: list[dict[str, Any]] = [
    {"type": "embedding", "num_embeddings": 100, "embedding_dim": 64},
    {"type": "attention", "hidden_size": 64, "num_attention_heads": 4},
    {"type": "norm", "features": 64},
    {"type": "linear", "in_features": 64, "out_features": 100},
    {"type": "loss", "features": 100},
]


def scenario(layers: list[dict[str, Any]]) -> Scenario:
    return scenario_from_mapping(
        {
            "cluster": {"system": "dgx-a100", "nodes": 1, "gpus_per_node": 1},
            "model": {"name": "list", "layers": layers},
            "training": {"micro_batch_size": 4, "global_batch_size": 4, "sequence_length": 2},
        }
    )


def changed(layers: list[dict[str, Any]], place: int, **keys: Any) -> list[dict[str, Any]]:
    return [{**layer, **keys} if number == place else layer for number, layer in enumerate(layers)]


@pytest.mark.parametrize("layers", [IMAGE, TEXT], ids=["image", "text"])
def test_layers_that_meet_run(layers: list[dict[str, Any]]) -> None:
    assert simulate(scenario(layers)).step_time_s > 0


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (
            changed(IMAGE, 4, in_features=30),
            "model.layers.4.in_features: layer 4 (linear) takes 30 (in_features), but layer 3 (pooling) "
            "gives 8 x 2 x 2 = 32; in_features: 32 would fit",
        ),
        (changed(IMAGE, 1, positions=1), "gives 8 x 7 x 7 = 392; positions: 49 would fit"),
        (changed(IMAGE, 2, features=8), "layer 1 (norm) gives 8 x 7 x 7 = 392; features: 392 would fit"),
        (changed(IMAGE, 3, input_size=8), "no single key of it makes them meet"),
        (changed(IMAGE, 3, channels=4), "channels: 8 would fit"),
        (changed(IMAGE, 5, features=9), "layer 5 (loss) takes 9 (features)"),
        (changed(TEXT, 1, hidden_size=128), "hidden_size: 64 would fit"),
        (changed(TEXT, 2, features=60), "features: 64 would fit"),
        ([*TEXT[:1], IMAGE[0]], "takes 3 x 16 x 16 = 768 (in_channels x input_size), but layer 0"),
        (changed(IMAGE, 3, output_size=8), "cannot make 8 x 8 out of 8 x 7 x 7 = 392 with a window"),
    ],
)
def test_layers_that_do_not_meet_are_named_with_what_would_fit(
    layers: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(ScenarioError) as refused:
        scenario(layers)
    assert said in str(refused.value)


def test_pooling_moves_its_input_once_and_its_output_once() -> None:
    operators = simulate(scenario(IMAGE)).operators
    pooled = operators[operators["name"] == "3.pooling"].iloc[0]
    assert pooled["bytes"] == 4 * 2 * 8 * (49 + 4) * 2  # samples, tokens, channels, positions, bf16
