"""What would help: elasticities by replay, sensitivity to every figure, the best of all plans."""

from simulator.advise.elasticity import rank_bottlenecks
from simulator.advise.plans import FoundPlan, PlanSearch, plan_space, planned_scenario, search_plans
from simulator.advise.remedies import remedies
from simulator.advise.sensitivity import Effect, Sensitivity, Turning, sensitivity

__all__ = [
    "Effect",
    "FoundPlan",
    "PlanSearch",
    "Sensitivity",
    "Turning",
    "plan_space",
    "planned_scenario",
    "rank_bottlenecks",
    "remedies",
    "search_plans",
    "sensitivity",
]
