"""The cluster block: systems, the short form of one node group, the long form of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from simulator.documents import KeyPath
from simulator.scenario._blocks import block
from simulator.scenario._findings import Findings, Path
from simulator.scenario._kinds import CLUSTER_KEYS, GROUP_KEYS, GROUP_PARTS, PARTS
from simulator.scenario._messages import shown
from simulator.scenario._near_misses import suggestion
from simulator.scenario._parts import entry, part
from simulator.specs import ClusterSpec, FabricSpec, NodeGroupSpec, SlowGpusSpec, StorageSpec
from simulator.specs._base import Spec

_UNKNOWN: Final[Mapping[str, Any]] = {}
"""Stands in for a system that is not in the catalogue."""


def cluster_block(data: object, findings: Findings) -> ClusterSpec | None:
    """The cluster's spec; None, and the mistakes noted, if it is wrong."""
    path = ("cluster",)
    if not isinstance(data, Mapping):
        findings.add(path, f"expected a mapping, not {shown(data)}")
        return None
    short = "node_groups" not in data
    allowed = {*CLUSTER_KEYS, *GROUP_KEYS} if short else {*CLUSTER_KEYS}
    unknown = _unknown_keys(data, allowed, path, findings)
    system = _system(data, path, findings)
    if short:
        own = {key: data[key] for key in GROUP_KEYS if key in data}
        groups: list[NodeGroupSpec | None] = [_group(own, system, path, findings, unknown)]
    else:
        groups = _groups(data["node_groups"], system, findings)
    built: dict[str, Any] = {"node_groups": tuple(groups)}
    if data.get("name", system) is not system or "name" in system:
        built["name"] = data.get("name", system.get("name"))
    fabric = data.get("fabric", system.get("fabric"))
    if fabric is not None:
        built["fabric"] = block(FabricSpec, fabric, (*path, "fabric"), findings)
    if data.get("slow_gpus") is not None:
        built["slow_gpus"] = block(SlowGpusSpec, data["slow_gpus"], (*path, "slow_gpus"), findings)
    stored = {key: _storage(key, data, system, path, findings) for key in ("storage", "drives")}
    built |= {key: made for key, made in stored.items() if made is not None}
    wrong = None in groups or unknown or False in stored.values()
    wrong = wrong or any(key in built and built[key] is None for key in ("fabric", "slow_gpus"))
    return None if wrong else block(ClusterSpec, built, path, findings)


def _groups(listed: object, system: Mapping[str, Any], findings: Findings) -> list[NodeGroupSpec | None]:
    path = ("cluster", "node_groups")
    if not isinstance(listed, (list, tuple)) or not listed:
        findings.add(path, f"expected a list of node groups, not {shown(listed)}")
        return [None]
    groups: list[NodeGroupSpec | None] = []
    for index, data in enumerate(listed):
        here = (*path, index)
        if not isinstance(data, Mapping):
            findings.add(here, f"expected a mapping, not {shown(data)}")
            groups.append(None)
            continue
        unknown = _unknown_keys(data, {"name", "system", *GROUP_KEYS}, here, findings)
        own = {key: value for key, value in data.items() if key in (*GROUP_KEYS, "name")}
        given = _system(data, here, findings) if data.get("system") is not None else system
        made = _group(own, given, here, findings, unknown)
        groups.append(None if unknown else made)
    return groups


def _group(
    own: dict[str, Any], system: Mapping[str, Any], path: KeyPath, findings: Findings, unknown: list[str]
) -> NodeGroupSpec | None:
    for key in ("nodes", "gpus_per_node", "scale_up_domain"):
        if key in system:
            own.setdefault(key, system[key])
    # What an unknown system would have given is not missing besides.
    absent = list(GROUP_KEYS) if system is _UNKNOWN else []
    absent += [meant for message in unknown for meant in message.split('"')[1:2]]
    for key in GROUP_PARTS:
        known = len(findings.problems)
        made = _part(key, own.pop(key, None), system.get(key), (*path, key), findings)
        if made is not None:
            own[key] = made
        elif len(findings.problems) > known:
            absent.append(key)
    made_group = block(NodeGroupSpec, own, path, findings, absent=absent)
    return None if set(absent) & set(GROUP_PARTS) or system is _UNKNOWN else made_group


def _part(key: str, data: object, default: object, path: Path, findings: Findings) -> Spec | None:
    """The spec of one part; None where it is not given or wrong."""

    def make() -> Spec | None:
        full = part(key, data, path, findings, default)
        return None if full is None else block(PARTS[key].spec, full, path, findings, extra_keys=("base",))

    return findings.once(path, (data, default), make)


def _storage(
    key: str, data: Mapping[str, Any], system: Mapping[str, Any], path: KeyPath, findings: Findings
) -> StorageSpec | bool | None:
    """The spec of storage or drives, None where there are none, False where it is wrong."""
    here = (*path, key)
    known = len(findings.problems)
    made = _part(key, data.get(key), system.get(key), here, findings)
    assert made is None or isinstance(made, StorageSpec)
    return made if made is not None or len(findings.problems) == known else False


def _system(data: Mapping[str, Any], path: KeyPath, findings: Findings) -> Mapping[str, Any]:
    name = data.get("system")
    if name is None:
        return {}
    if not isinstance(name, str):
        findings.add((*path, "system"), f"expected a name of the catalogue, not {shown(name)}")
        return _UNKNOWN
    found = entry("system", name, (*path, "system"), findings)
    return _UNKNOWN if found is None else found


def _unknown_keys(data: Mapping[str, Any], allowed: set[str], path: KeyPath, findings: Findings) -> list[str]:
    """What was said about each key that does not belong here."""
    told = []
    for key in data:
        if key in allowed:
            continue
        inner = key in GROUP_KEYS and "node_groups" in data
        told.append(
            "belongs in each of the node_groups" if inner else suggestion(str(key), allowed, "cluster")
        )
        findings.add((*path, key), told[-1], "key")
    return told
