"""Which ranks work together: the axes of a plan on the cluster's rank numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

Group = str
"""``tensor``, ``context``, ``pipeline``; ``data`` (all that hold the same dense parameters), ``shard`` and
``replica`` (its parts where parameters are sharded within groups), ``expert`` (those that share out the
experts), ``expert_tensor``, ``expert_data`` (those that hold the same experts), ``expert_shard`` and
``expert_replica`` (its parts where parameters are sharded within groups)."""

DEFAULT_ORDER = ("tensor", "context", "data", "pipeline")
"""Innermost first, as Megatron numbers ranks."""


@dataclass(frozen=True, slots=True)
class Axes:
    """Degrees of parallelism in the order in which they number the ranks.

    Attributes:
        order: Axes, innermost first.
        degrees: Degree of each, in the same order.
        expert_parallel: Ranks that the experts are spread over, taken from those that share one copy of the
            dense layers (tensor, context, data) and are left when each expert is split.
        expert_tensor_parallel: Ranks that each expert is split over.
        sharding_group: Ranks of `data` that share out one copy of the state.
        copies: Copies of the model on the stages of one pipeline; 2 where micro-batches enter at both ends.
    """

    order: tuple[str, ...]
    degrees: tuple[int, ...]
    expert_parallel: int = 1
    expert_tensor_parallel: int = 1
    sharding_group: int = 1
    copies: int = 1
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """All that asks for a group looks its members up."""
        sizes = self.expert_parallel, self.expert_tensor_parallel, self.sharding_group, self.copies
        object.__setattr__(self, "_hash", hash((self.order, self.degrees, sizes)))

    def __hash__(self) -> int:
        """Worked out once."""
        return self._hash

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
        if group in ("context", "pipeline"):
            return self._ranks((group,))
        grid, width = self._grid(group), self._shared(group)
        split = self.expert_tensor_parallel
        found = {
            "tensor": grid[:, 0],
            "expert_tensor": grid[:split, 0],
            "expert": grid[::split, 0],
            "data": grid[0],
            "shard": grid[0, :width],
            "replica": grid[0, ::width],
        }
        members: NDArray[np.int64] = found[_kind(group)]
        return members

    def _grid(self, group: Group) -> NDArray[np.int64]:
        """Ranks of a stage; those of a row hold the same of the layers that the group is about.

        With the ranks of the stage at the other end behind them, where that holds the same part of the model.
        """
        if group.startswith("expert"):
            block = self.expert_tensor_parallel * self.expert_parallel
            grid = self._expert_ranks().reshape(-1, block).T
        else:
            grid = self._ranks(("tensor",))[:, None] + self._ranks(("context", "data"))[None, :]
        if self.copies == 1:
            return grid
        return np.concatenate((grid, grid + self.stride("pipeline") * (self.along("pipeline") - 1)), axis=1)

    def _shared(self, group: Group) -> int:
        """Ranks of a row that share out one copy of the state."""
        if not group.startswith("expert"):
            return self.sharding_group
        stage = prod(self.degrees) // self.along("pipeline")
        dense = stage // self.along("tensor") * self.copies
        same = stage // (self.expert_tensor_parallel * self.expert_parallel) * self.copies
        return max(1, same * self.sharding_group // dense)

    def _expert_ranks(self) -> NDArray[np.int64]:
        """Ranks of a stage as the experts' layers number them: those that split an expert are neighbours.

        As many of tensor's ranks as fit come first, then all others in the order of the axes. With tensor
        innermost these are the stage's ranks in ascending order.

        Source: Liu et al., MoE Parallel Folding, arXiv:2504.14960; Megatron-Core,
            ``expert_decoder_rank_generator`` in megatron/core/parallel_state.py.
        """
        inner = gcd(self.expert_tensor_parallel, self.along("tensor"))
        found = np.zeros(1, np.int64)
        for axis in self.order:
            if axis != "pipeline":
                first = inner if axis == "tensor" else 1
                steps = np.arange(0, self.along(axis), first, dtype=np.int64) * self.stride(axis)
                found = (steps[:, None] + found[None, :]).ravel()
        near = np.arange(inner, dtype=np.int64) * self.stride("tensor")
        return (found[:, None] + near[None, :]).ravel()

    def groups(self, group: Group, end: int = 0) -> NDArray[np.int64]:
        """Number of the group that each rank of a stage is in, ranks in ascending order.

        Args:
            group: Which groups.
            end: 0 for the first stage; 1 for the one at the other end where that holds the same part: groups
                of one number are one group.
        """
        grid, width, split = self._grid(group), self._shared(group), self.expert_tensor_parallel
        row, column = np.indices(grid.shape)
        wide = grid.shape[1]
        of_data = grid // self.stride("data") % self.along("data") + self.along("data") * (
            column * self.copies // wide
        )
        found = {
            "tensor": column,
            "context": row * wide + of_data,
            "expert_tensor": row // split * wide + column,
            "expert": row % split * wide + column,
            "data": row,
            "shard": row * wide + column // width,
            "replica": row * wide + column % width,
        }
        here = slice(wide // self.copies * end, wide // self.copies * (end + 1))
        # Counted from 0 over both ends, so that groups at one end are told from those at the other.
        numbers = np.unique(found[_kind(group)], return_inverse=True)[1].reshape(grid.shape)
        return np.asarray(numbers[:, here].ravel()[np.argsort(grid[:, here].ravel())])

    def meets_other_end(self, group: Group) -> bool:
        """Whether groups have ranks of two stages that hold the same part of the model."""
        return self.copies > 1 and bool((self.groups(group) == self.groups(group, 1)).all())

    def _ranks(self, axes: tuple[str, ...]) -> NDArray[np.int64]:
        found = np.zeros(1, np.int64)
        for axis in self.order:
            if axis in axes:
                steps = np.arange(self.along(axis), dtype=np.int64) * self.stride(axis)
                found = (steps[:, None] + found[None, :]).ravel()
        return found


def _kind(group: Group) -> str:
    """What a group is among the layers that it is about: experts are sharded as all else is."""
    return group if group in ("expert", "expert_tensor") else group.removeprefix("expert_")


@lru_cache(maxsize=4096)
def _members(axes: Axes, group: Group) -> NDArray[np.int64]:
    """Members of a group, worked out once: every collective asks for them."""
    members = axes._found(group)
    members.flags.writeable = False
    return members
