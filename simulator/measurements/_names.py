"""Finds the catalogue's entry for a name as other people write it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from simulator.errors import UnsupportedError

if TYPE_CHECKING:
    from simulator.catalog import Kind

_MAKERS = frozenset({"amd", "google", "intel", "nvidia"})
"""Left out of the names of accelerators and interconnects: no two makers share one."""

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?")


@cache
def accelerator(name: str, scale_up: str) -> str:
    """The catalogue's accelerator, such as ``H100-SXM5-80GB`` for ``H100-SXM-80GB``.

    A name that fits several cards (``A100-80GB``) means the one with the link of the row: the board for
    NVLink is ``SXM``, the one for PCIe ``PCIe``.

    Raises:
        UnsupportedError: No entry, or several.
    """
    form = {"nvlink": "sxm", "pcie": "pcie"}.get(next(iter(words(scale_up)), ""))
    return _find(
        "accelerators", name, ("cluster", "accelerator"), lambda name: form is None or form in words(name)
    )


@cache
def interconnect(name: str, home: str = "") -> str:
    """The catalogue's interconnect, such as ``PCIe4-x16`` for ``PCIe4``.

    Args:
        name: As other people write it; ``none`` means that there is nothing but PCIe.
        home: Interconnect of the accelerator's own system, if known: what is meant by the name of its
            technology alone (``ICI 3D torus``, ``xGMI full mesh``).

    Raises:
        UnsupportedError: No entry, or several.
    """
    technology, own = words(name)[:1], words(home)[:1]
    if technology == ("none",):
        return home if own == ("pcie",) else "PCIe4"
    try:
        return _find("interconnects", name, ("cluster",), lambda _name: True)
    except UnsupportedError:
        if technology and technology == own:
            return home
        raise


def _find(kind: Kind, name: str, path: Sequence[str], preferred: Callable[[str], bool]) -> str:
    from simulator.catalog import UnknownEntry, entry, names

    try:
        return str(entry(kind, name)["name"])
    except UnknownEntry as unknown:
        suggestions = unknown.suggestions
    wanted = set(words(name)) - _MAKERS
    fitting = [each for each in names(kind) if wanted.issubset(words(each))]
    better = [each for each in fitting if preferred(each)]
    chosen = better or fitting
    if len(chosen) == 1:
        return chosen[0]
    said = ", ".join(chosen or suggestions)
    hint = f"; it may be {said}" if said else ""
    raise UnsupportedError(path, f'"{name}" is not in the catalogue{hint}')


@cache
def words(name: str) -> tuple[str, ...]:
    """A name's letters and numbers, apart; the generation of a form factor is dropped: SXM5 is SXM."""
    parts = _WORD.findall(name.casefold())
    return tuple(
        part
        for place, part in enumerate(parts)
        if not (part.isdigit() and place and parts[place - 1] == "sxm")
    )
