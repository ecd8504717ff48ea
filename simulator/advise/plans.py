"""Plan search: every legal plan of a space, the best ten of them, no plan left out unsoundly."""

from __future__ import annotations

import heapq
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any, Final, Literal

from simulator.advise.bounds import Prices, Share, bounds, shared
from simulator.analysis import Result
from simulator.engine import load_compiled
from simulator.errors import ClustersimError, PlanError
from simulator.run import Played, played, simulate
from simulator.scenario import Scenario
from simulator.specs.calibration import Calibration
from simulator.specs.model import TransformerSpec

BEST: Final = 10
MOST_GPUS: Final = 2**20
RECOMPUTE: Final = ("none", "selective", "full")
_FREE: Final = tuple(
    f"parallelism.{key}"
    for key in (
        "data_parallel",
        "pipeline_schedule",
        "pipeline_order",
        "pipeline_layers",
        "encoder_pipeline_parallel",
    )
)
"""What follows from a plan, whatever the scenario says."""

_ROUNDING: Final = 1e-12
"""Part by which sums of floats may be too large."""

Objective = Literal["throughput", "throughput_per_gpu"]
Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class FoundPlan:
    """A plan that fits.

    Attributes:
        overrides: Key of the space -> value.
        settings: All that makes the scenario this plan: these, and None for what the scenario says and a plan
            decides.
        result: What it does.
    """

    overrides: Mapping[str, Any]
    settings: Mapping[str, Any]
    result: Result


@dataclass(frozen=True, slots=True)
class PlanSearch:
    """What a search found.

    Attributes:
        best: The best plans that fit, the best first.
        own: What the scenario's own plan does, be it in the space or not; None if it is refused or too large.
        enumerated: Plans of the space.
        illegal: Of them, found to be refused: something does not divide.
        without_memory: Not simulated, as what a GPU keeps between steps does not fit.
        bounded: Not simulated, as they cannot be among the best even without communication, whether or not
            they would be legal and fit.
        simulated: Simulated.
        too_large: Of these, plans that do not fit.
        least_bytes: What a GPU needs at least in the smallest plan without room or too large [B]; None if
            there is none.
        simulating_s: Processor time that the simulated plans took [s].
        wall_s: Time that all this took [s].
    """

    best: tuple[FoundPlan, ...]
    own: Result | None
    enumerated: int
    illegal: int
    without_memory: int
    bounded: int
    simulated: int
    too_large: int
    least_bytes: int | None
    simulating_s: float
    wall_s: float


def plan_space(scenario: Scenario, max_gpus: int) -> Iterator[dict[str, Any]]:
    """The plans that are looked at, as overrides of the scenario; not all of them are legal.

    Nodes: 1 and twice as many as before up to the limit, the limit itself, and what the scenario has. Tensor
    parallelism: what divides heads and the scale-up domain. Pipeline: what divides the layers, powers of two
    (some stages then have a layer less) and what the scenario has. Chunks: what divides a stage's layers.
    Micro-batch: what divides the global batch. Recomputation: all three. Everything else, such as sharding
    and context parallelism, is as the scenario has it.

    Raises:
        ClustersimError: No node fits the limit, or the scenario has several node groups.
    """
    if len(scenario.cluster.node_groups) != 1:
        raise ClustersimError("plan: plans are searched on one node group only")
    group, model = scenario.cluster.node_groups[0], scenario.model
    most = min(max_gpus, MOST_GPUS) // group.gpus_per_node
    if most < 1:
        raise ClustersimError(f"plan: {max_gpus} GPUs are less than one node of {group.gpus_per_node}")
    nodes = {2**power for power in range(most.bit_length())} | {most}
    nodes |= {group.nodes} if group.nodes <= most else set()
    batch = scenario.training.global_batch_size
    if not isinstance(model, TransformerSpec):
        for count, micro in itertools.product(sorted(nodes), _divisors(batch)):
            yield {"cluster.nodes": count, "training.micro_batch_size": micro}
        return
    context = scenario.parallelism.context_parallel
    shared = math.gcd(model.num_attention_heads, model.intermediate_size)
    tensors = [tensor for tensor in _divisors(shared) if tensor <= group.domain]
    layers = model.num_hidden_layers
    stages = {*_divisors(layers), *(2**power for power in range(layers.bit_length()))}
    stages |= {scenario.parallelism.pipeline_parallel}
    for count, tensor, pipeline in itertools.product(sorted(nodes), tensors, sorted(stages)):
        gpus = count * group.gpus_per_node
        ranks = tensor * pipeline * context
        if gpus % ranks or batch % (gpus // ranks):
            continue
        chunks = _divisors(-(-layers // pipeline)) if pipeline > 1 else [1]
        micros = _divisors(batch // (gpus // ranks))
        for virtual, micro, recompute in itertools.product(chunks, micros, RECOMPUTE):
            yield {
                "cluster.nodes": count,
                "parallelism.tensor_parallel": tensor,
                "parallelism.pipeline_parallel": pipeline,
                "parallelism.virtual_pipeline": virtual,
                "training.micro_batch_size": micro,
                "training.recompute": recompute,
            }


def planned_scenario(scenario: Scenario, overrides: Mapping[str, Any]) -> Scenario:
    """The scenario with a plan of `plan_space` in place, for a step of it."""
    changes = _changes(overrides) | {"campaign": None}
    if scenario.simulation.player == "auto":
        changes["simulation.player"] = "compiled"
    return scenario.changed(changes)


def _changes(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A plan's overrides, and None for what follows from it."""
    changes: dict[str, Any] = dict.fromkeys(_FREE) | dict(overrides)
    if "training.recompute" in changes:  # a recomputation of the space is for all layers
        changes |= {"training.recompute_num_layers": None, "training.recompute_method": None}
        if changes["training.recompute"] != "selective":
            changes["training.recompute_modules"] = None
    return changes


def _settings(scenario: Scenario, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What a user sets to have the plan: nothing that the scenario leaves open, too."""
    said = operator.attrgetter
    return {
        key: value
        for key, value in _changes(overrides).items()
        if value is not None or said(key)(scenario) is not None
    }


def search_plans(
    scenario: Scenario,
    max_gpus: int,
    *,
    best: int = BEST,
    objective: Objective = "throughput",
    progress: Progress | None = None,
) -> PlanSearch:
    """The best plans of `plan_space`, exactly: no plan that is left out could be among them.

    Plans are simulated in the order of what they can reach at most, without those whose state does not fit,
    until no bound is left that beats the last of the best. Equal plans rank by GPUs, then in the
    order of the space.

    Args:
        scenario: The job; its own plan is only where the search begins.
        max_gpus: GPUs at most.
        best: How many plans are wanted.
        objective: Samples per second of all GPUs together, or of one.
        progress: Told the part done and what is going on.

    Raises:
        ClustersimError: As `plan_space`, or no plan is legal.
    """
    begun, tell = perf_counter(), progress or (lambda _, __: None)
    if scenario.simulation.player != "reference":
        load_compiled()
    waiting = _Waiting(scenario, max_gpus, objective)
    kept: list[_Simulated] = []
    simulated = too_large = 0
    worst, simulating_s = math.inf, 0.0
    while (plan := waiting.next(worst)) is not None:
        _, gpus, number, overrides = plan
        left = len(waiting.plans)
        tell(simulated / (simulated + left + 1), f"{simulated:,} plans simulated, {left:,} left")
        start = process_time()
        try:
            found = played(waiting.exact.pop(number), calibration=waiting.calibration)
        except ClustersimError:
            waiting.illegal += 1
            continue
        step_s, peak, fits = found.essentials()
        simulated += 1
        simulating_s += process_time() - start
        if not fits:
            too_large += 1
            waiting.needs.append(peak)
            continue
        score = _score(scenario.training.global_batch_size / step_s, gpus, objective)
        kept.append((-score, gpus, number, overrides, found))
        kept.sort(key=lambda plan: plan[:3])
        if len(kept) >= best:
            worst = kept[best - 1][0] * (1 - _ROUNDING)  # whose exact times may be the same
            kept = [plan for plan in kept if plan[0] <= worst]
    enumerated, illegal, without_memory = waiting.enumerated, waiting.illegal, waiting.without_memory
    if enumerated == illegal:
        raise ClustersimError("plan: no plan is legal; does the global batch divide over the replicas?")
    return PlanSearch(
        best=_ranked(scenario, kept, objective)[:best],
        own=_own(scenario, max_gpus),
        enumerated=enumerated,
        illegal=illegal,
        without_memory=without_memory,
        bounded=enumerated - illegal - without_memory - simulated,
        simulated=simulated,
        too_large=too_large,
        least_bytes=min(waiting.needs, default=None),
        simulating_s=simulating_s,
        wall_s=perf_counter() - begun,
    )


_Simulated = tuple[float, int, int, Mapping[str, Any], Played]
"""Minus what it reaches but for rounding, its GPUs, its number in the space, its overrides, and its play."""


def _ranked(scenario: Scenario, kept: list[_Simulated], objective: Objective) -> tuple[FoundPlan, ...]:
    """Plans with their results, the best first."""
    found = []
    for _, gpus, number, overrides, plan in kept:
        result = plan.result()
        assert result.samples_per_s is not None
        found.append((-_score(result.samples_per_s, gpus, objective), gpus, number, overrides, result))
    found.sort(key=lambda plan: plan[:3])
    return tuple(
        FoundPlan(overrides, _settings(scenario, overrides), result) for *_, overrides, result in found
    )


def _own(scenario: Scenario, max_gpus: int) -> Result | None:
    if scenario.cluster.num_gpus > max_gpus:
        return None
    player = "compiled" if scenario.simulation.player == "auto" else scenario.simulation.player
    try:
        result = simulate(scenario.changed({"campaign": None, "simulation.player": player}))
    except ClustersimError:
        return None
    return result if result.fits else None


_Candidate = tuple[float, int, int, Mapping[str, Any]]
"""At most minus what it reaches, its GPUs, its number in the space, its overrides."""


class _Waiting:
    """Plans of a space, the most promising first, each bounded no more closely than it must be.

    At first a plan's bound follows from what plans of the same tensor parallelism, micro-batch and
    recomputation share: the kernels of a micro-batch and the time of a layer. Only a plan that comes first by
    it is looked at closely, and takes its place by its own bounds.
    """

    def __init__(self, scenario: Scenario, max_gpus: int, objective: Objective) -> None:
        self.scenario, self.objective = scenario, objective
        self.calibration, self.prices = Calibration.load(), Prices()
        self.shares: dict[tuple[Any, ...], Share] = {}
        self.tied = getattr(scenario.model, "tie_word_embeddings", False)
        self.layers = getattr(scenario.model, "num_hidden_layers", 0)
        self.illegal = self.without_memory = 0
        self.needs: list[int] = []
        self.exact: dict[int, Scenario] = {}
        self.plans: list[_Candidate] = []
        for number, overrides in enumerate(plan_space(scenario, max_gpus)):
            gpus = overrides["cluster.nodes"] * scenario.cluster.node_groups[0].gpus_per_node
            self.plans.append((self._roughly(gpus, overrides), gpus, number, overrides))
        self.enumerated = len(self.plans)
        heapq.heapify(self.plans)

    def next(self, worst: float) -> _Candidate | None:
        """The plan to simulate next; None once none can beat, or equal, minus the score `worst`."""
        while self.plans and self.plans[0][0] <= worst:
            plan = heapq.heappop(self.plans)
            if plan[2] in self.exact:
                return plan
            self._look_closely(plan)
        return None

    def _look_closely(self, plan: _Candidate) -> None:
        roughly, gpus, number, overrides = plan
        planned = planned_scenario(self.scenario, overrides)
        try:
            found = bounds(planned, self.calibration, self.prices)
        except PlanError:
            self.illegal += 1
            return
        if not found.can_fit:
            self.without_memory += 1
            self.needs.append(found.memory_bytes)
            return
        closely = -_score(self.scenario.training.global_batch_size / found.step_s, gpus, self.objective)
        self.exact[number] = planned
        heapq.heappush(self.plans, (max(roughly, closely), gpus, number, overrides))

    def _roughly(self, gpus: int, overrides: Mapping[str, Any]) -> float:
        """Minus the score at best, by the kernels alone; minus infinity where they are not known."""
        scenario, micro = self.scenario, overrides["training.micro_batch_size"]
        tensor, pipeline, chunks = (
            overrides.get(f"parallelism.{key}", 1)
            for key in ("tensor_parallel", "pipeline_parallel", "virtual_pipeline")
        )
        # A head that reads the embedding's table does so only where both are on one stage.
        shared = tensor, micro, overrides.get("training.recompute"), self.tied and pipeline > 1
        known = self.shares.get(shared)
        if known is None:
            known = self._share(overrides)
            if known is None:
                return -math.inf
            self.shares[shared] = known
        ranks = tensor * pipeline * scenario.parallelism.context_parallel
        batch = scenario.training.global_batch_size
        step = _least(known, batch * ranks / (gpus * micro), pipeline, chunks, self.layers)
        return -_score(batch / step, gpus, self.objective) if step else -math.inf

    def _share(self, overrides: Mapping[str, Any]) -> Share | None:
        """What plans like this one share; nothing where others may have less, None if it is refused."""
        model = self.scenario.model
        split = isinstance(model, TransformerSpec) and bool(model.num_encoder_layers)
        if split or self.scenario.distillation is not None:
            return Share(0.0, 0.0, 0.0, 0.0, 0.0)
        try:
            return shared(planned_scenario(self.scenario, overrides), self.calibration, self.prices)
        except PlanError:
            return None


def _least(share: Share, micro_batches: float, stages: int, chunks: int, layers: int) -> float:
    """The shortest step by what plans share [s]; no chunk has a layer less than its even part, rounded down.

    With K the kernels of m micro-batches over P stages, C the layers of one of v chunks, and stage p waiting
    for the first chunks of those before it: the last stage has ``(m v + P - 1) C``, m times what stands
    behind the layers and, once, what stands before them; the mean of all stages is
    ``m K / P + C (P - 1) / 2``; and where stages have one chunk, whose times may be uneven, none ends before
    the others if ``T = K / (1 - (1 - 1/m)^P)``.
    """
    chunk = max(layers // (stages * chunks) * share.layer_s - share.ends_s, 0.0)
    even = micro_batches * share.kernels_s / stages + chunk * (stages - 1) / 2
    last = (micro_batches * chunks + stages - 1) * chunk + micro_batches * share.tail_s + share.front_s
    uneven = share.kernels_s / (1 - (1 - 1 / micro_batches) ** stages) if chunks == 1 else 0.0
    return max(even, last, uneven) * (1 - _ROUNDING)


def _score(samples_per_s: float, gpus: int, objective: Objective) -> float:
    return samples_per_s / gpus if objective == "throughput_per_gpu" else samples_per_s


def _divisors(number: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})
