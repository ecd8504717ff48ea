"""YAML into a checked `Scenario`, with every mistake told at once and in its place."""

from simulator.scenario._loading import Variations, load_scenario, resolved_yaml, scenario_from_mapping
from simulator.scenario._reference import write_reference
from simulator.scenario._scenario import Scenario
from simulator.scenario._schema import json_schema
from simulator.scenario._slug import slug

__all__ = [
    "Scenario",
    "Variations",
    "json_schema",
    "load_scenario",
    "resolved_yaml",
    "scenario_from_mapping",
    "slug",
    "write_reference",
]
