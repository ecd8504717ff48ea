"""What a calibration was measured on, and how far off it was where it had not been."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from simulator.specs._base import Spec

TAIL: Final = 0.1
"""Part of the measurements below a band, and as many above it."""

Grade = Literal["calibrated on this machine", "interpolated", "extrapolated from data sheet"]


class CalibratedRange(Spec):
    """What the measurements covered that the constants were fitted to."""

    accelerators: dict[str, list[str]]
    """Catalogue name -> precisions whose kernels were measured there."""
    scale_up: list[str] = Field(default_factory=list)
    """Interconnects inside a domain on which collectives were measured."""
    ranks_in_domain: int = 1
    """Most ranks of a measured collective inside one domain."""
    ranks: int = 1
    """Most ranks of a measured collective."""
    scale_out_bandwidth: list[float] | None = None
    """Slowest and fastest network, per accelerator and direction [B/s]; none if only single nodes."""
    message_bytes: list[float] | None = None
    """Smallest and largest message [B]."""


class Refit(Spec):
    """The constants as they come out when some measurements are left out of the fit."""

    left_out: str
    """What was left out: `accelerator A100`, `source vllm`."""
    values: dict[str, float]
    """Constant -> value."""


class Band(Spec):
    """How far measurements were from predictions, as part of the prediction."""

    low: float
    """Nine of ten measurements lay above (1 + low) times the predicted time."""
    high: float
    """Nine of ten measurements lay below (1 + high) times the predicted time."""
    mean: float
    """Mean absolute error, as part of the measured time."""
    rows: int
    """Measurements that it comes from."""
    groups: int
    """Sources (or accelerators) that they come from; each counts the same."""


class Trial(Spec):
    """Errors on one file of measurements, or on one size class of it."""

    measurements: str
    """Kind of file and size class, such as `matrix products, bf16 above 1 GFLOP`."""
    fitted: Band
    """With all measurements in the fit."""
    accelerator_left_out: Band | None = None
    """Each row predicted by the fit that had not seen its accelerator."""
    source_left_out: Band | None = None
    """Each row predicted by the fit that had not seen its source."""


class CalibrationEvidence(Spec):
    """How far predictions with a calibration were from measurements."""

    calibration: str
    """Name of the calibration."""
    command: str
    """What wrote this."""
    num_gpus: int = 1
    """Most GPUs of a training run that a prediction was compared with."""
    trials: list[Trial] = Field(default_factory=list)
    """One a file and size class."""

    def trial(self, measurements: str) -> Trial | None:
        """The trial of one file and size class; None if there is none."""
        return next((trial for trial in self.trials if trial.measurements == measurements), None)
