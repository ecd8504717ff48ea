"""Programs of activities that draw on capacities, and the players that play them."""

from typing import TYPE_CHECKING

from simulator.engine.builder import ProgramBuilder
from simulator.engine.loading import load_compiled
from simulator.engine.play import Choice, Player, RateChange, choose, is_compiled, play
from simulator.engine.program import Capacities, Classes, Label, Lanes, Pools, Program, Structure, concatenate
from simulator.engine.record import WAIT_DEPENDENCY, WAIT_LANE, WAIT_NONE, WAIT_POOL, Record
from simulator.engine.validate import MalformedProgramError, validate

if TYPE_CHECKING:
    from simulator.engine.reference import ReferencePlayer

__all__ = [
    "WAIT_DEPENDENCY",
    "WAIT_LANE",
    "WAIT_NONE",
    "WAIT_POOL",
    "Capacities",
    "Choice",
    "Classes",
    "Label",
    "Lanes",
    "MalformedProgramError",
    "Player",
    "Pools",
    "Program",
    "ProgramBuilder",
    "RateChange",
    "Record",
    "ReferencePlayer",
    "Structure",
    "choose",
    "concatenate",
    "is_compiled",
    "load_compiled",
    "play",
    "validate",
]


def __getattr__(name: str) -> object:
    """The reference player, loaded with SimPy only when it is asked for."""
    if name == "ReferencePlayer":
        from simulator.engine.reference import ReferencePlayer

        return ReferencePlayer
    raise AttributeError(name)
