"""File, overrides and catalogue into a scenario."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from simulator.documents import load_document, write_yaml
from simulator.errors import ConflictError, Problem, ScenarioError
from simulator.scenario._blocks import block, model_block
from simulator.scenario._checks import check
from simulator.scenario._cluster import cluster_block
from simulator.scenario._findings import Findings, Kept, Origin
from simulator.scenario._messages import shown
from simulator.scenario._near_misses import suggestion
from simulator.scenario._overrides import apply_overrides
from simulator.scenario._parts import model, part
from simulator.scenario._scenario import Scenario
from simulator.specs import (
    CampaignSpec,
    CheckpointSpec,
    DataSpec,
    DistillationSpec,
    ParallelismSpec,
    SimulationSpec,
    SoftwareSpec,
    TrainingSpec,
)
from simulator.specs._base import Spec
from simulator.specs.calibration import Calibration, calibration_names, is_path

DEFAULT_SOFTWARE: Final = "megatron-core"
"""Framework of a scenario that does not say."""

_REQUIRED: Final = ("cluster", "model", "training")
_KEYS: Final = tuple(Scenario.model_fields)


def load_scenario(path: str | os.PathLike[str], overrides: Mapping[str, object] | None = None) -> Scenario:
    """Read, complete and check a scenario file.

    Precedence: catalogue < included files < file < overrides.

    Args:
        path: YAML or JSON file.
        overrides: Dotted key -> value, as in ``{"cluster.nodes": 16}``. A string is read as YAML, as on the
            command line: ``"16"`` is a number, ``"6 TB/s"`` text, ``"'16'"`` the text 16.

    Raises:
        ScenarioError: Every mistake in the file, with line and column, sorted by position.
        EnvironmentFailure: The system would not let the file be read.
    """
    document = load_document(path, what="scenario", includes=True)
    data, places = _overridden(document.data, overrides)
    origin = Origin(document.label, document, overrides=places)
    return _build(data, Path(path).stem, Path(path).parent, Findings(origin))


def scenario_from_mapping(
    data: Mapping[str, Any],
    overrides: Mapping[str, object] | None = None,
    *,
    label: str = "scenario",
    folder: str | os.PathLike[str] = ".",
) -> Scenario:
    """A scenario from a mapping in the form of a scenario file.

    Args:
        data: Blocks, short forms allowed; it is not changed.
        overrides: As in `load_scenario`.
        label: What messages call it; also the scenario's name if it has none.
        folder: What a relative ``model.config`` is relative to.

    Raises:
        ScenarioError: Every mistake, without positions.
    """
    if not isinstance(data, Mapping):
        raise ScenarioError(Problem(label, 0, 0, f"expected a mapping, not {shown(data)}"))
    data, places = _overridden(data, overrides)
    return _build(data, label, Path(folder), Findings(Origin(label, overrides=places)))


class Variations:
    """Scenarios that differ in some keys, as points of a sweep do: what they share is made and checked once.

    Args:
        data: As in `scenario_from_mapping`; it must not change any more.
        overrides: Beneath those of each scenario.
        label: As in `scenario_from_mapping`.
        folder: As in `scenario_from_mapping`.

    Raises:
        ScenarioError: An override's key leads nowhere.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        overrides: Mapping[str, object] | None = None,
        *,
        label: str = "scenario",
        folder: str | os.PathLike[str] = ".",
    ) -> None:
        self._data, self._places = _overridden(data, overrides)
        self._label, self._folder = label, Path(folder)
        self._kept: Kept = {}

    def scenario(self, overrides: Mapping[str, object]) -> Scenario:
        """The scenario with these overrides on top, equal to what `scenario_from_mapping` makes.

        Raises:
            ScenarioError: Every mistake, without positions.
        """
        data, places = _overridden(self._data, overrides)
        origin = Origin(self._label, overrides={**self._places, **places})
        return _build(data, self._label, self._folder, Findings(origin, kept=self._kept))


def resolved_yaml(scenario: Scenario) -> str:
    """The scenario written out in full; loading it again gives an equal scenario and equal text."""
    return write_yaml(scenario.model_dump(mode="json"))


def _overridden(
    data: Mapping[str, Any], overrides: Mapping[str, object] | None
) -> tuple[Mapping[str, Any], Mapping[tuple[str | int, ...], str]]:
    """The data with the overrides in place, and where each went."""
    return apply_overrides(data, overrides, "--set") if overrides else (data, {})


def _build(data: Mapping[str, Any], name: str, folder: Path, findings: Findings) -> Scenario:
    unknown = [key for key in data if key not in _KEYS]
    for key in unknown:
        findings.add((key,), suggestion(str(key), _KEYS, ""), "key")
    for key in _REQUIRED:
        if key not in data:
            findings.add((), f'missing block "{key}"', "key")
    blocks = _blocks(data, folder, findings)
    given = data.get("name")
    if given is not None and (not isinstance(given, str) or not given.strip()):
        findings.add(("name",), f"expected some text, not {shown(given)}; quote it if it is a name")
    findings.stop_if_wrong()
    scenario = block(Scenario, {"name": name if given is None else given, **blocks}, (), findings)
    if scenario is not None:
        check(scenario, findings)
    findings.stop_if_wrong(ScenarioError if scenario is None else ConflictError)
    assert scenario is not None
    return scenario._noting(findings.origin, findings.warnings)


def _blocks(data: Mapping[str, Any], folder: Path, findings: Findings) -> dict[str, Any]:
    blocks: dict[str, Any] = {}
    cluster = data.get("cluster")
    findings.origin.short_cluster = isinstance(cluster, Mapping) and "node_groups" not in cluster
    for key, make in _MAKERS.items():
        value = data.get(key)
        if value is not None or (key in _REQUIRED and key in data) or key == "software":
            blocks[key] = findings.once((key,), (value,), partial(make, value, folder, findings))
    return blocks


def _model(data: object, folder: Path, findings: Findings) -> Spec | None:
    full = model(data, folder, findings)
    return None if full is None else model_block(full, findings, ("base", "config"))


def _software(data: object, findings: Findings) -> SoftwareSpec | None:
    path = ("software",)
    full = part("software", data, path, findings, DEFAULT_SOFTWARE)
    return None if full is None else block(SoftwareSpec, full, path, findings, extra_keys=("base",))


def _distillation(data: object, folder: Path, findings: Findings) -> DistillationSpec | None:
    """The block with its teacher in full; what is wrong with that is told at its place."""
    path = ("distillation",)
    if not isinstance(data, Mapping) or "teacher" not in data:
        return block(DistillationSpec, data, path, findings)
    before = len(findings.problems)
    full = model(data["teacher"], folder, findings, (*path, "teacher"))
    if full is not None and full.get("kind") == "layers":
        findings.add(
            (*path, "teacher"), "a model given layer by layer has no logits to compare; give a transformer"
        )
    if full is None or len(findings.problems) > before:
        return None
    return block(DistillationSpec, {**data, "teacher": full}, path, findings)


def _simulation(data: object, folder: Path, findings: Findings) -> SimulationSpec | None:
    """The calibration's path is relative to the scenario's folder; a name must be in the catalogue."""
    simulation = block(SimulationSpec, data, ("simulation",), findings)
    if simulation is None:
        return None
    name, path = simulation.calibration, ("simulation", "calibration")
    if not is_path(name):
        if name not in calibration_names():
            known = ", ".join(calibration_names())
            findings.add(path, f'no calibration "{name}"; there are: {known} (or the path of a .yaml file)')
        return simulation
    file = (folder / name).absolute()
    try:
        Calibration.load(file)
    except ScenarioError as error:
        for problem in error.problems:
            findings.add(path, f"{name}: {problem.message}")
    return simulation.model_copy(update={"calibration": str(file)})


_MAKERS: Final[Mapping[str, Callable[[object, Path, Findings], Spec | None]]] = {
    "cluster": lambda data, _, findings: cluster_block(data, findings),
    "model": _model,
    "distillation": _distillation,
    "software": lambda data, _, findings: _software(data, findings),
    "training": lambda data, _, findings: block(TrainingSpec, data, ("training",), findings),
    "parallelism": lambda data, _, findings: block(ParallelismSpec, data, ("parallelism",), findings),
    "data": lambda data, _, findings: block(DataSpec, data, ("data",), findings),
    "checkpoint": lambda data, _, findings: block(CheckpointSpec, data, ("checkpoint",), findings),
    "campaign": lambda data, _, findings: block(CampaignSpec, data, ("campaign",), findings),
    "simulation": _simulation,
}
"""What makes each block's spec, from what the scenario says and the folder that it stands in."""
