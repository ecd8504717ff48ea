"""The scenario: everything that a simulation is told, resolved and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import PrivateAttr

from simulator.errors import PlanError, ScenarioError
from simulator.scenario._findings import Findings, Origin
from simulator.specs import (
    CampaignSpec,
    CheckpointSpec,
    ClusterSpec,
    DataSpec,
    DistillationSpec,
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
    distillation: DistillationSpec | None = None
    """A teacher beside the model; there is none if not given."""
    parallelism: ParallelismSpec = ParallelismSpec()
    """How model and batch are split over the GPUs."""
    software: SoftwareSpec
    """The training framework: a name of the catalogue, `base:` plus changes, or all mechanisms."""
    data: DataSpec | None = None
    """Where samples come from; without it, samples are always there."""
    checkpoint: CheckpointSpec | None = None
    """Checkpoints; none are written if not given."""
    campaign: CampaignSpec | None = None
    """The whole training, with what interrupts it; only steps are looked at if not given."""
    simulation: SimulationSpec = SimulationSpec()
    """How the simulation is run."""

    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _origin: Origin = PrivateAttr(default_factory=lambda: Origin("scenario"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was taken otherwise than it was written; not part of the scenario's identity."""
        return self._warnings

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """The scenario with some keys at other values, which share with this one all that lies beside them.

        For those who try many variations of a checked scenario: values are as the specs hold them (SI units,
        specs for parts) and nothing is checked but by planning.

        Args:
            changes: Dotted key -> value, or a function of the value that is there. A key of the cluster that
                belongs to node groups changes in all of them; a function changes nothing where nothing is.
        """
        tree: dict[str, Any] = {}
        for dotted, value in changes.items():
            *above, last = dotted.split(".")
            inside = tree
            for step in above:
                inside = inside.setdefault(step, _Inside())
            inside[last] = value
        made: Self = _changed(self, tree)
        return made

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


_OF_CLUSTER: Final = frozenset(ClusterSpec.model_fields)


class _Inside(dict[str, Any]):
    """Changes inside a block, as a mapping is also a value."""


def _changed(spec: Any, changes: Mapping[str, Any]) -> Any:
    if spec is None:
        return None
    if isinstance(spec, ClusterSpec):
        own = {key: value for key, value in changes.items() if key in _OF_CLUSTER}
        each = {key: value for key, value in changes.items() if key not in own}
        if each:
            own["node_groups"] = tuple(_changed(group, each) for group in spec.node_groups)
        return spec.model_copy(update={key: _value(getattr(spec, key), value) for key, value in own.items()})
    if isinstance(spec, dict):
        return spec | {key: _value(spec[key], value) for key, value in changes.items() if key in spec}
    return spec.model_copy(update={key: _value(getattr(spec, key), value) for key, value in changes.items()})


def _value(present: Any, value: Any) -> Any:
    if isinstance(value, _Inside):
        return _changed(present, value)
    if callable(value):
        return None if present is None else value(present)
    return value
