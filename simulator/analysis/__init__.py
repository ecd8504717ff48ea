"""Record -> Result: throughput, MFU, breakdown, critical path, bottlenecks, memory."""

from simulator.analysis.result import BasisNote, Bottleneck, Result
from simulator.analysis.summary import step_seconds, summarise

__all__ = ["BasisNote", "Bottleneck", "Result", "step_seconds", "summarise"]
