"""Workload, plan and cluster together: the Program of a scenario."""

from simulator.program import dualpipe, zero_bubble  # noqa: F401  # they register their schedules
from simulator.program.lower import Lowered, lower
from simulator.program.nodes import Nodes, nodes_of
from simulator.program.plan import Plan, make_plan
from simulator.program.schedules import SCHEDULES, Pass, schedule
from simulator.program.size import check_memory
from simulator.program.unfold import Unfolded, num_copies, unfold

__all__ = [
    "SCHEDULES",
    "Lowered",
    "Nodes",
    "Pass",
    "Plan",
    "Unfolded",
    "check_memory",
    "lower",
    "make_plan",
    "nodes_of",
    "num_copies",
    "schedule",
    "unfold",
]
