"""Pools as the reference player keeps them: how full they are, and were at most, and who gave last."""

from __future__ import annotations

from simulator.engine.kinds import Kind
from simulator.engine.program import Program


class Pools:
    """The pools of a Program while it is played.

    Attributes:
        level: Amount taken in each.
        peak: Highest amount in each, and the first moment of it [ps].
        giver: Activity that waited for a blocking pool -> the one that gave back what let it start.
    """

    def __init__(self, program: Program) -> None:
        pools = program.pools
        self.level = [int(amount) for amount in pools.initial]
        self.peak = [(amount, 0) for amount in self.level]
        self.giver: dict[int, int] = {}
        self._last = [(-1, -1)] * len(self.level)
        self._limits = [int(limit) for limit in pools.limits]
        self._blocking = [bool(blocks) for blocks in pools.blocking]

    def fit(self, kind: Kind) -> bool:
        """Whether all that an activity takes from blocking pools is there."""
        return all(
            not self._blocking[pool] or not take or self.level[pool] + take <= self._limits[pool]
            for pool, take, _ in kind.pools
        )

    def take(self, kind: Kind, activity: int, since: int, now: int) -> None:
        """An activity that has been ready `since` then takes what it needs."""
        givers = []
        for pool, take, _ in kind.pools:
            level = self.level[pool] = self.level[pool] + take
            if level > self.peak[pool][0]:
                self.peak[pool] = (level, now)
            if self._blocking[pool] and take and self._last[pool][0] == now:
                givers.append(self._last[pool][1])
        if since < now:
            self.giver[activity] = min(givers)

    def give(self, kind: Kind, activity: int, now: int) -> bool:
        """An activity that ends gives back; whether to a pool that others may wait for."""
        given = False
        for pool, _, give in kind.pools:
            self.level[pool] -= give
            if give and self._blocking[pool]:
                time, giver = self._last[pool]
                self._last[pool] = (now, min(giver, activity) if time == now else activity)
                given = True
        return given
