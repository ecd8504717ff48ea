"""What a sweep file may ask its first chart to show, as far as that is known before a point has run."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields
from typing import Final

from simulator.analysis import Result
from simulator.sweep.point import APART, CAMPAIGN, COSTS
from simulator.sweep.table import WIDE

KINDS: Final = ("line", "bar", "heatmap", "bottleneck", "stack", "scatter", "pareto", "scaling", "influence")
"""Kinds of chart; `report` draws them and does not know sweeps, so a test holds both lists together."""

_PLAIN: Final = (
    *(
        field.name
        for field in fields(Result)
        if field.name not in APART and str(field.type).startswith(("float", "int", "str", "bool"))
    ),
    *COSTS,
    *(f"campaign.{name}" for name in CAMPAIGN),
    "bottleneck",
    "status",
    "reason",
    "point",
)
_HEADS: Final = (
    *WIDE.values(),
    *(f.name for f in fields(Result) if str(f.type).startswith("dict") and f.name not in WIDE),
)


def column_complaint(name: str, keys: Sequence[str]) -> str | None:
    """What is wrong with a column's name in a sweep over these keys; None if there will be such a column.

    A key may be named by its end. A figure is named in full, those inside of others too
    (``breakdown.compute.matmul``): which ones there will be shows only when points have run.
    """
    head, _, inside = name.partition(".")
    if name in keys or name in _PLAIN or (inside and head in _HEADS):
        return None
    ends = [key for key in keys if key.endswith(f".{name}")]
    if len(ends) == 1:
        return None
    if ends:
        return f'"{name[:60]}" may be {", ".join(ends[:6])}; name one of them'
    near = difflib.get_close_matches(name, [*keys, *(key.split(".")[-1] for key in keys), *_PLAIN], 3, 0.5)
    hint = f"; did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
    heads = ", ".join(_HEADS)
    return f'"{name[:60]}" is neither an axis nor a figure, and in none of {heads}{hint}'
