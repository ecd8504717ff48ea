"""Which stages share a node, and how many GPUs each has on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from simulator.program.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of the stages' representatives (the GPU with the lowest number of each stage).

    Attributes:
        home: Of each stage, the first stage whose representative is on the same node.
        gpus: GPUs of each stage on that node.
    """

    home: tuple[int, ...]
    gpus: tuple[int, ...]


def nodes_of(plan: Plan) -> Nodes:
    """Where the stages' representatives are.

    Valid: all nodes of a stage hold as many of its GPUs as that of its representative.
    """
    return _nodes(
        plan.pipeline_parallel, plan.axes.stride("pipeline"), plan.group.gpus_per_node, plan.num_gpus
    )


@lru_cache(maxsize=256)
def _nodes(stages: int, stride: int, per_node: int, num_gpus: int) -> Nodes:
    number = np.arange(stages)
    node = number * stride // per_node
    ranks = node[:, None] * per_node + np.arange(per_node)
    own = (ranks // stride % stages == number[:, None]) & (ranks < num_gpus)
    return Nodes(home=tuple(np.searchsorted(node, node).tolist()), gpus=tuple(own.sum(axis=1).tolist()))
