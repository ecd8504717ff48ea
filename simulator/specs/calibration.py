"""Constants that all hardware shares: what a data sheet does not say, fitted once to public measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from math import log, sqrt
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from simulator.errors import Problem, ScenarioError
from simulator.specs._base import Spec
from simulator.specs.evidence import CalibratedRange, CalibrationEvidence, Refit

SHARED: Final = "shared"
"""The calibration that holds where a scenario names no other."""

EVIDENCE: Final = ".evidence"
"""Stands before the suffix in the name of the file with the evidence of a calibration."""

_SUFFIX: Final = ".yaml"

ConstantBasis = Literal["fitted", "published", "assumed"]


@dataclass(frozen=True, slots=True, eq=False)
class KernelConstants:
    """Constants of the kernel model, in SI units; what each means stands in the calibration file.

    Equal only to itself: results are kept by it, and comparing sixteen floats each time would cost more
    than the look-up.
    """

    matmul_peak_fraction: float
    matmul_tile_overhead: float
    matmul_tile_latency: float
    matmul_epilogue_time: float
    roofline_softness: float
    memory_fraction: float
    kernel_latency: float
    host_launch_time: float
    attention_peak_fraction: float
    attention_score_time: float
    attention_overlap: float
    attention_block_latency: float
    attention_fill_keys: float
    attention_operand_share: float
    attention_unevenness: float
    attention_backward_latency: float
    vector_peak_fraction: float
    step_matrix_fraction: float
    python_operator_time: float
    portable_unit_width: float
    attention_first_fraction: float
    matrix_energy: float
    operand_energy: float
    unwritten_energy_fraction: float
    energy_spread: float


@dataclass(frozen=True, slots=True, eq=False)
class CollectiveConstants:
    """Constants of the collective model, in SI units; what each means stands in the calibration file.

    Equal only to itself, as `KernelConstants`.
    """

    collective_latency: float
    scale_up_fraction: float
    direct_link_fraction: float
    scale_out_fraction: float
    local_passes: float
    exchange_meetings: float
    in_network_fraction: float
    ll_fraction: float
    ll128_fraction: float
    ll128_latency: float
    bulk_latency: float
    early_scale_out: float
    scale_out_hop: float
    scale_out_hop_bulk: float
    in_network_latency: float
    early_launch: float
    network_post: float
    staging_hop: float
    pcie_fraction: float
    host_protocol_rate: float
    channels: float


@dataclass(frozen=True, slots=True, eq=False)
class MemoryConstants:
    """Constants of device memory, in SI units; what each means stands in the calibration file.

    Equal only to itself, as `KernelConstants`.
    """

    driver_context: float
    kernel_code: float
    channel_buffer: float
    channel_neighbours: float
    fragmentation: float


class Constant(Spec):
    """One constant of a calibration and what it rests on."""

    value: float = Field(strict=False)
    """The value, in `unit`."""
    unit: str
    """SI unit; `1` for a pure number."""
    meaning: str
    """What the constant stands for."""
    uncertainty: float = Field(ge=0.0, strict=False)
    """One relative standard deviation, from refitting without one GPU at a time or as the source gives it."""
    fitted_to: str
    """The public measurements that the value was fitted to, or the source that it was read in."""
    basis: ConstantBasis
    """`fitted`, `published` (read in a source) or `assumed`."""
    command: str = ""
    """The command that fits it again; empty for what is not fitted."""


def rounded(value: float) -> float:
    """Three significant figures: more than any constant is known to."""
    return float(f"{value:.3g}")


def fitted_uncertainty(value: float, spread: float, others: Sequence[float]) -> float:
    """One relative standard deviation of a fitted constant, in two figures, from 1 to 99 %.

    The larger of the fit's own and the scatter of fits without a part, ``sqrt(mean(log(other / value)^2))``.

    Args:
        value: The constant.
        spread: The fit's own standard deviation of its logarithm.
        others: The constant as fits without one accelerator or source have it.
    """
    changes = [log(other / value) for other in others]
    scatter = sqrt(sum(x * x for x in changes) / len(changes)) if changes else 0.0
    return float(f"{min(0.99, max(0.01, spread, scatter)):.2g}")


_PARTS: Final = (KernelConstants, CollectiveConstants, MemoryConstants)


def _names() -> tuple[str, ...]:
    return tuple(field.name for part in _PARTS for field in fields(part))


class Calibration(Spec):
    """All constants of the cost models, each with its meaning and source."""

    name: str
    """Name, as shown in reports."""
    description: str
    """What the calibration holds for, and what it does not claim."""
    constants: dict[str, Constant]
    """Every constant by name."""
    machine: str | None = None
    """Accelerator of the one machine that it was fitted on; none for what all hardware shares."""
    range: CalibratedRange | None = None
    """What the measurements covered; none where nothing is said."""
    refits: list[Refit] = Field(default_factory=list)
    """The constants with some measurements left out, for cross-validation."""
    evidence: CalibrationEvidence | None = None
    """Errors against measurements, from the file beside the calibration."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [name for name in _names() if name not in self.constants]
        foreign = [name for name in self.constants if name not in _names()]
        negative = [name for name, constant in self.constants.items() if constant.value < 0]
        complaints = [
            f"{what}: {', '.join(names)}"
            for what, names in (("missing", missing), ("unknown", foreign), ("negative", negative))
            if names
        ]
        if complaints:
            raise ValueError("constants " + "; ".join(complaints))
        return self

    @cached_property
    def fitted(self) -> int:
        """How many constants were fitted."""
        return sum(constant.basis == "fitted" for constant in self.constants.values())

    @cached_property
    def kernels(self) -> KernelConstants:
        """The constants of the kernel model."""
        return KernelConstants(**{f.name: self.constants[f.name].value for f in fields(KernelConstants)})

    @cached_property
    def collectives(self) -> CollectiveConstants:
        """The constants of the collective model."""
        return CollectiveConstants(
            **{f.name: self.constants[f.name].value for f in fields(CollectiveConstants)}
        )

    @cached_property
    def memory(self) -> MemoryConstants:
        """The constants of device memory."""
        return MemoryConstants(**{f.name: self.constants[f.name].value for f in fields(MemoryConstants)})

    def with_values(self, **values: float) -> Calibration:
        """The same calibration with some constants changed; their basis becomes `assumed`.

        Raises:
            KeyError: No constant has that name.
        """
        changed = {
            name: self.constants[name].model_copy(
                update={"value": float(value), "basis": "assumed", "fitted_to": "set by hand"}
            )
            for name, value in values.items()
        }
        return Calibration(
            name=f"{self.name} (changed)",
            description=self.description,
            constants={**self.constants, **changed},
        )

    def without(self, left_out: str) -> Calibration:
        """The constants as fitted without some measurements; the same object each time.

        Raises:
            KeyError: Nothing of that name was left out of a fit.
        """
        return self._refitted[left_out]

    @cached_property
    def _refitted(self) -> dict[str, Calibration]:
        return {refit.left_out: self.with_values(**refit.values) for refit in self.refits}

    @staticmethod
    def load(name: str | Path = SHARED) -> Calibration:
        """The calibration of that name from the catalogue, or of that path; read once and kept.

        Args:
            name: A name without a slash and suffix, or the path of a YAML file.

        Raises:
            ScenarioError: There is none of that name, or its file is malformed.
            EnvironmentFailure: The system would not let the file be read.
        """
        return _load(str(name))


def is_path(name: str) -> bool:
    """Whether a calibration is named by its path: with a slash or a suffix."""
    return "/" in name or "\\" in name or name.endswith((_SUFFIX, ".yml"))


def evidence_path(calibration: Path) -> Path:
    """The file with the evidence of a calibration file: ``a.evidence.yaml`` beside ``a.yaml``."""
    return calibration.with_name(f"{calibration.stem}{EVIDENCE}{calibration.suffix}")


@cache
def _load(name: str) -> Calibration:
    if is_path(name):
        path = Path(name)
        document = _document(path.read_bytes(), name) if path.is_file() else None
        if document is None:
            raise ScenarioError(Problem(name, 0, 0, "no such calibration file"))
        beside: Path | Traversable = evidence_path(path)
        label = name
    else:
        folder = _folder()
        known = calibration_names()
        if name not in known:
            raise ScenarioError(Problem(name, 0, 0, f"no such calibration; there are: {', '.join(known)}"))
        label = f"{name}{_SUFFIX}"
        document = _document(folder.joinpath(label).read_bytes(), label)
        beside = folder.joinpath(f"{name}{EVIDENCE}{_SUFFIX}")
    if beside.is_file():
        document["evidence"] = _document(beside.read_bytes(), beside.name)
    try:
        return Calibration.model_validate(document)
    except ValidationError as error:
        raise ScenarioError(
            Problem(label, 0, 0, f"{'.'.join(map(str, e['loc']))}: {e['msg']}") for e in error.errors()
        ) from None


@cache
def calibration_names() -> tuple[str, ...]:
    """Names of the calibrations in the catalogue."""
    stems = [
        entry.name.removesuffix(_SUFFIX) for entry in _folder().iterdir() if entry.name.endswith(_SUFFIX)
    ]
    return tuple(sorted(stem for stem in stems if not stem.endswith(EVIDENCE)))


def _folder() -> Traversable:
    return resources.files("simulator").joinpath("catalog", "data", "calibrations")


def _document(content: bytes, label: str) -> dict[str, Any]:
    from simulator.documents import parse_document

    text = content.decode("utf-8", errors="replace")
    document: dict[str, Any] = parse_document(text, label, what="calibration").data
    return document
