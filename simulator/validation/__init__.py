"""Predictions against measurements: reads measured runs, predicts each, says how far off."""

from simulator.validation._benchmarks import BenchmarkKind
from simulator.validation._evidence import gather_evidence, trial_name
from simulator.validation._folder import FolderValidation, validate_folder
from simulator.validation._kind import MeasurementKind, Metric, kinds, measurement_kind
from simulator.validation._scenario import scenario_mapping
from simulator.validation._score import MetricScore, Point, Score, WorstRow
from simulator.validation._training import TrainingRuns
from simulator.validation._validate import Validation, validate
from simulator.validation._workers import Constants

__all__ = [
    "BenchmarkKind",
    "Constants",
    "FolderValidation",
    "MeasurementKind",
    "Metric",
    "MetricScore",
    "Point",
    "Score",
    "TrainingRuns",
    "Validation",
    "WorstRow",
    "gather_evidence",
    "kinds",
    "measurement_kind",
    "scenario_mapping",
    "trial_name",
    "validate",
    "validate_folder",
]
