"""Which ranks work together: the axes of a plan on the cluster's rank numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

Group = str
"""``tensor``, ``context``, ``pipeline``; ``data`` (all that hold the same dense parameters), ``shard`` and
``replica`` (its parts where parameters are sharded within groups), ``expert`` (those that share out the
experts), ``expert_tensor``, ``expert_data`` (those that hold the same experts)."""

DEFAULT_ORDER = ("tensor", "context", "data", "pipeline")
"""Innermost first, as Megatron numbers ranks."""


@dataclass(frozen=True, slots=True)
class Axes:
    """Degrees of parallelism in the order in which they number the ranks.

    Attributes:
        order: Axes, innermost first.
        degrees: Degree of each, in the same order.
        expert_parallel: Ranks that the experts are spread over, taken from those of context and data (and of
            tensor, where experts are not split).
        expert_tensor_parallel: Ranks that each expert is split over: all of tensor's, or one.
        sharding_group: Ranks of `data` that share out one copy of the state.
        copies: Copies of the model on the stages of one pipeline; 2 where micro-batches enter at both ends.
    """

    order: tuple[str, ...]
    degrees: tuple[int, ...]
    expert_parallel: int = 1
    expert_tensor_parallel: int = 1
    sharding_group: int = 1
    copies: int = 1

    @property
    def num_ranks(self) -> int:
        """All ranks."""
        return prod(self.degrees)

    def along(self, axis: str) -> int:
        """Degree of one axis."""
        return self.degrees[self.order.index(axis)]

    def stride(self, axis: str) -> int:
        """Distance in ranks between neighbours along an axis."""
        return prod(self.degrees[: self.order.index(axis)])

    def members(self, group: Group) -> NDArray[np.int64]:
        """Ranks of the group that rank 0 is in, in ascending order of their place along the axes."""
        return _members(self, group)

    def _found(self, group: Group) -> NDArray[np.int64]:
        if group in ("tensor", "context", "pipeline"):
            return self._ranks((group,))
        data = self._copied(self._ranks(("context", "data")))
        if group == "data":
            return data
        if group in ("shard", "replica"):
            return data[: self.sharding_group] if group == "shard" else data[:: self.sharding_group]
        whole = self.expert_tensor_parallel == self.along("tensor")
        if group == "expert_tensor":
            return self._ranks(("tensor",)) if whole else np.zeros(1, np.int64)
        spread = self._ranks(("context", "data") if whole else ("tensor", "context", "data"))
        if group == "expert":
            return spread[: self.expert_parallel]
        spread = self._copied(spread)
        if group == "expert_data":
            return spread[:: self.expert_parallel]
        raise KeyError(group)

    def groups(self, group: Group, end: int = 0) -> NDArray[np.int64]:
        """Number of the group that each rank of a stage is in, ranks in ascending order.

        Args:
            group: Which groups.
            end: 0 for the first stage; 1 for the one at the other end where that holds the same part: groups
                of one number are one group.
        """
        ranks = np.sort(self._ranks(("tensor", "context", "data")))
        beyond = self.stride("pipeline") * (self.along("pipeline") - 1) if self.copies > 1 else 0
        both = np.concatenate((ranks, ranks + beyond)) if beyond else ranks
        place = np.full(int(both[-1]) + 1, -1, np.int64)
        members = self.members(group)
        count = 0
        for rank in both:
            # The lowest rank of a group is an origin; all others are at the same distances from it as from 0.
            if place[rank] < 0:
                place[rank + members] = count
                count += 1
        return place[ranks + beyond * end]

    def meets_other_end(self, group: Group) -> bool:
        """Whether groups have ranks of two stages that hold the same part of the model."""
        return self.copies > 1 and bool((self.groups(group) == self.groups(group, 1)).all())

    def _copied(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """With the ranks of the stage at the other end, where that holds the same part of the model."""
        if self.copies == 1:
            return ranks
        return np.concatenate([ranks, ranks + self.stride("pipeline") * (self.along("pipeline") - 1)])

    def _ranks(self, axes: tuple[str, ...]) -> NDArray[np.int64]:
        found = np.zeros(1, np.int64)
        for axis in self.order:
            if axis in axes:
                steps = np.arange(self.along(axis), dtype=np.int64) * self.stride(axis)
                found = (steps[:, None] + found[None, :]).ravel()
        return found


@lru_cache(maxsize=4096)
def _members(axes: Axes, group: Group) -> NDArray[np.int64]:
    """Members of a group, worked out once: every collective asks for them."""
    members = axes._found(group)
    members.flags.writeable = False
    return members
