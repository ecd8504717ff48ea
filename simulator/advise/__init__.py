"""What would help: elasticities, found by playing the same Program with one kind of capacity scaled."""

from simulator.advise.elasticity import rank_bottlenecks

__all__ = ["rank_bottlenecks"]
