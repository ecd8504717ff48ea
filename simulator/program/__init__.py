"""Workload, plan and cluster together: the Program of a scenario."""

from simulator.program.drafting.lower import Lowered, lower
from simulator.program.drafting.size import check_memory
from simulator.program.planning.nodes import Nodes, nodes_of
from simulator.program.planning.plan import Plan, make_plan
from simulator.program.schedules.schedule import SCHEDULES, Pass, schedule
from simulator.program.unfolding.unfold import Unfolded, num_copies, unfold

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
