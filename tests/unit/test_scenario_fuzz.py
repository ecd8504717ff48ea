"""Whatever stands at whatever key: a scenario, a result or a list of mistakes, never anything else."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.documents import parse_document
from simulator.errors import ClustersimError, ScenarioError
from simulator.run import simulate
from simulator.scenario import json_schema, load_scenario, resolved_yaml, scenario_from_mapping
from support.inputs import shipped

LAYERS = [
    {"type": "linear", "in_features": 10, "out_features": 2},
    {"type": "convolution", "in_channels": 4, "out_channels": 8, "kernel_size": 3, "input_size": 8},
    {"type": "attention", "hidden_size": 8, "num_attention_heads": 2},
    {"type": "loss", "features": 2},
]
CLUSTERS = [
    {"system": "dgx-h100", "nodes": 2},
    {"system": "dgx-h100", "node_groups": [{"nodes": 1}, {"nodes": 2, "accelerator": {"tdp": "1 kW"}}]},
    {"nodes": 1, "gpus_per_node": 4, "accelerator": {"base": "H100-SXM5-80GB"}, "scale_up": "NVLink4"},
]
MODELS = ["llama3-8b", {"base": "mixtral-8x7b", "num_hidden_layers": 3}, {"name": "l", "layers": LAYERS}]

KEYS = [
    "cluster",
    "model",
    "training",
    "parallelism",
    "data",
    "checkpoint",
    "simulation",
    "name",
    "include",
    "system",
    "nodes",
    "node_groups",
    "gpus_per_node",
    "accelerator",
    "scale_up",
    "scale_out",
    "host",
    "storage",
    "fabric",
    "base",
    "config",
    "kind",
    "type",
    "layers",
    "figures",
    "peak_flops",
    "bf16",
    "latency",
    "bandwidth",
    "memory_bandwidth",
    "mixture",
    "num_experts",
    "num_experts_per_tok",
    "padding",
    "groups",
    "num_key_value_heads",
    "num_attention_heads",
    "sequence_length",
    "precision",
    "micro_batch_size",
    "oversubscription",
    "x",
    "0",
    "1",
    "7",
]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["8", "6 TB/s", "-1 GB/s", "H100-SXM5-80GB", "llama3-8b", "layers", "linear", "bf16"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
scenarios = st.fixed_dictionaries(
    {
        "cluster": st.sampled_from(CLUSTERS),
        "model": st.sampled_from(MODELS),
        "training": st.just({"sequence_length": 8, "micro_batch_size": 1, "global_batch_size": 8}),
    }
)


def put(data, path, value):
    """A copy of nested dicts and lists with a value at a path, as far as the path leads."""
    if not path:
        return value
    if isinstance(data, dict):
        return {**data, path[0]: put(data.get(path[0], {}), path[1:], value)}
    if isinstance(data, list) and data:
        index = len(path[0]) % len(data)
        return [*data[:index], put(data[index], path[1:], value), *data[index + 1 :]]
    return value


def paths_of(data, above=()):
    """Every path of nested dicts and lists, a list's items by any of their places."""
    inside = data.items() if isinstance(data, dict) else ((str(i), v) for i, v in enumerate(data))
    for key, value in inside:
        yield (*above, key)
        if isinstance(value, (dict, list)):
            yield from paths_of(value, (*above, key))


@st.composite
def places(draw):
    """A scenario and a path that it has, or more keys at such a path, or beside it."""
    data = draw(scenarios)
    known = draw(st.sampled_from(sorted(paths_of(data))))
    more = draw(st.lists(st.sampled_from(KEYS), max_size=2))
    return data, draw(st.sampled_from([known, (*known, *more), (*known[:-1], *more)]))


@settings(max_examples=200)
@given(places(), values)
def test_any_value_anywhere(place, value):
    data, path = place
    try:
        made = scenario_from_mapping(put(data, path, value))
    except ScenarioError as error:
        assert error.problems
        for problem in error.problems:
            assert "\n" not in problem.message
            assert len(problem.message) < 1000
    else:
        again = scenario_from_mapping(parse_document(resolved_yaml(made), "again").data)
        assert again == made


@settings(max_examples=200)
@given(places(), values, st.text(max_size=8))
def test_any_override_anywhere(place, value, noise):
    data, path = place
    try:
        scenario_from_mapping(data, {".".join(path): value} | ({noise: value} if noise else {}))
    except ScenarioError as error:
        assert all("\n" not in problem.message for problem in error.problems)


SCHEMA = json_schema()
DEEPEST = 4
"""Levels of keys that are changed."""


def keys_of(node, path=(), depth=0):
    """Dotted keys of the schema of scenarios, each with what may stand there."""
    if "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    for way in ("anyOf", "oneOf", "allOf"):
        for each in node.get(way, ()):
            yield from keys_of(each, path, depth)
    if node.get("properties") and depth < DEEPEST:
        for key, each in node["properties"].items():
            yield from keys_of(each, (*path, key), depth + 1)
    elif path:
        yield ".".join(path), node


def allowed(node):
    """Values that the schema names for a key, numbers small and large, or else what it may not expect."""
    found = [*node.get("enum", ()), *node.get("examples", ()), *([node["const"]] if "const" in node else ())]
    kind = node.get("type")
    if kind == "boolean":
        found += [True, False]
    if kind in ("integer", "number"):
        found += [0, 1, 2, 3, 4, 8, 0.5, 10**9]
    return found or [1, 2, "8", None, [], {}, "llama3-8b", "1 GB", "0.5"]


CHANGES = {(key, repr(value)): value for key, node in keys_of(SCHEMA) for value in allowed(node)}
BASES = ("mlp_adam", "quickstart", "starved_vision", "transformer_1k", "translation_transformer")


@settings(max_examples=150)
@given(st.sampled_from(BASES), st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=4))
def test_what_the_schema_allows_is_simulated_or_refused_in_words(base, changes):
    overrides = {"simulation.max_memory": "300 MB"} | {change[0]: CHANGES[change] for change in changes}
    try:
        result = simulate(load_scenario(shipped(base), overrides))
    except ClustersimError as error:
        assert 10 < len(str(error)) < 5000
    else:
        assert math.isfinite(result.step_time_s)
        assert result.step_time_s > 0
