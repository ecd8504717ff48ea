"""Constants that all hardware shares: what a data sheet does not say, fitted once to public measurements."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from simulator.errors import Problem, ScenarioError
from simulator.specs._base import Spec

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
    matmul_epilogue_operations: float
    matmul_exchange: float
    memory_fraction: float
    kernel_latency: float
    host_launch_time: float
    attention_peak_fraction: float
    attention_score_time: float
    attention_block_latency: float
    attention_backward_fraction: float
    vector_peak_fraction: float
    matrix_energy: float
    vector_energy: float


@dataclass(frozen=True, slots=True, eq=False)
class CollectiveConstants:
    """Constants of the collective model, in SI units; what each means stands in the calibration file.

    Equal only to itself, as `KernelConstants`.
    """

    collective_latency: float
    scale_up_fraction: float
    direct_link_fraction: float
    scale_out_fraction: float
    local_copy: float
    in_network_fraction: float
    ll_fraction: float
    ll128_fraction: float
    ll128_latency: float
    bulk_latency: float
    scale_out_latency: float
    scale_out_hop: float
    scale_out_hop_bulk: float
    in_network_latency: float
    channels: float


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


def _names() -> tuple[str, ...]:
    return tuple(field.name for part in (KernelConstants, CollectiveConstants) for field in fields(part))


class Calibration(Spec):
    """All constants of the cost models, each with its meaning and source."""

    name: str
    """Name, as shown in reports."""
    description: str
    """What the calibration holds for, and what it does not claim."""
    constants: dict[str, Constant]
    """Every constant by name."""

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
    def kernels(self) -> KernelConstants:
        """The constants of the kernel model."""
        return KernelConstants(**{f.name: self.constants[f.name].value for f in fields(KernelConstants)})

    @cached_property
    def collectives(self) -> CollectiveConstants:
        """The constants of the collective model."""
        return CollectiveConstants(
            **{f.name: self.constants[f.name].value for f in fields(CollectiveConstants)}
        )

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

    @staticmethod
    def load(name: str = "shared") -> Calibration:
        """The calibration of that name from the catalogue; read once and kept.

        Raises:
            ScenarioError: There is none of that name, or its file is malformed.
        """
        return _load(name)


@cache
def _load(name: str) -> Calibration:
    from ruamel.yaml import YAML

    folder = files("simulator").joinpath("catalog", "data", "calibrations")
    known = sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )
    if name not in known:
        raise ScenarioError(Problem(name, 0, 0, f"no such calibration; there are: {', '.join(known)}"))
    file = folder.joinpath(f"{name}.yaml")
    document: Any = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    try:
        return Calibration.model_validate(document)
    except ValidationError as error:
        raise ScenarioError(
            Problem(f"{name}.yaml", 0, 0, f"{'.'.join(map(str, e['loc']))}: {e['msg']}")
            for e in error.errors()
        ) from None
