"""A Result as the text of result.json: one fixed order, no NaN, the same bytes for equal results."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from typing import Any

from simulator.analysis.result import Result


def result_json(result: Result, notes: dict[str, str] | None = None) -> str:
    """The text of result.json.

    Fields stand in the order of `Result`; keys within a field are sorted, but ranked lists keep their
    order. Only ``wall_s``, ``player`` and ``num_events`` may differ between two runs of one scenario.

    Args:
        result: What was found; its tables are not part of the text.
        notes: File -> what it leaves out; written as ``files`` where there is any.

    Raises:
        ValueError: A figure is NaN or infinite, which no result may hold.
    """
    document: dict[str, Any] = {
        item.name: _plain(getattr(result, item.name), item.name, real="float" in str(item.type))
        for item in fields(result)
        if not item.name.startswith("_")
    }
    if notes:
        document["files"] = dict(sorted(notes.items()))
    return json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def _plain(value: Any, path: str, *, real: bool = False) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if is_dataclass(value):
        items = fields(value)
        return {
            item.name: _plain(
                getattr(value, item.name), f"{path}.{item.name}", real="float" in str(item.type)
            )
            for item in items
        }
    if isinstance(value, dict):
        return {str(key): _plain(value[key], f"{path}.{key}", real=real) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{position}]", real=real) for position, item in enumerate(value)]
    if not math.isfinite(value):
        raise ValueError(f"{path} is {value}; a result holds finite figures only")
    # Adding zero turns -0.0, which equals 0.0, into the same text.
    return float(value) + 0.0 if real or int(value) != value else int(value)
