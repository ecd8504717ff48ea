"""What the specs say of a key: its dimension, whether it counts things, what it may be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from simulator.errors import UnitError
from simulator.scenario import Scenario
from simulator.specs import ClusterSpec, NodeGroupSpec, TransformerSpec, parts_of
from simulator.specs._base import Quantity
from simulator.units import Dimension, parse, render

_GROUP_ONLY: Final = frozenset(NodeGroupSpec.model_fields) - frozenset(ClusterSpec.model_fields)


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What is known of one dotted key of a scenario.

    Attributes:
        dimension: What it measures, None for what has no unit.
        allow_zero: Whether the quantity may be zero.
        whole: Whether it takes whole numbers only.
        numeric: Whether it takes numbers (quantities included).
    """

    dimension: Dimension | None = None
    allow_zero: bool = False
    whole: bool = False
    numeric: bool = False

    def number(self, value: object) -> float | int | None:
        """The value in SI units, None if it is no number here."""
        if isinstance(value, bool):
            return None
        if isinstance(value, (int, float)):
            return value
        if self.dimension is not None and isinstance(value, str):
            try:
                return parse(value, self.dimension, allow_zero=self.allow_zero)
            except UnitError:
                return None
        return None

    def written(self, number: float) -> object:
        """A number as the scenario takes it: text with a unit, a whole number, or as it is."""
        if self.dimension is not None:
            return render(float(number), self.dimension)
        if self.whole and float(number).is_integer():
            return int(number)
        return number


@cache
def key_facts(key: str) -> KeyFacts:
    """The facts of a dotted key; of an unknown one, that nothing is known."""
    field = _field(key.split("."))
    if field is None:
        return KeyFacts()
    parts = list(parts_of(field))
    for part in parts:
        if isinstance(part, Quantity):
            return KeyFacts(part.dimension, part.allow_zero, numeric=True)
    whole = int in parts and float not in parts
    return KeyFacts(whole=whole, numeric=whole or float in parts)


def _field(steps: list[str]) -> FieldInfo | None:
    """The field that a key leads to; a key of a dict leads to the dict's field."""
    spec: type[BaseModel] = Scenario
    steps = _in_short_form(steps)
    named = False  # whether the step is a name of the user's in a mapping of specs
    for place, step in enumerate(steps):
        if named:
            named = False
            continue
        field = spec.model_fields.get(step)
        if field is None:
            return None
        last = place == len(steps) - 1
        if last or (get_origin(field.annotation) is dict and place == len(steps) - 2):
            return field
        inner = _spec_in(step, field)
        if inner is None:
            return None
        spec, named = inner, get_origin(field.annotation) is dict
    return None


def _in_short_form(steps: list[str]) -> list[str]:
    if steps[:2] == ["cluster", "node_groups"] and len(steps) > 3:
        return ["cluster", "node_groups", *steps[3:]]
    if steps[0] == "cluster" and len(steps) > 1 and steps[1] in _GROUP_ONLY:
        return ["cluster", "node_groups", *steps[1:]]
    return steps


def _spec_in(step: str, field: FieldInfo) -> type[BaseModel] | None:
    if step == "model":
        return TransformerSpec
    for part in parts_of(field):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None
