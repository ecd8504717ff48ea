"""Measurements -> calibration file: fits the constants of the cost models, and says what they rest on."""

from simulator.calibration._calibrate import Calibrated, Trial, calibrate
from simulator.calibration._device import identify, measure, require_device, scale_up_of
from simulator.calibration._observations import Measurements, Observation, read_measurements
from simulator.calibration._writing import check_calibration_path, write_calibration

__all__ = [
    "Calibrated",
    "Measurements",
    "Observation",
    "Trial",
    "calibrate",
    "check_calibration_path",
    "identify",
    "measure",
    "read_measurements",
    "require_device",
    "scale_up_of",
    "write_calibration",
]
