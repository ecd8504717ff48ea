"""How far to trust a step time: what was measured, what lies outside, and the error where it was checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.analysis.result import ErrorBand, Evidence
from simulator.errors import ClustersimError
from simulator.program import Lowered
from simulator.scenario import Scenario
from simulator.specs.calibration import SHARED, Calibration
from simulator.specs.evidence import TAIL, Band, CalibratedRange, CalibrationEvidence, Grade
from simulator.specs.hardware import AcceleratorSpec, LinkSpec
from simulator.units import human

STEP_TIME: Final = "training runs, step time"
"""The trial whose error is that of a step."""

_ALIKE: Final = {"fp16": "bf16"}
"""Precisions of equal rate and traffic."""
_NEAR: Final = 1.6
"""Ratio of a figure to that of a measured accelerator of its family up to which it is the same hardware."""
_SLACK: Final = 1.1
"""Ratio by which a bandwidth may lie beside the measured ones: 100 Gb/s is 12.5 GB/s or 12 as it is sold."""


def evidence_of(scenario: Scenario, lowered: Lowered, calibration: Calibration) -> Evidence:
    """The evidence grade, the error band that goes with it, and what lies outside of the calibrated range.

    `calibrated on this machine`: the constants were fitted on this accelerator. `interpolated`: accelerator
    family, precision, links, scale and messages were all measured. `extrapolated from data sheet`: some
    were not; `outside` says which.
    """
    outside = tuple(_outside(scenario, lowered, calibration))
    grade: Grade = "extrapolated from data sheet"
    if not outside:
        own = calibration.machine == lowered.group.accelerator.name
        grade = "calibrated on this machine" if own else "interpolated"
    return Evidence(grade, _error_band(grade, calibration), outside)


def _error_band(grade: Grade, calibration: Calibration) -> ErrorBand | None:
    """What cross-validation found for such a grade; None where none was done."""
    found = calibration.evidence or _shared_evidence()
    trial = None if found is None else found.trial(STEP_TIME)
    if trial is None:
        return None
    band: Band | None = trial.source_left_out
    how = "none of them in the fits of kernels and collectives"
    if grade == "extrapolated from data sheet":
        band = trial.accelerator_left_out
        how = "each predicted by fits of kernels and collectives without its accelerator"
    if band is None:
        return None
    source = f"{band.rows:,} training runs of {band.groups} sources, {how}"
    return ErrorBand(low=band.low, high=band.high, mean=band.mean, coverage=1.0 - 2.0 * TAIL, source=source)


def _shared_evidence() -> CalibrationEvidence | None:
    return Calibration.load(SHARED).evidence


def _outside(scenario: Scenario, lowered: Lowered, calibration: Calibration) -> Iterator[str]:
    measured = calibration.range
    if measured is None:
        yield f"everything: the calibration {calibration.name} does not say what it was measured on"
        return
    group, plan = lowered.group, lowered.plan
    yield from _accelerator(group.accelerator, scenario.training.precision, measured)
    sent = _largest_amounts(lowered)
    if plan.num_gpus > 1 and "scale_up" in sent:
        yield from _scale_up(group.scale_up, measured)
    if "scale_out" in sent:
        yield from _scale_out(group.scale_out, measured)
    found = calibration.evidence or _shared_evidence()
    most = max(measured.ranks, found.num_gpus if found is not None else 1)
    if plan.num_gpus > most:
        yield f"scale: {plan.num_gpus:,} GPUs (measured up to {most:,})"
    largest = max((sent.get(kind, 0.0) for kind in ("scale_up", "scale_out")), default=0.0)
    # A rank of an all-reduce sends up to twice its message.
    if measured.message_bytes is not None and largest > 2 * measured.message_bytes[1]:
        upper = human(measured.message_bytes[1], "bytes")
        yield f"messages: {human(largest, 'bytes')} sent at once (measured up to {upper})"


def _accelerator(accelerator: AcceleratorSpec, precision: str, measured: CalibratedRange) -> Iterator[str]:
    family = accelerator.name.split("-", maxsplit=1)[0]
    same = [name for name in measured.accelerators if name.split("-", maxsplit=1)[0] == family]
    if not same:
        families = sorted({name.split("-", maxsplit=1)[0] for name in measured.accelerators})
        yield f"accelerator: {accelerator.name} (measured: {', '.join(families)})"
        return
    precisions = {_ALIKE.get(each, each) for name in same for each in measured.accelerators[name]}
    if _ALIKE.get(precision, precision) not in precisions:
        yield f"precision: {precision} (measured on {family}: {', '.join(sorted(precisions))})"
    changed = min((_changed(accelerator, precision, name) for name in same), key=len)
    if changed:
        yield f"figures of the accelerator: {', '.join(changed)}"


def _changed(accelerator: AcceleratorSpec, precision: str, name: str) -> list[str]:
    """Figures that are far from those of a measured accelerator."""
    try:
        theirs = _figures(_data_sheet(name), precision)
    except ClustersimError:
        return [f"{name} is not in the catalogue"]
    ours = _figures(accelerator, precision)
    return [
        f"{what} is {ours[what] / theirs[what]:.1f} times that of {name}"
        for what in ours
        if what in theirs and not 1 / _NEAR <= ours[what] / theirs[what] <= _NEAR
    ]


@cache
def _data_sheet(name: str) -> AcceleratorSpec:
    """An accelerator of the catalogue, read once a process."""
    from simulator.catalog import entry

    return AcceleratorSpec.model_validate(entry("accelerators", name))


def _figures(accelerator: AcceleratorSpec, precision: str) -> Mapping[str, float]:
    peaks = {str(name): value for name, value in accelerator.peak_flops.items()}
    figures = {"memory bandwidth": accelerator.memory_bandwidth}
    if precision in peaks:
        figures[f"{precision} rate"] = peaks[precision]
    return figures


def _scale_up(link: LinkSpec, measured: CalibratedRange) -> Iterator[str]:
    if link.name not in measured.scale_up:
        yield f"scale-up: {link.name} (measured: {', '.join(measured.scale_up) or 'none'})"


def _scale_out(link: LinkSpec, measured: CalibratedRange) -> Iterator[str]:
    known = measured.scale_out_bandwidth
    if known is None:
        yield f"scale-out: {link.name} (measured: none)"
    elif not known[0] / _SLACK <= link.bandwidth <= known[1] * _SLACK:
        low, high = (human(each, "bandwidth") for each in known)
        yield f"scale-out: {human(link.bandwidth, 'bandwidth')} per GPU (measured: {low} to {high})"


def _largest_amounts(lowered: Lowered) -> dict[str, float]:
    """Kind of link -> largest amount that any activity asks of it at once [B]."""
    program = lowered.program
    classes, links = program.classes, program.structure.once(_links, lambda: _links(lowered))
    found: dict[str, float] = {}
    for kind, is_of in links.items():
        amounts = classes.demand_amount[is_of[classes.demand_capacity]]
        if len(amounts):
            found[kind] = float(amounts.max())
    return found


def _links(lowered: Lowered) -> dict[str, NDArray[np.bool_]]:
    """Kind of link -> whether each capacity is of it."""
    kinds = lowered.program.capacities.kinds
    return {kind: np.array([each == kind for each in kinds]) for kind in ("scale_up", "scale_out")}
