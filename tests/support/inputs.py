"""Inputs that many tests begin with: scenarios that ship, and models of the catalogue."""

from __future__ import annotations

from pathlib import Path

from simulator import catalog
from simulator.scenario import scenario_from_mapping
from simulator.specs import LayerListSpec, TransformerSpec

SCENARIOS = Path(__file__).parents[2] / "scenarios"
"""Folder of the scenarios that ship."""

SHIPPED = sorted(SCENARIOS.glob("*.yaml"))
"""Every scenario that ships, for tests that hold for all of them."""


def shipped(name: str) -> Path:
    """The scenario that ships under a name."""
    return SCENARIOS / f"{name}.yaml"


def catalogue_layers(name: str) -> LayerListSpec:
    """A model of the catalogue that is given layer by layer."""
    cluster = {"system": "dgx-a100", "nodes": 1}
    training = {"micro_batch_size": 1, "global_batch_size": 8, "precision": "fp16"}
    made = scenario_from_mapping({"cluster": cluster, "model": name, "training": training}).model
    assert isinstance(made, LayerListSpec)
    return made


def catalogue_model(name: str, **changes: object) -> TransformerSpec:
    """A model of the catalogue, with keys of its own where any are given."""
    block = {key: value for key, value in catalog.entry("models", name).items() if key != "figures"}
    return TransformerSpec.model_validate(block | changes)
