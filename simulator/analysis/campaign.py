"""A result with the whole training that its step is one of."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from simulator.analysis.breakdown import CHECKPOINT
from simulator.analysis.restore import restore_seconds
from simulator.analysis.result import BasisNote, Result
from simulator.analysis.window import measured_window
from simulator.campaign import Pace, hazards, to_nanoseconds, undergo
from simulator.engine import Record
from simulator.program import Lowered
from simulator.scenario import Scenario
from simulator.specs import CampaignSpec, TrainingSpec
from simulator.units import PICOSECONDS


def with_campaign(result: Result, scenario: Scenario, lowered: Lowered, record: Record) -> Result:
    """The result, and what the whole training comes to if the scenario asks for it and the model fits.

    Raises:
        PlanError: The training practically never ends.
    """
    spec = scenario.campaign
    if spec is None or not result.fits:
        return result
    steps, group = num_steps(spec, scenario.training), lowered.group
    checkpoint, storage = scenario.checkpoint, scenario.cluster.storage
    copy = write = restore = 0.0
    if checkpoint is not None and storage is not None:
        window = measured_window(lowered, record)
        copy, write = window.checkpoint / PICOSECONDS, window.writing / PICOSECONDS
        restore = restore_seconds(lowered, storage)
    pace = Pace(
        steps=steps,
        step=max(1, to_nanoseconds(result.step_time_s - result.breakdown.get(CHECKPOINT, 0.0))),
        interval=steps if checkpoint is None else min(steps, checkpoint.interval),
        copy=to_nanoseconds(copy),
        write=to_nanoseconds(write),
        restart=to_nanoseconds(spec.restart),
        restore=to_nanoseconds(restore),
        hazards=hazards(spec, group),
        spare_nodes=spec.spare_nodes,
    )
    campaign = undergo(pace, spec, group, scenario.simulation.seed)
    said = BasisNote("whole training", "assumed", "what fails how often, and what it takes: the scenario")
    return replace(result, campaign=campaign, basis=[*result.basis, said])


def num_steps(spec: CampaignSpec, training: TrainingSpec) -> int:
    """Steps of the whole training; the last one may be more than is needed."""
    if spec.steps is not None:
        return spec.steps
    samples = spec.samples
    if samples is None:
        length = training.sequence_length + (training.decoder_sequence_length or 0)
        samples = ceil((spec.tokens or 0) / length)
    return -(-samples // training.global_batch_size)
