"""What the figures of a result rest on: data sheets, measurements, assumptions."""

from __future__ import annotations

from collections.abc import Mapping

from simulator.analysis.result import BasisNote
from simulator.scenario import Scenario
from simulator.specs.calibration import Calibration
from simulator.specs.figures import Figure

_WEAKEST_FIRST = ("assumed", "measured", "datasheet")

_NOT_IN_A_STEP = frozenset({"price_per_hour", "l2_capacity"})
"""Figures that no time of a step depends on."""


def basis_notes(scenario: Scenario, calibration: Calibration) -> list[BasisNote]:
    """One note an input that took part: the weakest basis among its figures, and which are assumed."""
    group, storage = scenario.cluster.node_groups[0], scenario.cluster.storage
    notes = [_note(f"accelerator {group.accelerator.name}", group.accelerator.figures)]
    if scenario.cluster.num_gpus > 1 and group.domain > 1:
        notes.append(_note(f"scale-up {group.scale_up.name}", group.scale_up.figures))
    if scenario.cluster.num_gpus > group.domain:
        notes.append(_note(f"scale-out {group.scale_out.name}", group.scale_out.figures))
    offload, stored = scenario.training.offload, scenario.data is not None or scenario.checkpoint is not None
    places = {offload.activations, offload.parameters, offload.gradients, offload.optimizer}
    if stored or places != {None}:
        notes.append(_note(f"host {group.host.name}", group.host.figures))
    if stored and storage is not None:
        notes.append(_note(f"storage {storage.name}", storage.figures))
    drives = scenario.cluster.node_drives
    if "nvme" in places and drives is not None and not (stored and drives is storage):
        notes.append(_note(f"drives {drives.name}", drives.figures))
    notes.append(
        BasisNote(
            f"calibration {calibration.name}",
            "measured",
            f"{calibration.fitted} of {len(calibration.constants)} constants fitted to public measurements, "
            "shared by all hardware; none belongs to one accelerator or model",
        )
    )
    return notes


def _note(item: str, all_figures: Mapping[str, Figure]) -> BasisNote:
    figures = {name: figure for name, figure in all_figures.items() if name not in _NOT_IN_A_STEP}
    if not figures:
        return BasisNote(item, "assumed", "figures as the scenario gives them")
    found = {figure.basis for figure in figures.values()}
    weakest = next(basis for basis in _WEAKEST_FIRST if basis in found)
    assumed = sorted(name for name, figure in figures.items() if figure.basis == "assumed")
    if "default" in assumed:
        other = sorted(name for name, figure in figures.items() if figure.basis != "assumed")
        detail = "assumed: all" + (f" but {', '.join(other)}" if other else "")
    else:
        detail = f"assumed: {', '.join(assumed)}" if assumed else next(iter(figures.values())).source
    return BasisNote(item, weakest, detail)
