"""What a player hands back: who ran when, at the mercy of what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.engine.program import I32, I64

WAIT_NONE = 0
"""Nothing was awaited: ready at the very beginning."""
WAIT_DEPENDENCY = 1
"""The last thing awaited was an activity depended on."""
WAIT_LANE = 2
"""The last thing awaited was the activity before it on the lane."""
WAIT_POOL = 3
"""The last thing awaited was an activity that gave back to a blocking pool."""


@dataclass(frozen=True, slots=True)
class Record:
    """The history of one Program; times in picoseconds, all arrays int64 or int32.

    Every moment of an activity between `ready` and `end` is accounted for: waiting (`ready` to
    `start`, for the lane or a pool), delay (`start` to `start + delay`), then segments of constant speed.

    Attributes:
        ready: When the last dependency had ended, shape [N].
        start: When it was granted, shape [N].
        end: When it had ended, shape [N].
        awaited: The activity whose end let it start, -1 if none, shape [N], int32.
        awaited_kind: One of the ``WAIT_`` constants, shape [N], int32.
        limit: Capacity that bounded the first segment, -1 where the class has no demand, shape [N], int32.
        segment_activity: Activities whose speed changed while they ran, a row a further segment,
            shape [S], int32, ordered by (activity, time).
        segment_start: When the further segment began, shape [S], int64.
        segment_limit: Capacity that bounds the further segment, shape [S], int32.
        segment_left: Part of the activity's work that was left when the further segment began, 0 to 1,
            shape [S], float64. The first segment did 1 minus the first of them, and so on.
        pool_peak: Highest amount taken in each pool, shape [P], int64.
        pool_peak_time: First moment of the peak, shape [P], int64.
        pool_final: Amount taken at the end, shape [P], int64.
        makespan: End of the last activity.
        num_events: Events that the player processed (differs between players).
        player: ``reference`` or ``compiled``.
        why: Why this player was taken.
    """

    ready: I64
    start: I64
    end: I64
    awaited: I32
    awaited_kind: I32
    limit: I32
    segment_activity: I32
    segment_start: I64
    segment_limit: I32
    segment_left: NDArray[np.float64]
    pool_peak: I64
    pool_peak_time: I64
    pool_final: I64
    makespan: int
    num_events: int
    player: str
    why: str = ""
