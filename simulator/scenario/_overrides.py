"""Overrides: dotted keys set from outside the file, above whatever the file says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from simulator.documents import parse_value
from simulator.errors import Problem, ScenarioError
from simulator.scenario._findings import Path
from simulator.scenario._kinds import CLUSTER_KEYS, PARTS

MAX_STEPS: Final = 12


def apply_overrides(
    data: Mapping[str, Any], overrides: Mapping[str, object], label: str
) -> tuple[dict[str, Any], dict[Path, str]]:
    """The data with the overrides in place, and where each went.

    A string is read as YAML (``"8"`` is the number 8, ``"'8'"`` the text), anything else is taken as it is.

    Raises:
        ScenarioError: A key that leads nowhere, or a string that is no YAML; all of them at once.
    """
    changed, places, problems = dict(data), dict[Path, str](), list[Problem]()
    for dotted, value in overrides.items():
        try:
            path = _path(dotted, changed)
            read = parse_value(value, f"{label} {dotted}") if isinstance(value, str) else value
            changed = _put(changed, path, read, ())
            places[path] = label
        except ScenarioError as error:
            problems += error.problems
        except _AstrayError as error:
            problems.append(Problem(label, 0, 0, f"{dotted[:80]}: {error}"))
    if problems:
        raise ScenarioError(problems)
    return changed, places


class _AstrayError(ValueError):
    """An override's key that leads nowhere."""


def _path(dotted: str, data: Mapping[str, Any]) -> Path:
    steps: list[str | int] = list(dotted.split("."))
    if not all(steps) or len(steps) > MAX_STEPS:
        raise _AstrayError("expected a dotted key, such as cluster.nodes")
    cluster = data.get("cluster")
    groups = cluster.get("node_groups") if isinstance(cluster, Mapping) else None
    if steps[0] == "cluster" and len(steps) > 1:
        if isinstance(groups, list) and steps[1] not in CLUSTER_KEYS:
            if len(groups) != 1:
                raise _AstrayError(
                    f"there are {len(groups)} node groups; write cluster.node_groups.0.{steps[1]}, ..."
                )
            steps[1:1] = ["node_groups", "0"]
        elif groups is None and steps[1:3] == ["node_groups", "0"] and len(steps) > 3:
            del steps[1:3]
    return tuple(steps)


def _put(inside: Any, path: Path, value: object, above: Path) -> Any:
    """A copy of `inside` with the value at the path; what lies beside the path is shared."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(inside, str) and _names_an_entry(above):
        inside = {"base": inside}
    if inside is None:
        inside = {}
    if isinstance(inside, Mapping):
        return {**inside, step: _put(inside.get(step), rest, value, (*above, step))}
    if isinstance(inside, (list, tuple)):
        index = int(step) if str(step).isdecimal() and len(str(step)) < 9 else -1
        if not 0 <= index < len(inside):
            raise _AstrayError(
                f"{'.'.join(map(str, above))} is a list of {len(inside)}; {step} is none of its places"
            )
        return [*inside[:index], _put(inside[index], rest, value, (*above, index)), *inside[index + 1 :]]
    raise _AstrayError(f"{'.'.join(map(str, above))} is a single value; it has no key {step}")


def _names_an_entry(path: Path) -> bool:
    if path == ("model",):
        return True
    return len(path) >= 2 and path[0] == "cluster" and path[-1] in PARTS and len(path) in (2, 4)
