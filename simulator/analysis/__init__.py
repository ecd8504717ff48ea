"""Record -> Result: throughput, MFU, breakdown, critical path, bottlenecks, memory."""

from simulator.analysis.result import BasisNote, Bottleneck, PeakMoment, Remedy, Result, StepTimes
from simulator.analysis.step_times import with_step_times
from simulator.analysis.summary import step_seconds, summarise

__all__ = [
    "BasisNote",
    "Bottleneck",
    "PeakMoment",
    "Remedy",
    "Result",
    "StepTimes",
    "step_seconds",
    "summarise",
    "with_step_times",
]
