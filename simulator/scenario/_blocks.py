"""Blocks into specs: each is validated once and remembered, so that repeated blocks cost nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from simulator.documents import KeyPath
from simulator.scenario._findings import Findings
from simulator.scenario._messages import shown, translate
from simulator.scenario._scenario import Scenario
from simulator.specs import ClusterSpec, LayerListSpec, NodeGroupSpec, TransformerSpec
from simulator.specs._base import Spec

S = TypeVar("S", bound=Spec)

_MAX_REMEMBERED: Final = 4096
_remembered: dict[tuple[type[Spec], str], Spec] = {}
_COMPOSED: Final = frozenset({NodeGroupSpec, ClusterSpec, Scenario})


def block(
    spec: type[S],
    data: object,
    path: KeyPath,
    findings: Findings,
    *,
    extra_keys: Collection[str] = (),
    absent: Collection[str] = (),
) -> S | None:
    """The spec of one block; None, and the mistakes noted, if it is wrong.

    Args:
        spec: What the block describes.
        data: The block as the file has it, short forms expanded.
        path: Where it stands.
        findings: Takes the mistakes.
        extra_keys: Keys that the file's form has beyond the spec's.
        absent: Keys whose own mistakes are noted already, so that they are not called missing too.
    """
    if not isinstance(data, Mapping):
        findings.add(path, f"expected a mapping, not {shown(data)}")
        return None
    # What holds finished specs is cheaper to validate than to recognise.
    key = (spec, repr(data)) if spec not in _COMPOSED else None
    known = _remembered.get(key) if key else None
    if known is not None:
        return known  # type: ignore[return-value]  # the key holds the class
    try:
        made = spec.model_validate(_tuples(data))
    except ValidationError as error:
        name = ".".join(map(str, path))
        for loc, message, of in translate(spec, data, error.errors(include_url=False), name, extra_keys):
            if not (message.startswith("missing") and message.split('"')[1] in absent):
                findings.add((*path, *loc), message, of)
        return None
    if key is not None:
        if len(_remembered) >= _MAX_REMEMBERED:
            _remembered.clear()
        _remembered[key] = made
    return made


def model_block(data: Mapping[str, Any], findings: Findings, extra_keys: Collection[str]) -> Any:
    """The model's spec: a list of layers or a transformer."""
    spec: type[Spec] = LayerListSpec if data.get("kind") == "layers" else TransformerSpec
    # These follow from the others, so they are missing only where those are.
    follows = data.get("num_attention_heads") is None or data.get("hidden_size") is None
    absent = ("num_key_value_heads", "head_dim") if follows else ()
    return block(spec, data, ("model",), findings, extra_keys=extra_keys, absent=absent)


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    # Strict validation takes no list for a tuple; specs are frozen and hold tuples.
    return {key: _tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def _tuple(listed: list[Any]) -> tuple[Any, ...]:
    """Lists inside of lists, too: layers of a block of layers."""
    return tuple(_tuples(item) if isinstance(item, dict) else item for item in listed)
