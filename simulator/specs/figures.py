"""What one figure of a catalogue entry rests on."""

from __future__ import annotations

from typing import Literal

from simulator.specs._base import Spec

Basis = Literal["datasheet", "measured", "assumed"]


class Figure(Spec):
    """Where one figure comes from."""

    basis: Basis
    """`datasheet`, `measured` or `assumed`."""
    source: str
    """URL, document or reasoning behind the figure."""

    def __repr__(self) -> str:
        """Short, for blocks are recognised by what they look like."""
        return f"Figure({self.basis!r}, {self.source!r})"
