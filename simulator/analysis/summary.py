"""Record -> Result: throughput, MFU, breakdown, bottlenecks, memory, utilisation."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import numpy as np

from simulator.analysis.basis import basis_notes
from simulator.analysis.breakdown import CHECKPOINT, time_by_cause
from simulator.analysis.critical_path import share_by_resource
from simulator.analysis.evidence import evidence_of
from simulator.analysis.host import HostMemory, host_memory
from simulator.analysis.memory import MemoryPeak, memory_peak
from simulator.analysis.result import Bottleneck, PeakMoment, Result
from simulator.analysis.tables import Tables
from simulator.analysis.use import utilization
from simulator.analysis.window import Window, measured_window
from simulator.engine import Record
from simulator.program import Lowered, Plan
from simulator.scenario import Scenario
from simulator.specs.calibration import Calibration
from simulator.specs.hardware import Precision
from simulator.units import PICOSECONDS, human
from simulator.workload.precision import matrix_precision

_STARVING = 0.05
"""Part of a step that waits for samples, from which a warning says so."""


def step_seconds(lowered: Lowered, record: Record, scenario: Scenario) -> float:
    """Time of a step [s]: mean of the measured ones, and the checkpoint's share of each step."""
    window = measured_window(lowered, record)
    step = window.length / window.steps / PICOSECONDS
    if scenario.checkpoint is None:
        return step
    interval = scenario.checkpoint.interval
    return step + window.stall(interval) / interval / PICOSECONDS


class Essentials(NamedTuple):
    """What a search compares.

    Attributes:
        step_time_s: Time of a step [s]; the result's, a sum over causes, differs by rounding alone.
        peak_memory_bytes: Peak of the stage that needs most [B].
        fits: Whether that is no more than its device has.
    """

    step_time_s: float
    peak_memory_bytes: int
    fits: bool


def essentials(scenario: Scenario, lowered: Lowered, record: Record) -> Essentials:
    """Step time and memory, at a fraction of the price of everything."""
    stage = int(np.argmax(record.pool_peak))
    peak = int(record.pool_peak[stage])
    host = host_memory(scenario, lowered, record)
    fits = peak <= int(lowered.program.pools.limits[stage]) and (host is None or host.fits)
    return Essentials(step_seconds(lowered, record, scenario), peak, fits)


def summarise(
    scenario: Scenario,
    lowered: Lowered,
    record: Record,
    calibration: Calibration,
    *,
    version: str,
    wall_s: float,
) -> Result:
    """Everything that result.json says, and the tables beside it."""
    window = measured_window(lowered, record)
    breakdown = _breakdown(scenario, lowered, record, window)
    step = math.fsum(breakdown.values())
    memory = memory_peak(lowered, record)
    host = host_memory(scenario, lowered, record) or HostMemory(0, 0, {}, {})
    fits = memory.peak <= memory.capacity and host.fits
    accelerator = lowered.group.accelerator
    peaks = {str(name): value for name, value in accelerator.peak_flops.items()}
    return Result(
        name=scenario.name,
        model=scenario.model.name,
        accelerator=accelerator.name,
        num_gpus=lowered.plan.num_gpus,
        parallelism=_degrees(scenario, lowered.plan),
        step_time_s=step,
        **_rates(scenario, lowered, step, fits=fits),
        fits=fits,
        **_memory(lowered, memory, host),
        breakdown=breakdown,
        bottlenecks=_bottlenecks(lowered, record, window),
        utilization=utilization(lowered, record, window),
        basis=basis_notes(scenario, calibration),
        evidence=evidence_of(scenario, lowered, calibration),
        warnings=_warnings(scenario, lowered, breakdown, step),
        num_activities=lowered.program.num_activities,
        num_events=record.num_events,
        wall_s=wall_s,
        player=record.player,
        version=version,
        seed=scenario.simulation.seed,
        _tables=Tables(lowered, record, window, peaks, accelerator.memory_bandwidth),
    )


def _degrees(scenario: Scenario, plan: Plan) -> dict[str, int]:
    return {
        "tensor_parallel": plan.tensor_parallel,
        "pipeline_parallel": plan.pipeline_parallel,
        "virtual_pipeline": plan.virtual_pipeline,
        "context_parallel": plan.context_parallel,
        "expert_parallel": scenario.parallelism.expert_parallel,
        "data_parallel": plan.data_parallel,
        "num_micro_batches": plan.num_micro_batches,
    }


def _rates(scenario: Scenario, lowered: Lowered, step: float, *, fits: bool) -> dict[str, Any]:
    """Fields of `Result` that go by the time of a step [s]; None where the model does not fit."""
    training = scenario.training
    model, hardware = lowered.program.structure.once(_arithmetic, lambda: _arithmetic(lowered))
    peaks = lowered.group.accelerator.peak_flops
    peak = peaks.get(cast(Precision, matrix_precision(training.precision)))
    length = training.sequence_length + (training.decoder_sequence_length or 0)
    tokens = training.global_batch_size * length / step
    found = {
        "tokens_per_s": tokens,
        "tokens_per_s_per_gpu": tokens / lowered.plan.num_gpus,
        "samples_per_s": training.global_batch_size / step,
        "model_tflops_per_gpu": model / step / 1e12,
        "mfu": model / step / peak if peak else None,
        "hfu": hardware / step / peak if peak else None,
    }
    return found if fits else dict.fromkeys(found)


def _memory(lowered: Lowered, memory: MemoryPeak, host: HostMemory) -> dict[str, Any]:
    """Fields of `Result` that say what lies where; of the copies of a stage that of the fullest."""
    copies = lowered.copies
    firsts = range(0, len(memory.by_stage), copies)
    return {
        "peak_memory_bytes": memory.peak,
        "memory_capacity_bytes": memory.capacity,
        "memory_by_part": memory.parts,
        "memory_by_stage": [max(memory.by_stage[first : first + copies]) for first in firsts],
        "memory_by_operator": memory.operators,
        "memory_by_kind": memory.by_kind,
        "host_memory_bytes": host.peak,
        "host_memory_capacity_bytes": host.capacity,
        "host_memory_by_part": host.parts,
        "drives_by_part": host.drives,
        "drives_capacity_bytes": host.drives_capacity,
        "peak_moment": PeakMoment(
            memory.stage // copies,
            memory.time / PICOSECONDS,
            memory.running,
            None if memory.over is None else memory.over / PICOSECONDS,
        ),
    }


def _breakdown(scenario: Scenario, lowered: Lowered, record: Record, window: Window) -> dict[str, float]:
    """Seconds of a step by cause, the mean over stages; the largest first."""
    share = len(lowered.states) * window.steps * PICOSECONDS
    seconds = {cause: time / share for cause, time in time_by_cause(lowered, record, window).items()}
    if scenario.checkpoint is not None and (stalled := window.stall(scenario.checkpoint.interval)):
        stall = stalled / scenario.checkpoint.interval / PICOSECONDS
        seconds[CHECKPOINT] = seconds.get(CHECKPOINT, 0.0) + stall
    return dict(sorted(seconds.items(), key=lambda item: (-item[1], item[0])))


def _arithmetic(lowered: Lowered) -> tuple[float, float]:
    """FLOP of one GPU in one step, the mean over stages: what the model needs, and with recomputation."""
    program, facts = lowered.program, lowered.facts
    measured = program.tags["step"] == len(lowered.step_ends) - 1
    count = np.bincount(program.cls[measured], minlength=len(facts.flops)).astype(np.float64)
    needed = float(count @ facts.model_flops)
    again = np.array([label.phase == "recompute" for label in program.classes.labels])
    matrix = facts.model_flops > 0
    extra = float(count[again] @ facts.flops[again]) if again.any() else 0.0
    stages = len(lowered.states)
    hardware = float(count[matrix] @ facts.flops[matrix]) + extra
    return needed / stages, hardware / stages


def _bottlenecks(lowered: Lowered, record: Record, window: Window) -> list[Bottleneck]:
    shares = share_by_resource(lowered, record, window)
    ranked = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return [Bottleneck(resource, share) for resource, share in ranked]


def _warnings(scenario: Scenario, lowered: Lowered, breakdown: dict[str, float], step: float) -> list[str]:
    warnings = [*scenario.warnings, *lowered.warnings]
    stall = breakdown.get("data_stall", 0.0)
    if stall > _STARVING * step:
        warnings.append(
            f"the job starves on data: GPUs wait {human(stall, 'time')} of each step "
            f"({stall / step:.0%}) for samples"
        )
    return warnings
