"""Loads the compiled player, for those who play many Programs and tell how long each takes."""

from __future__ import annotations

from simulator.engine.builder import ProgramBuilder
from simulator.engine.play import play


def load_compiled() -> None:
    """Loads the compiled player's code, and compiles it first where that was not done before."""
    builder = ProgramBuilder()
    link = builder.capacity("link", rate=10**9)
    builder.activity(builder.lane("lane"), demands={link: 1})
    play(builder.build(), "compiled")
