"""Programs of activities that draw on capacities, and the players that play them."""

from simulator.engine.builder import ProgramBuilder
from simulator.engine.play import play
from simulator.engine.program import Capacities, Classes, Label, Lanes, Pools, Program, concatenate
from simulator.engine.record import WAIT_DEPENDENCY, WAIT_LANE, WAIT_NONE, WAIT_POOL, Record
from simulator.engine.validate import MalformedProgramError, validate

__all__ = [
    "WAIT_DEPENDENCY",
    "WAIT_LANE",
    "WAIT_NONE",
    "WAIT_POOL",
    "Capacities",
    "Classes",
    "Label",
    "Lanes",
    "MalformedProgramError",
    "Pools",
    "Program",
    "ProgramBuilder",
    "Record",
    "concatenate",
    "play",
    "validate",
]
