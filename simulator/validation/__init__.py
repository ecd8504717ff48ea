"""Predictions against measurements: reads measured runs, predicts each, says how far off."""

from simulator.validation._benchmarks import BenchmarkKind
from simulator.validation._evidence import gather_evidence, trial_name
from simulator.validation._folder import FolderValidation, validate_folder
from simulator.validation._kind import MeasurementKind, kinds, measurement_kind
from simulator.validation._other import NamedRuns
from simulator.validation._scenario import scenario_mapping
from simulator.validation._steps import fit_steps
from simulator.validation._training import TrainingRuns
from simulator.validation._validate import validate
from simulator.validation._workers import Constants

__all__ = [
    "BenchmarkKind",
    "Constants",
    "FolderValidation",
    "MeasurementKind",
    "NamedRuns",
    "TrainingRuns",
    "fit_steps",
    "gather_evidence",
    "kinds",
    "measurement_kind",
    "scenario_mapping",
    "trial_name",
    "validate",
    "validate_folder",
]
