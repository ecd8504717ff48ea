"""A whole training, weeks long, with what interrupts it: a layer above the steps, on a coarser clock."""

from simulator.campaign.drawn import PARTS, Drawn, draw
from simulator.campaign.expected import best_interval, expected
from simulator.campaign.outcome import Campaign, Interruption, IntervalPoint, hazards, undergo
from simulator.campaign.pace import NANOSECONDS, Hazard, Pace, to_nanoseconds

__all__ = [
    "NANOSECONDS",
    "PARTS",
    "Campaign",
    "Drawn",
    "Hazard",
    "Interruption",
    "IntervalPoint",
    "Pace",
    "best_interval",
    "draw",
    "expected",
    "hazards",
    "to_nanoseconds",
    "undergo",
]
