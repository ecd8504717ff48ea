"""Predictions against measurements: reads measured runs, predicts each, says how far off."""

from simulator.validation._kind import MeasurementKind, Metric, kinds, measurement_kind, number
from simulator.validation._scenario import scenario_mapping
from simulator.validation._score import MetricScore, Score, WorstRow
from simulator.validation._table import Row, Table
from simulator.validation._training import TrainingRuns
from simulator.validation._validate import Validation, validate

__all__ = [
    "MeasurementKind",
    "Metric",
    "MetricScore",
    "Row",
    "Score",
    "Table",
    "TrainingRuns",
    "Validation",
    "WorstRow",
    "kinds",
    "measurement_kind",
    "number",
    "scenario_mapping",
    "validate",
]
