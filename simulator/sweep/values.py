"""What the names in an expression stand for at a point."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Final

from simulator.errors import ScenarioError
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.sweep.definition import Sweep
from simulator.sweep.expressions import ExpressionError
from simulator.sweep.keys import key_facts

_NUM_GPUS: Final = "num_gpus"
_SIZES: Final = ("cluster.nodes", "cluster.gpus_per_node", "cluster.system", "cluster.node_groups", "cluster")


class UnknownNameError(Exception):
    """A name that is no key of the scenario."""


class Values:
    """The values of keys at one point: what it overrides, and the resolved scenario for the rest.

    A point's scenario is resolved only where an override may have changed what is asked for, with no more
    than the overrides that may, and once for all points that share them.
    """

    def __init__(self, sweep: Sweep, overrides: Mapping[str, Any]) -> None:
        self.sweep, self.overrides = sweep, overrides
        self.changing: dict[str, tuple[str, ...]] = {}
        self.fixed: dict[str, object] = {}

    def at(self, overrides: Mapping[str, Any]) -> Values:
        """The same at another point that overrides the same keys, or the first few of them."""
        self.overrides = overrides
        return self

    def get(self, name: str) -> object:
        """The value of a key, or of ``num_gpus``.

        Raises:
            UnknownNameError: No such key.
            ExpressionError: The key has no value here: the scenario is wrong, or the value is no scalar.
        """
        if name in self.overrides:
            value = self.overrides[name]
            number = key_facts(name).number(value)
            return value if number is None else number
        if name in self.fixed:
            return self.fixed[name]
        if name not in self.changing:
            self.changing[name] = tuple(key for key in self.sweep.keys if may_change(key, name))
        relevant = {key: self.overrides[key] for key in self.changing[name] if key in self.overrides}
        value = _look_up(_resolved(self.sweep, relevant), name)
        if not self.changing[name]:
            self.fixed[name] = value
        return value


def may_change(key: str, name: str) -> bool:
    """Whether an override of a key may change what a name stands for."""
    if name == _NUM_GPUS:
        return key in _SIZES or key.startswith("cluster.node_groups")
    if name.startswith("cluster.") and key in ("cluster", "cluster.system"):
        return True
    return (
        name.startswith(f"{key}.")
        or key.startswith(f"{name}.")
        or (key.startswith("model") and name.startswith("model"))
    )


def base_value(scenario: Scenario, key: str) -> str | float | None:
    """What a key is where nothing overrides it: a value in SI units or a part's name, if it has either."""
    try:
        value = _look_up(scenario, key)
    except UnknownNameError:
        return None
    except ExpressionError:
        value = getattr(_inside(scenario, key), "name", None)
    return value if value is None or isinstance(value, (int, float, str)) else None


_known: dict[tuple[int, str], Scenario] = {}
_MOST_KNOWN: Final = 4096


def _resolved(sweep: Sweep, relevant: dict[str, Any]) -> Scenario:
    if not relevant:
        return sweep.scenario
    key = (id(sweep), json.dumps(relevant, sort_keys=True))
    found = _known.get(key)
    if found is None:
        try:
            found = scenario_from_mapping(
                sweep.data, {**sweep.fixed, **relevant, **sweep.above}, folder=sweep.folder
            )
        except ScenarioError as error:
            raise ExpressionError(error.problems[0].message) from None
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = found
    return found


def _look_up(scenario: Scenario, name: str) -> object:
    if name == _NUM_GPUS:
        return scenario.cluster.num_gpus
    inside = _inside(scenario, name)
    if inside is None or isinstance(inside, (bool, int, float, str)):
        return inside
    raise ExpressionError(f"{name} is no single value")


def _inside(scenario: Scenario, name: str) -> Any:
    inside: Any = scenario
    steps = name.split(".")
    for place, step in enumerate(steps):
        if inside is scenario.cluster and not hasattr(inside, step):
            inside = scenario.cluster.node_groups[0]
        if isinstance(inside, Mapping) and step in inside:
            inside = inside[step]
        elif isinstance(inside, tuple) and step.isdecimal() and int(step) < len(inside):
            inside = inside[int(step)]
        elif step in getattr(type(inside), "model_fields", ()):
            inside = getattr(inside, step)
        elif inside is None:
            return None
        else:
            raise UnknownNameError(_unknown(name, steps[:place], step, inside))
    return inside


def _unknown(name: str, above: list[str], step: str, inside: object) -> str:
    known = [*getattr(type(inside), "model_fields", ())]
    if not above:
        known.append(_NUM_GPUS)
    near = difflib.get_close_matches(step, known, 1)
    hint = f'; did you mean "{".".join([*above, *near])}"?' if near else ""
    return f'"{name}" is no key of the scenario{hint}'
