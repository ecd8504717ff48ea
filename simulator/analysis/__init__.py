"""Record -> Result: throughput, MFU, breakdown, critical path, bottlenecks, memory."""

from simulator.analysis.campaign import with_campaign
from simulator.analysis.result import BasisNote, Bottleneck, PeakMoment, Remedy, Result, StepTimes
from simulator.analysis.step_times import with_step_times
from simulator.analysis.summary import Essentials, essentials, step_seconds, summarise

__all__ = [
    "BasisNote",
    "Bottleneck",
    "Essentials",
    "PeakMoment",
    "Remedy",
    "Result",
    "StepTimes",
    "essentials",
    "step_seconds",
    "summarise",
    "with_campaign",
    "with_step_times",
]
