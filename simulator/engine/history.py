"""What a history of starts and ends tells: when each activity was ready, and what it awaited."""

from __future__ import annotations

import numpy as np

from simulator.engine.program import I32, I64, Program
from simulator.engine.record import WAIT_DEPENDENCY, WAIT_LANE, WAIT_NONE, WAIT_POOL


def previous_on_lane(program: Program) -> I64:
    """The activity before each on its lane, -1 for the first, shape [N]."""
    order = np.argsort(program.lane, kind="stable")
    lanes = program.lane[order]
    previous = np.full(program.num_activities, -1, np.int64)
    same = lanes[1:] == lanes[:-1]
    previous[order[1:][same]] = order[:-1][same]
    return previous


def last_dependency(program: Program, end: I64, release: I64) -> tuple[I64, I64]:
    """When each activity's last dependency had ended, and the lowest one that ended then.

    Args:
        program: The Program.
        end: End of each activity [ps].
        release: When each activity was submitted [ps]; nothing is ready before.

    Returns:
        Time ready [ps] and the dependency (-1 if there is none, or it ended before `release`).
    """
    ready, last = release.copy(), np.full(program.num_activities, -1, np.int64)
    having = np.flatnonzero(np.diff(program.dep_ptr) > 0)
    if having.size:
        firsts = program.dep_ptr[having]
        ends = end[program.dep]
        latest = np.maximum.reduceat(ends, firsts)
        spread = np.repeat(latest, np.diff(program.dep_ptr)[having])
        candidates = np.where(ends == spread, program.dep, np.iinfo(np.int32).max)
        in_time = latest >= release[having]
        ready[having] = np.maximum(latest, release[having])
        last[having] = np.where(in_time, np.minimum.reduceat(candidates, firsts), -1)
    return ready, last


def awaited(program: Program, start: I64, end: I64, release: I64, giver: I32) -> tuple[I64, I32, I32]:
    """Ready time of each activity, and what its start awaited last.

    A pool if it was granted later than its turn came; else a dependency if the last one ended at
    the very start (the lowest such); else the activity before it on the lane; else nothing.

    Args:
        program: The Program.
        start: Start of each activity [ps].
        end: End of each activity [ps].
        release: When each activity was submitted [ps].
        giver: Activity whose gift to a blocking pool let it start, -1 where it did not wait for one.

    Returns:
        `Record.ready`, `Record.awaited` and `Record.awaited_kind`.
    """
    ready, last = last_dependency(program, end, release)
    previous = previous_on_lane(program)
    by_dependency = (last >= 0) & (ready == start)
    by_lane = (previous >= 0) & (end[previous] == start) if end.size else np.zeros(0, np.bool_)
    choices = [giver >= 0, by_dependency, by_lane]
    whom = np.select(choices, [giver, last, previous], -1)
    kind = np.select(choices, [WAIT_POOL, WAIT_DEPENDENCY, WAIT_LANE], WAIT_NONE)
    return ready, whom.astype(np.int32), kind.astype(np.int32)
