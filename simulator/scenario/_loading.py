"""File, overrides and catalogue into a scenario."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from simulator.documents import Document, load_document, write_yaml
from simulator.errors import ConflictError, Problem, ScenarioError
from simulator.scenario._blocks import block, model_block
from simulator.scenario._checks import check
from simulator.scenario._cluster import cluster_block
from simulator.scenario._findings import Findings, Origin
from simulator.scenario._messages import shown
from simulator.scenario._near_misses import suggestion
from simulator.scenario._overrides import apply_overrides
from simulator.scenario._parts import model, part
from simulator.scenario._scenario import Scenario
from simulator.specs import (
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
_PLAIN: Final[Mapping[str, type[Spec]]] = {
    "training": TrainingSpec,
    "parallelism": ParallelismSpec,
    "data": DataSpec,
    "checkpoint": CheckpointSpec,
    "simulation": SimulationSpec,
}


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
    folder = Path(path).parent
    return _build(document.data, document, document.label, Path(path).stem, folder, overrides or {})


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
    return _build(data, None, label, label, Path(folder), overrides or {})


def resolved_yaml(scenario: Scenario) -> str:
    """The scenario written out in full; loading it again gives an equal scenario and equal text."""
    return write_yaml(scenario.model_dump(mode="json"))


def _build(
    data: Mapping[str, Any],
    document: Document | None,
    label: str,
    name: str,
    folder: Path,
    overrides: Mapping[str, object],
) -> Scenario:
    places: Mapping[tuple[str | int, ...], str] = {}
    if overrides:
        data, places = apply_overrides(data, overrides, "--set")
    findings = Findings(Origin(label, document, overrides=places))
    unknown = [key for key in data if key not in Scenario.model_fields]
    for key in unknown:
        findings.add((key,), suggestion(str(key), Scenario.model_fields, ""), "key")
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
    if "cluster" in data:
        blocks["cluster"] = cluster_block(data["cluster"], findings)
    if "model" in data:
        full = model(data["model"], folder, findings)
        blocks["model"] = None if full is None else model_block(full, findings, ("base", "config"))
    if data.get("distillation") is not None:
        blocks["distillation"] = _distillation(data["distillation"], folder, findings)
    framework = part("software", data.get("software"), ("software",), findings, DEFAULT_SOFTWARE)
    blocks["software"] = (
        None
        if framework is None
        else block(SoftwareSpec, framework, ("software",), findings, extra_keys=("base",))
    )
    for key, spec in _PLAIN.items():
        value = data.get(key)
        if value is not None or (key in _REQUIRED and key in data):
            blocks[key] = block(spec, value, (key,), findings)
    if isinstance(blocks.get("simulation"), SimulationSpec):
        blocks["simulation"] = _with_calibration(blocks["simulation"], folder, findings)
    return blocks


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


def _with_calibration(simulation: SimulationSpec, folder: Path, findings: Findings) -> SimulationSpec:
    """The calibration's path is relative to the scenario's folder; a name must be in the catalogue."""
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
