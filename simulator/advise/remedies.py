"""Remedies: the cheapest changes with which a model that does not fit would fit, each simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from simulator.analysis import Remedy
from simulator.errors import PlanError, ScenarioError
from simulator.program import lower
from simulator.run import Outcome, simulate
from simulator.scenario import Scenario
from simulator.specs.model import TransformerSpec

MOST: Final = 28
"""Scenarios that are simulated at most."""
_DEAR: Final = 0.1
"""Part of the throughput that a single change may cost before several are tried together."""
_DEAREST: Final = 0.5
"""Part of the throughput that changes may cost before a larger cluster is tried."""
_OFFLOAD: Final = "training.offload."
_SHARDINGS: Final = ("none", "optimizer", "gradients", "parameters")
_GROWTH: Final = (2, 4, 8)
"""Times the cluster that are tried when nothing else helps."""

Change = dict[str, Any]
Progress = Callable[[float, str], None]


def remedies(outcome: Outcome, *, progress: Progress | None = None) -> list[Remedy]:
    """Changes with which the outcome's model fits, the fastest first; none where it fits already.

    First one setting at a time: sequence parallelism, fused attention, sharding of the state, recomputation
    of some or all layers, smaller micro-batches, more tensor and pipeline parallelism, offloading. Where no
    single one is enough, or the fastest is slow, those that save most are taken together, offloading last,
    and what is not needed is left out again. Where that is not enough or very slow, a larger cluster is
    tried, with as many times the stages. The global batch stays as it is, and larger clusters stand last.

    Args:
        outcome: What does not fit.
        progress: Told the part that is done, and what is tried.
    """
    if outcome.result.fits:
        return []
    trial = _Trial(outcome, progress or (lambda _part, _what: None))
    tried = [found for change in _singles(outcome) if (found := trial.of(change)) is not None]
    fitting = [remedy for remedy in tried if remedy.fits]
    best: Change = {}
    if _loss(fitting) > _DEAR:
        best, together = _together(trial, [remedy for remedy in tried if not remedy.fits])
        fitting += [remedy for remedy in together if _loss([remedy]) < _loss(fitting)]
    if _loss(fitting) > _DEAREST:
        here = {key: value for key, value in best.items() if not key.startswith(_OFFLOAD)}
        fitting += _larger(trial, here if fitting else best)
    return sorted(fitting, key=lambda r: (r.num_gpus, r.step_time_s, r.peak_memory_bytes))


def _loss(found: list[Remedy]) -> float:
    """Part of the throughput that the fastest costs; more than all where there is none."""
    return min((-remedy.throughput_change for remedy in found), default=2.0)


@dataclass(slots=True)
class _Trial:
    """Simulates changed scenarios, `MOST` at most."""

    outcome: Outcome
    progress: Progress
    done: int = 0

    def of(self, change: Change) -> Remedy | None:
        """The change's outcome; None for a plan that is refused, or once enough has been tried."""
        if self.done >= MOST:
            return None
        told = ", ".join(f"{name} {value}" for name, value in change.items() if value is not None)
        self.progress(self.done / MOST, f"would it fit with {told}?")
        self.done += 1
        scenario = changed(self.outcome.scenario, change).changed({"campaign": None})
        try:
            pools = lower(scenario).program.pools
            resident = int(np.max(pools.initial))
            if resident > int(pools.limits[0]):
                return Remedy(change, resident, 0.0, 0.0, scenario.cluster.num_gpus, fits=False)
            after = simulate(scenario)
        except (PlanError, ScenarioError):
            return None
        gain = self.outcome.result.step_time_s / after.step_time_s - 1
        return Remedy(
            change, after.peak_memory_bytes, after.step_time_s, gain, after.num_gpus, fits=after.fits
        )


def changed(scenario: Scenario, change: Change) -> Scenario:
    """The scenario with some keys at other values, as the remedies are simulated: folded, without draws."""
    return scenario.changed(
        {"simulation.fold": "auto", "simulation.jitter": None, "simulation.seeds": 1} | change
    )


def _singles(outcome: Outcome) -> Iterator[Change]:
    """One setting at a time, those that cost least first."""
    scenario, plan = outcome.scenario, outcome.lowered.plan
    training, parallelism = scenario.training, scenario.parallelism
    transformer = isinstance(scenario.model, TransformerSpec)
    if plan.tensor_parallel > 1 and not parallelism.sequence_parallel:
        yield {"parallelism.sequence_parallel": True}
    if transformer and (training.attention or scenario.software.attention) == "unfused":
        yield {"training.attention": "fused"}
    if plan.data_parallel > 1:
        for sharding in _SHARDINGS[_SHARDINGS.index(parallelism.data_parallel_sharding) + 1 :]:
            change: dict[str, Any] = {"parallelism.data_parallel_sharding": sharding}
            if sharding == "parameters" and parallelism.gradient_bucket is not None:
                change["parallelism.gradient_bucket"] = None  # reduced layer by layer then
            yield change
    if transformer:
        yield from _recomputing(scenario, max(plan.layers_per_part))
    smaller = training.micro_batch_size
    while smaller % 2 == 0 and smaller > 1:
        smaller //= 2
        yield {"training.micro_batch_size": smaller}
    if transformer:
        if plan.tensor_parallel * 2 <= plan.group.domain:
            yield {"parallelism.tensor_parallel": plan.tensor_parallel * 2, "parallelism.data_parallel": None}
        yield {"parallelism.pipeline_parallel": plan.pipeline_parallel * 2, "parallelism.data_parallel": None}
    yield from _offloading(outcome)


def _recomputing(scenario: Scenario, layers: int) -> Iterator[Change]:
    """More recomputation: the attention core, the first half of each part's layers, all of them."""
    training = scenario.training
    number = training.recompute_num_layers
    whole: Change = {"training.recompute": "full"}
    if training.recompute_modules is not None:
        whole |= {"training.recompute_modules": None}
    if training.recompute == "none":
        yield {"training.recompute": "selective"}
    if training.recompute != "full" and layers > 1:
        yield whole | {"training.recompute_num_layers": layers // 2}
    if training.recompute != "full":
        yield whole
    elif number is not None and number < layers and training.recompute_method != "uniform":
        yield {"training.recompute_num_layers": layers}


def _offloading(outcome: Outcome) -> Iterator[Change]:
    """What could lie in the host's memory, as far as it does not already; least moved first."""
    scenario, plan = outcome.scenario, outcome.lowered.plan
    settings, key = scenario.training.offload, _OFFLOAD
    apart = plan.degree("data") == 1
    change: Change = {}
    if settings.activations is None and isinstance(scenario.model, TransformerSpec):
        yield {f"{key}activations": "host"}
    if settings.optimizer is None:
        change |= {f"{key}optimizer": "host"}
        yield dict(change)
    if settings.gradients is None and settings.optimizer_fraction == 1 and (apart or plan.sharding.gradients):
        change |= {f"{key}gradients": "host"}
        yield dict(change)
    if settings.parameters is None and (apart or plan.sharding.parameters) and plan.sharding.reshard:
        change |= {f"{key}parameters": "host"}
        yield dict(change)


def _together(trial: _Trial, tried: list[Remedy]) -> tuple[Change, list[Remedy]]:
    """The changes that save most taken together until the model fits, and their outcome if it does."""
    taken: list[Change] = []
    for remedy in sorted(tried, key=lambda remedy: (_offloads(remedy), remedy.peak_memory_bytes)):
        best = _joined(taken)
        if any(value is not None and name in best for name, value in remedy.change.items()):
            continue
        taken.append(remedy.change)
        found = trial.of(_joined(taken)) if len(taken) > 1 else None
        if found is not None and found.fits:
            return _joined(taken), [_needed(trial, taken, found)]
    return _joined(taken), []


def _needed(trial: _Trial, taken: list[Change], found: Remedy) -> Remedy:
    """What is left once settings are left out without which the model fits, too, and is as fast."""
    for change in reversed(taken):
        settings = [key for key, value in change.items() if value is not None]
        for key in settings:
            out = {key} if len(settings) > 1 else set(change)
            rest = {other: value for other, value in found.change.items() if other not in out}
            again = trial.of(rest)
            if again is not None and again.fits and again.step_time_s <= found.step_time_s:
                found = again
    return found


def _offloads(remedy: Remedy) -> bool:
    return any(key.startswith(_OFFLOAD) for key in remedy.change)


def _joined(changes: list[Change]) -> Change:
    return {key: value for change in changes for key, value in change.items()}


def _larger(trial: _Trial, best: Change) -> list[Remedy]:
    scenario, plan = trial.outcome.scenario, trial.outcome.lowered.plan
    groups = scenario.cluster.node_groups
    if len(groups) > 1 or not isinstance(scenario.model, TransformerSpec):
        return []
    trial.done = min(trial.done, MOST - len(_GROWTH))
    stages = best.get("parallelism.pipeline_parallel", plan.pipeline_parallel)
    for times in _GROWTH:
        change = best | {
            "cluster.nodes": groups[0].nodes * times,
            "parallelism.pipeline_parallel": stages * times,
            "parallelism.data_parallel": None,
        }
        found = trial.of(change)
        if found is not None and found.fits:
            return [found]
    return []
