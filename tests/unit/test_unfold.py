"""Unfolded Programs: every rank by itself takes exactly the time that its representative takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulator.engine import Program, play
from simulator.program import lower, unfold
from simulator.program.unfolding.unfold import By, replica_groups
from simulator.run import run
from simulator.scenario import Scenario, load_scenario
from support.inputs import SHIPPED, shipped
from support.laws import assert_folds, assert_same_times

MOST_GPUS = 256
LARGEST_FOR_THE_REFERENCE_PLAYER = 30_000


def small(path: Path, **more: str) -> Scenario:
    """The scenario on at most 256 GPUs, with few micro-batches."""
    scenario = load_scenario(path)
    parallelism = scenario.parallelism
    stages, tensor = parallelism.pipeline_parallel, parallelism.tensor_parallel * parallelism.context_parallel
    if tensor * stages > MOST_GPUS:
        pytest.skip("one replica is too large to be unfolded here")
    group = scenario.cluster.node_groups[0]
    whole = max(1, tensor * stages // group.gpus_per_node)
    nodes = min(group.nodes, MOST_GPUS // group.gpus_per_node // whole * whole)
    if nodes >= 2 * whole:
        nodes = 2 * whole
    replicas = max(1, nodes * group.gpus_per_node // (tensor * stages))
    few = 2 * stages if (parallelism.pipeline_schedule or "").startswith("dualpipe") else max(2, stages)
    batch = scenario.training.micro_batch_size * replicas * few
    overrides = {
        "cluster.nodes": str(nodes),
        "parallelism.data_parallel": str(replicas),
        "training.global_batch_size": str(batch),
    }
    if parallelism.expert_parallel > 1:
        ranks = replicas * parallelism.context_parallel
        overrides["parallelism.expert_parallel"] = str(min(ranks, parallelism.expert_parallel))
    return load_scenario(path, overrides | more)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_rank_takes_the_time_of_its_representative(path: Path) -> None:
    folded = lower(small(path))
    assert folded.plan.num_gpus <= MOST_GPUS
    assert_folds(folded)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_on_the_reference_player_too(path: Path) -> None:
    folded = lower(small(path))
    copies: dict[By, int] = {"rank": folded.plan.num_gpus_per_stage, "replica": folded.plan.data_parallel}
    fitting = [
        by for by in copies if folded.program.num_activities * copies[by] <= LARGEST_FOR_THE_REFERENCE_PLAYER
    ]
    if not fitting:
        pytest.skip("too large for the reference player")
    assert_same_times(folded, unfold(folded, fitting[0]), "reference")


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster.fabric.oversubscription": "4"},
        {"parallelism.overlap_gradient_reduction": "false"},
        {"parallelism.pipeline_parallel": "2", "cluster.fabric.oversubscription": "3"},
        {"parallelism.data_parallel_sharding": "parameters"},
        {"checkpoint": "{interval: 10}"},
    ],
)
def test_what_ranks_share_is_contended_alike(changes: dict[str, str]) -> None:
    base = {"cluster.nodes": "4", "training.global_batch_size": "32"}
    folded = lower(load_scenario(shipped("quickstart"), base | changes))
    assert_folds(folded)


def test_results_do_not_depend_on_the_fold() -> None:
    path, changes = shipped("quickstart"), {"parallelism.pipeline_parallel": "2"}
    folded = run(load_scenario(path, changes)).result
    whole = run(load_scenario(path, changes | {"simulation.fold": "off"})).result
    assert whole.num_activities > 4 * folded.num_activities
    for name in ("step_time_s", "breakdown", "mfu", "hfu", "memory_by_stage", "memory_by_part", "fits"):
        assert getattr(whole, name) == pytest.approx(getattr(folded, name), rel=1e-12), name
    assert whole.utilization == pytest.approx(folded.utilization, rel=1e-9)


def groups_of_waiting(program: Program, origin: np.ndarray, activity: int) -> set[frozenset[int]]:
    """Sets of copies of a folded activity that wait for the same join."""
    copies = np.flatnonzero(origin == activity)
    by_join: dict[tuple[int, ...], set[int]] = {}
    for number, copy in enumerate(copies):
        waits = tuple(program.dep[program.dep_ptr[copy] : program.dep_ptr[copy + 1]].tolist())
        by_join.setdefault(waits, set()).add(number)
    return {frozenset(members) for members in by_join.values()}


def test_collectives_join_the_ranks_along_their_axis() -> None:
    """Ranks 0 1, 2 3, 4 5, 6 7 split matrices; 0 2 4 6 and 1 3 5 7 hold the same."""
    folded = lower(load_scenario(shipped("quickstart"), {"parallelism.overlap_gradient_reduction": "false"}))
    every = unfold(folded)
    found = {}
    for activity in range(folded.program.num_activities):
        axis = folded.facts.axis[folded.program.cls[activity]]
        if axis and axis not in found:
            found[axis] = groups_of_waiting(every.lowered.program, every.origin, activity)
    assert found["tensor"] == {frozenset({n, n + 1}) for n in (0, 2, 4, 6)}
    wide = next(found[axis] for axis in ("data", "shard") if axis in found)
    assert wide == {frozenset({0, 2, 4, 6}), frozenset({1, 3, 5, 7})}


def test_a_slow_rank_holds_up_whoever_meets_it() -> None:
    """With half the rates on one rank all end later; without joins, only that rank does."""
    folded = lower(
        load_scenario(
            shipped("mlp_adam"),
            {"cluster.nodes": "1", "cluster.gpus_per_node": "4"} | {"training.global_batch_size": "256"},
        )
    )
    for joins in (True, False):
        every = unfold(folded, joins=joins)
        program = every.lowered.program
        slow = [n for n, owner in enumerate(program.capacities.owners) if owner.endswith("rank3")]
        record = play(program, "compiled")
        later = play(
            program, "compiled", [(0, n, max(1, int(program.capacities.rates[n]) // 2)) for n in slow]
        )
        held_up = {int(every.copy[a]) for a in every.lowered.step_ends[-1] if later.end[a] > record.end[a]}
        assert held_up == ({0, 1, 2, 3} if joins else {3})


def test_replicas_meet_where_any_of_their_ranks_do() -> None:
    plan = lower(load_scenario(shipped("quickstart"))).plan
    assert replica_groups(plan, "tensor") is None
    groups = replica_groups(plan, "data")
    assert groups is not None
    assert groups.tolist() == [0, 0, 0, 0]
