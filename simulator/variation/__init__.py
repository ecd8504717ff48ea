"""How far step times spread where ranks differ: jitter, slow GPUs, and what the slowest replica costs."""

from simulator.variation.disturbed import disturbed
from simulator.variation.draws import Draws, Rows, assign_rows, varies
from simulator.variation.spread import check_variation, step_times

__all__ = ["Draws", "Rows", "assign_rows", "check_variation", "disturbed", "step_times", "varies"]
