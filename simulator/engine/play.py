"""Chooses a player and plays."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from simulator.engine.program import Program
from simulator.engine.record import Record
from simulator.engine.validate import MalformedProgramError, validate
from simulator.units import MAX_PICOSECONDS

Player = Literal["auto", "reference", "compiled"]

RateChange = tuple[int, int, int]
"""When [ps], which capacity, its new base rate [units/s]."""

SMALL = 5_000
"""Activities up to which a fresh process plays a Program on SimPy, and a few times more for elasticities,
sooner than it loads compiled code."""

SMALL_UNCOMPILED = 60_000
"""The same where the code is not compiled yet: that takes some twenty seconds, once an installation."""


class Choice(NamedTuple):
    """Which player plays, and why."""

    player: Literal["reference", "compiled"]
    why: str


def choose(program: Program, player: Player = "auto") -> Choice:
    """The player that `play` takes.

    Args:
        program: What is to be played.
        player: ``auto`` takes the reference player for a Program of at most `SMALL` activities
            while the compiled one is not loaded (`SMALL_UNCOMPILED` while it is not even compiled), and the
            compiled one otherwise.
    """
    if player == "reference":
        return Choice("reference", "asked for")
    if player == "compiled":
        return Choice("compiled", "asked for")
    if "simulator.engine.compiled" in sys.modules:
        return Choice("compiled", "it is loaded")
    if program.num_activities <= SMALL:
        return Choice("reference", "one small program does not pay for loading the compiled player")
    if program.num_activities <= SMALL_UNCOMPILED and not is_compiled():
        return Choice("reference", "one program of this size does not pay for compiling the compiled player")
    return Choice("compiled", f"the program has more than {SMALL} activities")


def is_compiled() -> bool:
    """Whether an earlier process left compiled code beside this file; where it went elsewhere, no."""
    return any(Path(__file__).with_name("__pycache__").glob("kernel.run-*.nbi"))


def play(program: Program, player: Player = "auto", rate_changes: Sequence[RateChange] = ()) -> Record:
    """Plays a Program from its first to its last activity.

    Args:
        program: The Program.
        player: ``reference``, ``compiled`` or ``auto``; both give the same record, bit for bit.
        rate_changes: Timed changes of base rates; at one instant they happen in the order given.

    Returns:
        The record; `Record.player` and `Record.why` tell who played and why.

    Raises:
        MalformedProgramError: The Program or a rate change contradicts itself.
        DeadlockError: Activities wait for ever.
        SimulationError: An activity would end beyond the horizon, or holds leave nothing of a capacity.
    """
    validate(program)
    changes = sorted(rate_changes, key=lambda change: change[0])
    for at_ps, capacity, rate in changes:
        known = 0 <= capacity < len(program.capacities.names)
        if not known or not 0 <= at_ps <= MAX_PICOSECONDS or not rate >= 1:
            raise MalformedProgramError(f"cannot set capacity {capacity} to {rate} units/s at {at_ps} ps")
    choice = choose(program, player)
    record = _play_reference(program, changes) if choice.player == "reference" else _play(program, changes)
    return dataclasses.replace(record, why=choice.why)


def _play_reference(program: Program, changes: Sequence[RateChange]) -> Record:
    from simulator.engine.reference import ReferencePlayer

    player = ReferencePlayer(program)
    for at_ps, capacity, rate in changes:
        player.change_rate(at_ps, capacity, rate)
    return player.finish()


def _play(program: Program, changes: Sequence[RateChange]) -> Record:
    from simulator.engine.compiled import play_compiled

    return play_compiled(program, changes)
