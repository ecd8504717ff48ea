"""Plain data into YAML that reads back as the same data, and one text only for each data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from simulator.documents._scalars import ScalarError, is_bare, read_plain


def write_yaml(data: Mapping[str, object]) -> str:
    """A mapping of plain values as block YAML; empty containers and lists of scalars in flow style.

    Raises:
        TypeError: A value that is no dict, list, tuple, text, number, bool or None, or a key that is no text.
    """
    return "".join(_lines(data, 0)) if data else "{}\n"


def _lines(data: Mapping[str, object], indent: int) -> list[str]:
    lines: list[str] = []
    for key, value in data.items():
        lines += _entry(f"{' ' * indent}{_key(key)}:", value, indent)
    return lines


def _entry(head: str, value: object, indent: int) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [f"{head}\n", *_lines(value, indent + 2)]
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        return [f"{head}\n", *_items(value, indent)]
    return [f"{head} {_flow(value)}\n"]


def _items(values: Sequence[object], indent: int) -> list[str]:
    lines: list[str] = []
    for item in values:
        if isinstance(item, Mapping) and item:
            inner = _lines(item, indent + 2)
            inner[0] = f"{' ' * indent}- {inner[0].lstrip(' ')}"
            lines += inner
        else:
            lines.append(f"{' ' * indent}- {_flow(item)}\n")
    return lines


def _flow(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value, allow_nan=False)
    raise TypeError(f"cannot write a {type(value).__name__} as YAML")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key must be text, not {key!r}")
    return _text(key)


def _text(text: str) -> str:
    # Characters that some readers take for line breaks or refuse are escaped by json.dumps.
    if not is_bare(text):
        return json.dumps(text)
    try:
        return text if read_plain(text) == text else json.dumps(text)
    except ScalarError:
        return json.dumps(text)
