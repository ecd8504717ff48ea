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
