"""Weighted max-min shares by progressive filling, as the reference player solves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulator.engine.tables import LEAST_LEVEL


def max_min(
    available: Mapping[int, float],
    runners: Mapping[int, Sequence[int]],
    usage: Mapping[int, Mapping[int, float]],
    weight: Mapping[int, int],
) -> dict[int, tuple[float, int]]:
    """Shares of full speed, s_i = min(1, w_i * level), frozen at the first capacity that is used up.

    The level rises from zero. Where it takes an activity to full speed, the activity is frozen
    there; where it uses up a capacity, everyone not yet frozen on it is. Sums run over a
    capacity's activities in order of id, so that another implementation gets the same bits.

    Args:
        available: Units per picosecond of each capacity that may be used up.
        runners: Activities on each of them, in order of id.
        usage: Activity -> capacity -> units per picosecond at full speed; only these capacities.
        weight: Weight of each activity.

    Returns:
        Activity -> share, and the capacity at which it was frozen (-1 at full speed).
    """
    shares: dict[int, tuple[float, int]] = {}
    levels: dict[int, float] = {}

    def refresh(capacity: int) -> None:
        used = asked = 0.0
        for activity in runners[capacity]:
            if activity in shares:
                used += shares[activity][0] * usage[activity][capacity]
            else:
                asked += weight[activity] * usage[activity][capacity]
        levels.pop(capacity, None)
        if asked > 0.0:
            levels[capacity] = max((available[capacity] - used) / asked, LEAST_LEVEL)

    for capacity in available:
        refresh(capacity)
    while levels:
        level, bottleneck = min((level, capacity) for capacity, level in levels.items())
        frozen = {a: (1.0, -1) for a in usage if a not in shares and weight[a] * level >= 1.0}
        if not frozen:
            frozen = {a: (weight[a] * level, bottleneck) for a in runners[bottleneck] if a not in shares}
        shares.update(frozen)
        for capacity in {capacity for activity in frozen for capacity in usage[activity]}:
            refresh(capacity)
    return shares
