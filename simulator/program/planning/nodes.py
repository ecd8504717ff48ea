"""Which stages share a node, and how many GPUs each has on it."""

from __future__ import annotations

from dataclasses import dataclass

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
    ranks = np.arange(plan.num_gpus)
    stage = ranks // plan.axes.stride("pipeline") % plan.pipeline_parallel
    node = ranks // plan.group.gpus_per_node
    lowest = [int(np.argmax(stage == number)) for number in range(plan.pipeline_parallel)]
    at = [int(node[rank]) for rank in lowest]
    return Nodes(
        home=tuple(at.index(each) for each in at),
        gpus=tuple(int(((stage == number) & (node == each)).sum()) for number, each in enumerate(at)),
    )
