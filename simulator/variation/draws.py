"""What stretches which activity: passes, nodes and links, and random factors for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log1p, sqrt
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from simulator.program import Lowered, Plan
from simulator.program.unfolding.unfold import replica_groups, replica_of_rank
from simulator.scenario import Scenario
from simulator.specs.uncertainty import DistributionSpec, SlowGpusSpec

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Which row of a table of factors stretches each activity of a folded Program.

    Rows are passes first, then each stage's links, then, for each way in which replicas meet, each stage's
    collectives.

    Attributes:
        row: Row of each activity, -1 for what is never stretched (loading, checkpoints, joins).
        passes: Number of passes.
        stage: Stage of each pass.
        stages: Number of stages.
        meet: Which row of `groups` says what replicas start an activity together, -1 for none.
        groups: Group of each replica, a row for each way to meet; all of them in the first.
    """

    row: NDArray[np.int32]
    passes: int
    stage: NDArray[np.int32]
    stages: int
    meet: NDArray[np.int32]
    groups: NDArray[np.int32]

    @property
    def count(self) -> int:
        """Rows in all."""
        return self.passes + (1 + len(self.groups)) * self.stages

    def own_pace(self) -> NDArray[np.int32]:
        """Rows of activities of replicas that wait for no other: all links are their own."""
        link = (self.row - self.passes) % self.stages + self.passes
        return np.where(self.row >= self.passes, link, self.row).astype(np.int32)


def assign_rows(lowered: Lowered, *, each_pass: bool) -> Rows:
    """Numbers the passes and says what stretches each activity.

    A pass is a run of a stage's kernels of one step, micro-batch and direction; recomputation belongs to
    the backward pass. Reductions and update at the end of a step are a pass, too.

    Args:
        lowered: A folded Program.
        each_pass: Whether every pass has a factor of its own, or all passes of a stage share one.
    """
    program, stages = lowered.program, len(lowered.states)
    labels, cls, stage = program.classes.labels, program.cls, program.tags["stage"]
    kernel = np.array([x.cause.startswith("compute.") or x.cause == "optimizer" for x in labels])[cls]
    transfer = np.array([x.cause.startswith("communication.") for x in labels])[cls] & (stage >= 0)
    meet, groups = _meetings(lowered)
    kernel &= stage >= 0
    passes, of_pass, owner = stages, stage.astype(np.int64), np.arange(stages, dtype=np.int32)
    if each_pass:
        backward = np.array([x.phase != "forward" for x in labels])[cls]
        passes, of_pass, owner = _passes(lowered, kernel, backward)
    row = np.full(program.num_activities, -1, np.int64)
    row[kernel] = of_pass[kernel]
    row[transfer] = passes + stage[transfer] + (meet[transfer] + 1) * stages
    return Rows(row.astype(np.int32), passes, owner, stages, meet, groups)


def _meetings(lowered: Lowered) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Which replicas start each activity together, and the groups."""
    program, plan = lowered.program, lowered.plan
    rows, code = [np.zeros(plan.data_parallel, np.int64)], {}
    for axis in sorted({*lowered.facts.axis}):
        found = replica_groups(plan, axis) if axis not in ("", "pipeline") else None
        code[axis] = -1
        if found is not None:
            known = [number for number, row in enumerate(rows) if (row == found).all()]
            code[axis] = known[0] if known else len(rows)
            rows += [] if known else [found]
    meet = np.array([code[axis] for axis in lowered.facts.axis], np.int32)[program.cls]
    single = np.array([kind == "join" for kind in program.lanes.kinds])[program.lane]
    return np.where(single, 0, meet).astype(np.int32), np.array(rows, np.int32)


def _passes(
    lowered: Lowered, kernel: NDArray[np.bool_], backward: NDArray[np.bool_]
) -> tuple[int, NDArray[np.int64], NDArray[np.int32]]:
    tags = lowered.program.tags
    ids = np.flatnonzero(kernel)
    columns = (tags["stage"], tags["step"], tags["micro_batch"], backward)
    begins = np.zeros(len(ids), np.bool_)
    begins[:1] = True
    for column in columns:
        begins[1:] |= column[ids][1:] != column[ids][:-1]
    number = np.cumsum(begins) - 1
    of_pass = np.full(lowered.program.num_activities, -1, np.int64)
    of_pass[ids] = number
    return int(number[-1]) + 1 if len(ids) else 0, of_pass, tags["stage"][ids[begins]].astype(np.int32)


class Draws:
    """Factors of a scenario; each source of randomness has a generator of its own for each draw."""

    def __init__(self, scenario: Scenario, plan: Plan, rows: Rows) -> None:
        self._jitter, self._plan, self._rows = scenario.simulation.jitter, plan, rows
        self._seed, self._cluster = scenario.simulation.seed, scenario.cluster

    def factors(self, draws: Sequence[int]) -> F64:
        """The factors of some draws, one behind the other: shape [rows, draws x replicas].

        A kernel's factor is its pass's draw, times the node's, times a slow GPU's; where the ranks of a
        replica's stage sit on several nodes, or only some of them are slow, the slowest sets the pace.
        A collective of several replicas goes at the pace of the slowest member's link.
        """
        replicas, passes = self._plan.data_parallel, self._rows.passes
        table = np.empty((self._rows.count, len(draws) * replicas))
        for place, draw in enumerate(draws):
            self._one(draw, table[:, place * replicas : (place + 1) * replicas], passes)
        return table

    def _one(self, draw: int, out: F64, passes: int) -> None:
        jitter, rows, replicas = self._jitter, self._rows, self._plan.data_parallel
        kernels = jitter.kernels if jitter is not None else None
        links = jitter.links if jitter is not None else None
        if kernels is None:
            out[:passes] = 1.0
        else:
            out[:passes] = _sample(kernels, self._generator("kernels", draw), (passes, replicas))
        pace = self._pace(draw)
        if pace is not None:
            out[:passes] *= pace[rows.stage]
        out[passes:] = 1.0
        if links is not None:
            own = _sample(links, self._generator("links", draw), (rows.stages, replicas))
            out[passes : passes + rows.stages] = own
            for number, groups in enumerate(rows.groups):
                slowest = np.zeros((int(groups.max()) + 1, rows.stages))
                np.maximum.at(slowest, groups, own.T)
                first = passes + (1 + number) * rows.stages
                out[first : first + rows.stages] = slowest[groups].T

    def _pace(self, draw: int) -> F64 | None:
        """Factor of the slowest rank of each stage of each replica, shape [stages, replicas]."""
        nodes = self._jitter.nodes if self._jitter is not None else None
        slow, plan = self._cluster.slow_gpus, self._plan
        if nodes is None and slow is None:
            return None
        ranks = np.ones(plan.num_gpus)
        if nodes is not None:
            on = np.arange(plan.num_gpus) // plan.group.gpus_per_node
            ranks *= _sample(nodes, self._generator("nodes", draw), (int(on[-1]) + 1,))[on]
        if slow is not None:
            ranks[slow_ranks(slow, plan, self._generator("slow_gpus", draw))] *= 1 + slow.slowdown
        stage = np.arange(plan.num_gpus) // plan.axes.stride("pipeline") % self._rows.stages
        pace = np.zeros((self._rows.stages, plan.data_parallel))
        np.maximum.at(pace, (stage, replica_of_rank(plan)), ranks)
        return pace

    def _generator(self, name: str, draw: int) -> np.random.Generator:
        sequence = np.random.SeedSequence(self._seed, spawn_key=(crc32(name.encode()), draw))
        return np.random.Generator(np.random.SFC64(sequence))


def slow_ranks(slow: SlowGpusSpec, plan: Plan, generator: np.random.Generator) -> list[int]:
    """Ranks of the slow GPUs."""
    if slow.ranks is not None:
        return list(slow.ranks)
    assert slow.count is not None
    drawn = generator.choice(plan.num_gpus, size=slow.count, replace=False)
    return sorted(int(rank) for rank in drawn)


def varies(scenario: Scenario) -> bool:
    """Whether replicas differ at all."""
    return _jitters(scenario) or scenario.cluster.slow_gpus is not None


def is_random(scenario: Scenario) -> bool:
    """Whether one draw differs from the next."""
    slow = scenario.cluster.slow_gpus
    return _jitters(scenario) or (slow is not None and slow.count is not None)


def _jitters(scenario: Scenario) -> bool:
    jitter = scenario.simulation.jitter
    return jitter is not None and any((jitter.kernels, jitter.nodes, jitter.links))


def _sample(spec: DistributionSpec, generator: np.random.Generator, shape: tuple[int, ...]) -> F64:
    """Factors with mean 1 and the given standard deviation.

    Single precision: it is quick, and finer by far than anyone knows a distribution.
    """
    sigma = spec.sigma
    if spec.distribution == "lognormal":
        # exp(N(m, s)) has mean exp(m + s^2 / 2) and relative variance exp(s^2) - 1.
        variance = log1p(sigma * sigma)
        drawn = generator.standard_normal(shape, np.float32)
        drawn *= np.float32(sqrt(variance))
        drawn -= np.float32(variance / 2)
        return np.exp(drawn, out=drawn).astype(np.float64)
    if spec.distribution == "gamma":
        # A shape k and a scale 1/k have mean 1 and variance 1/k.
        drawn = generator.standard_gamma(1 / (sigma * sigma), shape, np.float32)
        return (drawn * np.float32(sigma * sigma)).astype(np.float64)
    # A uniform factor between 1 - h and 1 + h has variance h^2 / 3.
    drawn = generator.random(shape, np.float32)
    return ((drawn * 2 - 1) * np.float32(sigma * sqrt(3)) + 1).astype(np.float64)
