"""The scenario: everything that a simulation is told, resolved and checked."""

from __future__ import annotations

from typing import Self

from pydantic import PrivateAttr

from simulator.errors import PlanError, ScenarioError
from simulator.scenario._findings import Findings, Origin
from simulator.specs import (
    CheckpointSpec,
    ClusterSpec,
    DataSpec,
    ModelSpec,
    ParallelismSpec,
    SimulationSpec,
    SoftwareSpec,
    TrainingSpec,
)
from simulator.specs._base import Spec


class Scenario(Spec):
    """A cluster, a model and how the one trains the other."""

    name: str
    """Name of the scenario and of its result; the file's name if not given."""
    cluster: ClusterSpec
    """The machines."""
    model: ModelSpec
    """What is trained."""
    training: TrainingSpec
    """Batches, precision, optimizer."""
    parallelism: ParallelismSpec = ParallelismSpec()
    """How model and batch are split over the GPUs."""
    software: SoftwareSpec
    """The training framework: a name of the catalogue, `base:` plus changes, or all mechanisms."""
    data: DataSpec | None = None
    """Where samples come from; without it, samples are always there."""
    checkpoint: CheckpointSpec | None = None
    """Checkpoints; none are written if not given."""
    simulation: SimulationSpec = SimulationSpec()
    """How the simulation is run."""

    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _origin: Origin = PrivateAttr(default_factory=lambda: Origin("scenario"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was taken otherwise than it was written; not part of the scenario's identity."""
        return self._warnings

    def located(self, error: PlanError) -> ScenarioError:
        """An error that planning raised about a key, with the key's place in the file."""
        findings = Findings(self._origin)
        findings.add(error.path, error.message)
        return ScenarioError(findings.problems)

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, wherever it was written."""
        return isinstance(other, Scenario) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # figures are held in dicts

    def _noting(self, origin: Origin, warnings: list[str]) -> Self:
        self._origin = origin
        self._warnings = tuple(dict.fromkeys(warnings))
        return self
