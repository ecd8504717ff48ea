"""Short forms into full ones: a name of the catalogue, a name with changes, or everything written out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from simulator import catalog
from simulator.documents import KeyPath, load_document
from simulator.errors import ScenarioError, UnitError
from simulator.scenario._findings import Findings
from simulator.scenario._kinds import PARTS
from simulator.scenario._messages import shown
from simulator.specs.figures import Figure
from simulator.units import dense

_KINDS: Final[Mapping[str, catalog.Kind]] = {
    **{key: part.kind for key, part in PARTS.items()},
    "model": "models",
    "system": "systems",
    "software": "software",
}
_ASSUMED: Final = Figure(basis="assumed", source="scenario")
_NO_FIGURES: Final = frozenset({"name", "vendor", "figures", "kind", "topology"})
_CONFIG_LIMIT: Final = 1024 * 1024


def entry(key: str, name: str, path: KeyPath, findings: Findings) -> dict[str, Any] | None:
    """The catalogue's entry for what a key names; None, and the mistake noted, if there is none."""
    kind = _KINDS[key]
    try:
        found = dict(_entry(kind, name))
    except catalog.UnknownEntry as error:
        near = ", ".join(f'"{other}"' for other in error.suggestions)
        hint = f"; did you mean {near}?" if near else f"; `clustersim catalog {kind}` lists what there is"
        findings.add(path, f"{shown(name).removeprefix('the text ')} is not in the catalogue of {kind}{hint}")
        return None
    if key == "model":
        found.pop("figures", None)  # a model's shape is what it is; only hardware's figures are weighed later
    return found


def part(key: str, data: object, path: KeyPath, findings: Findings, default: object = None) -> Any:
    """One part of the cluster, or the software, in full; None if it is not given or cannot be made out.

    Args:
        key: `accelerator`, `scale_up`, `scale_out`, `host`, `storage`, `drives` or `software`.
        data: What the scenario says: nothing, a name, or a mapping.
        path: Where it stands.
        findings: Takes mistakes and warnings.
        default: What the system says: a name or a mapping.
    """
    if data is None:
        data, default = default, None
    if data is None:
        return None
    if isinstance(data, str):
        return entry(key, data, path, findings)
    if not isinstance(data, Mapping):
        findings.add(path, f"expected a name of the catalogue or a mapping, not {shown(data)}")
        return None
    data = _dense(data, path, findings) if key == "accelerator" else data
    if "base" in data:
        return _changed(key, data, path, findings)
    if default is not None and "name" not in data:
        below = part(key, default, path, findings)
        return None if below is None else overlaid(below, data)
    if "name" not in data:
        findings.add(
            path,
            'give "base" (a name of the catalogue, to change some figures) or "name" and all figures',
            "key",
        )
        return None
    return data if "figures" in data else {**data, "figures": {"default": _ASSUMED}}


def model(
    data: object, folder: Path, findings: Findings, path: KeyPath = ("model",)
) -> dict[str, Any] | None:
    """A model in full: by name, changed, from a Hugging Face config, or as written."""
    if isinstance(data, str):
        found = entry("model", data, path, findings)
        return None if found is None else _with_kind(found)
    if not isinstance(data, Mapping):
        findings.add(path, f"expected a name of the catalogue or a mapping, not {shown(data)}")
        return None
    if "base" in data and "config" in data:
        findings.add((*path, "config"), 'give either "base" or "config"', "key")
        return None
    kind = data.get("kind")
    if kind is not None and kind not in ("transformer", "layers"):
        findings.add((*path, "kind"), f"must be transformer or layers, not {shown(kind)}")
        return None
    if "base" in data:
        below = _named(data["base"], "model", path, findings)
    elif "config" in data:
        below = _from_config(data["config"], folder, findings, (*path, "config"))
    else:
        return _with_defaults(_with_kind(dict(data)))
    if below is None:
        return None
    if kind is not None and kind != below.get("kind", "transformer"):
        findings.add((*path, "kind"), f'the model is of kind "{below.get("kind", "transformer")}"')
        return None
    changes = {key: value for key, value in data.items() if key not in ("base", "config")}
    return _with_kind(_joined(below, changes))


def overlaid(below: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A part with some figures changed; each change is marked as the scenario's assumption."""
    figures: dict[str, Any] = dict(below.get("figures") or {})
    for key, value in changes.items():
        if key in _NO_FIGURES:
            continue
        names = [f"{key}.{inner}" for inner in value] if isinstance(value, Mapping) else [key]
        figures |= dict.fromkeys(names, _ASSUMED)
    given = changes.get("figures")
    joined = _joined(below, {key: value for key, value in changes.items() if key != "figures"})
    if isinstance(given, Mapping):
        figures |= given
    joined["figures"] = figures if given is None or isinstance(given, Mapping) else given
    return joined


def _changed(key: str, data: Mapping[str, Any], path: KeyPath, findings: Findings) -> dict[str, Any] | None:
    below = _named(data["base"], key, path, findings)
    if below is None:
        return None
    return overlaid(below, {name: value for name, value in data.items() if name != "base"})


def _named(base: object, key: str, path: KeyPath, findings: Findings) -> dict[str, Any] | None:
    if not isinstance(base, str):
        findings.add((*path, "base"), f"expected a name of the catalogue, not {shown(base)}")
        return None
    return entry(key, base, (*path, "base"), findings)


def _from_config(name: object, folder: Path, findings: Findings, path: KeyPath) -> dict[str, Any] | None:
    from simulator.importers import ConfigError, transformer_from_config

    if not isinstance(name, str) or not name:
        findings.add(path, f"expected the path of a config.json, not {shown(name)}")
        return None
    file = folder / name
    try:
        document = load_document(file, what="model config", limit=_CONFIG_LIMIT)
    except ScenarioError as error:
        for problem in error.problems:
            if problem.line:
                findings.problems.append(problem)
            else:
                findings.add(path, f"{shown(name).removeprefix('the text ')}: {problem.message}")
        return None
    if path[0] == "model":
        # From here on, a mistake in the model's key is told with its place in the model's own file.
        findings.origin.config = document
    try:
        made, warnings = transformer_from_config(document.data)
    except ConfigError as error:
        findings.problems += [document.problem(problem.path, problem.message) for problem in error.problems]
        return None
    for warning in warnings:
        findings.warn(path, warning)
    return {"name": file.resolve().parent.name or "model", **made}


def _with_kind(data: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "layers" if "layers" in data else "transformer", **data}


def _with_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """Grouped-query heads and head size follow from the rest where they are not given."""
    heads, width = data.get("num_attention_heads"), data.get("hidden_size")
    if data["kind"] == "transformer" and isinstance(heads, int) and not isinstance(heads, bool) and heads > 0:
        data.setdefault("num_key_value_heads", heads)
        if isinstance(width, int) and width % heads == 0:
            data.setdefault("head_dim", width // heads)
    return data


def _dense(data: Mapping[str, Any], path: KeyPath, findings: Findings) -> dict[str, Any]:
    """Rates that are given with structured sparsity become the dense ones, with a warning."""
    changed = dict(data)
    peak = data.get("peak_flops")
    if isinstance(peak, Mapping):
        changed["peak_flops"] = {
            key: _dense_rate(value, (*path, "peak_flops", key), findings) for key, value in peak.items()
        }
    if "vector_flops" in data:
        changed["vector_flops"] = _dense_rate(data["vector_flops"], (*path, "vector_flops"), findings)
    return changed


def _dense_rate(value: object, path: KeyPath, findings: Findings) -> object:
    try:
        found = dense(value) if isinstance(value, str) else None
    except UnitError:
        return value
    if found is None:
        return value
    findings.warn(path, f'"{value}" is taken as {found}, the dense rate: half of the one with sparsity')
    return found


def _joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(below)
    for key, value in above.items():
        under = joined.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        joined[key] = _joined(under, value) if both and under is not None else value
    return joined


@lru_cache(maxsize=1024)
def _entry(kind: catalog.Kind, name: str) -> Mapping[str, Any]:
    """An entry whose figures are finished specs, which need not be checked in everything made of it."""
    found = catalog.entry(kind, name)
    given = found.get("figures")
    if not isinstance(given, Mapping):
        return found
    try:
        figures = {key: Figure.model_validate(value) for key, value in dict(given).items()}
    except ValidationError:
        return found  # told with the part that it is in
    return {**found, "figures": figures}
