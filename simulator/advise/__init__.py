"""What would help: elasticities by replay, sensitivity to every figure, the best of all plans."""

from simulator.advise.elasticity import rank_bottlenecks
from simulator.advise.remedies import remedies
from simulator.advise.sensitivity import Effect, Sensitivity, Turning, sensitivity

__all__ = ["Effect", "Sensitivity", "Turning", "rank_bottlenecks", "remedies", "sensitivity"]
