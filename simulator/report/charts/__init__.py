"""The charts of a result, each a pure function of what its folder holds."""

from __future__ import annotations

from collections.abc import Iterator

from simulator.report.saved import SavedResult

__all__ = ["rendered"]


def rendered(saved: SavedResult) -> Iterator[tuple[str, bytes]]:
    """File name and content of every chart of a result, PNG and SVG each."""
    yield from ()
