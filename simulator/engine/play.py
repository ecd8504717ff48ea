"""Chooses the player."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from simulator.engine.program import Program
from simulator.engine.record import Record
from simulator.engine.validate import validate

Player = Literal["auto", "reference", "compiled"]

RateChange = tuple[int, int, int]
"""When [ps], which capacity, its new base rate [units/s]."""


def play(program: Program, player: Player = "auto", rate_changes: Sequence[RateChange] = ()) -> Record:
    """Plays a Program from its first to its last activity.

    Raises:
        MalformedProgramError: The Program contradicts itself.
        DeadlockError: Activities wait for ever.
        SimulationError: An activity would end beyond the horizon, or holds leave nothing of a capacity.
    """
    validate(program)
    from simulator.engine.reference import ReferencePlayer

    reference = ReferencePlayer(program)
    for at_ps, capacity, rate in rate_changes:
        reference.change_rate(at_ps, capacity, rate)
    return reference.finish()
