"""Inputs that many tests begin with: scenarios that ship, and models of the catalogue."""

from __future__ import annotations

from pathlib import Path

from simulator import catalog
from simulator.specs import TransformerSpec

SCENARIOS = Path(__file__).parents[2] / "scenarios"
"""Folder of the scenarios that ship."""

SHIPPED = sorted(SCENARIOS.glob("*.yaml"))
"""Every scenario that ships, for tests that hold for all of them."""


def shipped(name: str) -> Path:
    """The scenario that ships under a name."""
    return SCENARIOS / f"{name}.yaml"


def catalogue_model(name: str, **changes: object) -> TransformerSpec:
    """A model of the catalogue, with keys of its own where any are given."""
    block = {key: value for key, value in catalog.entry("models", name).items() if key != "figures"}
    return TransformerSpec.model_validate(block | changes)
