"""The JSON Schema of scenario files as users write them: short forms included."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from simulator import catalog
from simulator.scenario._kinds import CLUSTER_KEYS, GROUP_KEYS, PARTS
from simulator.scenario._scenario import Scenario
from simulator.specs import meanings
from simulator.specs._base import Spec


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a scenario file, for editors.

    Editors get the keys with their descriptions, the catalogue's names to complete, and the allowed values.
    What spans several keys (a plan that divides, units within their range) only loading checks.
    """
    schema = copy.deepcopy(Scenario.model_json_schema())
    definitions = schema["$defs"]
    _describe(Scenario, schema)
    for owner in _specs_below(Spec):
        if owner.__name__ in definitions:
            _describe(owner, definitions[owner.__name__])
    for spec, kind in set(PARTS.values()):
        definitions[f"{kind}Part"] = _part(definitions[spec.__name__], spec.__name__, kind)
    for name in ("NodeGroupSpec", "ClusterSpec"):
        for key, (_, kind) in PARTS.items():
            if key in definitions[name]["properties"]:
                definitions[name]["properties"][key] = _described(definitions[name], key, f"{kind}Part")
    group = definitions["NodeGroupSpec"]
    group["properties"]["system"] = _named("systems", "System that gives what the group leaves out.")
    group["required"] = ["nodes"]
    definitions["ClusterSpec"] = _cluster(definitions["ClusterSpec"], group)
    schema["properties"]["model"] = _model(definitions)
    teacher = {**schema["properties"]["model"], "description": "The teacher, in any form of `model`."}
    definitions["DistillationSpec"]["properties"]["teacher"] = teacher
    schema["properties"]["software"] = _software(definitions)
    schema["properties"]["include"] = _include()
    required = [key for key in schema.pop("required") if key not in ("name", "software")]
    schema["title"] = "clustersim scenario"
    # A file that includes others may leave every block to them.
    schema |= {"if": {"required": ["include"]}, "then": {}, "else": {"required": required}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _specs_below(spec: type[Spec]) -> Iterator[type[Spec]]:
    for below in spec.__subclasses__():
        yield below
        yield from _specs_below(below)


def _describe(spec: type[Spec], schema: dict[str, Any]) -> None:
    for key, meaning in meanings(spec).items():
        schema["properties"][key]["description"] = meaning


def _part(full: dict[str, Any], spec: str, kind: str) -> dict[str, Any]:
    changed = copy.deepcopy(full)
    changed["properties"]["base"] = _named(
        kind, "Entry of the catalogue that gives all that is not set here."
    )
    # With a system, a mapping may set some figures and name no base.
    changed["required"] = []
    changed["title"] = f"{spec.removesuffix('Spec')} with changed figures"
    return {"anyOf": [_names(kind), {"type": "string"}, {"$ref": f"#/$defs/{spec}"}, changed]}


def _cluster(cluster: dict[str, Any], group: dict[str, Any]) -> dict[str, Any]:
    own = {key: cluster["properties"][key] for key in CLUSTER_KEYS if key in cluster["properties"]}
    own["system"] = _named("systems", "System that gives what the cluster leaves out.")
    short = {key: group["properties"][key] for key in GROUP_KEYS}
    return {
        **{key: value for key, value in cluster.items() if key not in ("properties", "required")},
        "properties": own | short,
        "anyOf": [{"required": [key]} for key in ("nodes", "node_groups", "system")],
    }


def _model(definitions: dict[str, Any]) -> dict[str, Any]:
    forms: list[dict[str, Any]] = [_names("models"), {"type": "string"}, {"$ref": "#/$defs/LayerListSpec"}]
    transformer = definitions["TransformerSpec"]
    derived = ("num_key_value_heads", "head_dim", "num_hidden_layers")
    transformer["required"] = [key for key in transformer["required"] if key not in derived]
    forms.append({"$ref": "#/$defs/TransformerSpec"})
    for key, described in (
        ("base", _named("models", "Model of the catalogue that gives all that is not set here.")),
        (
            "config",
            {
                "type": "string",
                "description": "Path of a Hugging Face config.json, from the scenario's folder.",
            },
        ),
    ):
        changed = copy.deepcopy(transformer)
        changed["properties"][key] = described
        changed["required"] = [key]
        changed["title"] = f"Model by {key}"
        forms.append(changed)
    return {"anyOf": forms, "description": "What is trained: by name, by Hugging Face config, or in full."}


def _software(definitions: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(definitions["SoftwareSpec"])
    changed["properties"]["base"] = _named("software", "Framework that gives what is not set here.")
    changed["required"] = ["base"]
    changed["title"] = "Framework with changed mechanisms"
    forms = [_names("software"), {"type": "string"}, {"$ref": "#/$defs/SoftwareSpec"}, changed]
    return {"anyOf": forms, "description": "The training framework; megatron-core if not given."}


def _described(owner: dict[str, Any], key: str, definition: str) -> dict[str, Any]:
    described = owner["properties"][key].get("description", "")
    return {"$ref": f"#/$defs/{definition}", "description": described}


def _named(kind: str, description: str) -> dict[str, Any]:
    return {"anyOf": [_names(kind), {"type": "string"}], "description": description}


def _names(kind: str) -> dict[str, Any]:
    return {"enum": catalog.names(kind)}  # type: ignore[arg-type]


def _include() -> dict[str, Any]:
    path = {"type": "string", "description": "Path from this file's folder, within the scenario's folder."}
    return {
        "anyOf": [path, {"type": "array", "items": path}],
        "description": "Files beneath this one: what they say holds where this file says nothing.",
    }
