"""Predictions against measurements: reads measured runs, predicts each, says how far off."""

from simulator.validation._benchmarks import BenchmarkKind
from simulator.validation._kind import MeasurementKind, Metric, kinds, measurement_kind
from simulator.validation._scenario import scenario_mapping
from simulator.validation._score import MetricScore, Score, WorstRow
from simulator.validation._training import TrainingRuns
from simulator.validation._validate import Validation, validate
from simulator.validation._workers import Constants

__all__ = [
    "BenchmarkKind",
    "Constants",
    "MeasurementKind",
    "Metric",
    "MetricScore",
    "Score",
    "TrainingRuns",
    "Validation",
    "WorstRow",
    "kinds",
    "measurement_kind",
    "scenario_mapping",
    "validate",
]
