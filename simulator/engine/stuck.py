"""Says who waits for what when nothing happens any more."""

from __future__ import annotations

import numpy as np

from simulator.engine.program import I64, Program
from simulator.engine.tables import describe
from simulator.errors import DeadlockError
from simulator.units import PICOSECONDS

_SHOWN = 5


def deadlock_error(program: Program, end: I64, levels: I64, now: int) -> DeadlockError:
    """The complaint about a Program that cannot go on.

    Args:
        program: The Program.
        end: End of each activity, negative where it has not ended.
        levels: Amount taken in each pool.
        now: When the last activity ended [ps].
    """
    unfinished = np.flatnonzero(end < 0)
    _, firsts = np.unique(program.lane[unfinished], return_index=True)
    heads = np.sort(unfinished[firsts])
    lines = [
        f"{describe(program, int(head))} waits for {_cause(program, int(head), end, levels)}"
        for head in heads[:_SHOWN]
    ]
    if heads.size > _SHOWN:
        lines.append(f"and {heads.size - _SHOWN} more lanes wait")
    return DeadlockError(
        f"deadlock at {now / PICOSECONDS:g} s, {unfinished.size} of {program.num_activities} activities "
        f"not ended: {'; '.join(lines)}"
    )


def _cause(program: Program, activity: int, end: I64, levels: I64) -> str:
    for dependency in program.dep[program.dep_ptr[activity] : program.dep_ptr[activity + 1]]:
        if end[dependency] < 0:
            return describe(program, int(dependency))
    classes, cls = program.classes, program.cls[activity]
    for row in range(classes.pool_ptr[cls], classes.pool_ptr[cls + 1]):
        pool, take = classes.pool_id[row], int(classes.pool_take[row])
        free = int(program.pools.limits[pool] - levels[pool])
        if program.pools.blocking[pool] and take > max(free, 0):
            return f'{take} of pool "{program.pools.names[pool]}", where {free} are free'
    return "its turn"
