"""Every pipeline schedule with every sharding: each rank by itself takes the time of its representative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.engine import play
from simulator.program import Lowered, lower, unfold
from simulator.program.pricing.templates import LANES
from simulator.program.schedules.schedule import SCHEDULES
from simulator.scenario import scenario_from_mapping
from support.laws import assert_same_times, play_on_both

STAGES, LAYERS = 4, 8
SHARDINGS = ("none", "optimizer", "gradients", "parameters")
HOLDS_TWICE = ("gradients.all_reduce", "gradients.reduce_scatter", "parameters.all_gather")


def lowered(schedule: str, sharding: str, *, experts: bool = False, **parallelism: Any) -> Lowered:
    """A small model on 16 GPUs in four stages, twice as many micro-batches as stages."""
    mixture = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
    return lower(
        scenario_from_mapping(
            {
                "name": "small",
                "cluster": {"system": "dgx-h100", "nodes": 2},
                "model": {
                    "kind": "transformer",
                    "name": "small",
                    "num_hidden_layers": LAYERS,
                    "hidden_size": 512,
                    "intermediate_size": 1024,
                    "num_attention_heads": 8,
                    "num_key_value_heads": 8,
                    "head_dim": 64,
                    "vocab_size": 2048,
                    "max_position_embeddings": 256,
                    **({"mixture": mixture} if experts else {}),
                },
                "training": {
                    "sequence_length": 256,
                    "micro_batch_size": 1,
                    "global_batch_size": 4 * 2 * STAGES,
                },
                "parallelism": {
                    "pipeline_parallel": STAGES,
                    "pipeline_schedule": schedule,
                    "virtual_pipeline": 2 if schedule == "interleaved_1f1b" else 1,
                    "data_parallel_sharding": sharding,
                    **({"expert_parallel": 2} if experts else {}),
                    **parallelism,
                },
            }
        )
    )


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_each_rank_takes_the_time_of_its_representative(schedule: str, sharding: str) -> None:
    group = {} if sharding == "none" else {"sharding_group_size": 2}
    for plan in ({}, {"experts": True}, group):
        folded = lowered(schedule, sharding, **plan)
        for every in (unfold(folded, "rank"), unfold(folded, "replica")):
            assert_same_times(folded, every)


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_both_players_agree(schedule: str, sharding: str) -> None:
    play_on_both(lowered(schedule, sharding).program)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_ends_that_hold_the_same_meet(sharding: str) -> None:
    """With DualPipe, stages p and P - 1 - p hold the same parts: their ranks wait in the same joins."""
    every = unfold(lowered("dualpipe", sharding))
    program = every.lowered.program
    names = [program.classes.labels[c].name for c in program.cls]
    found: dict[int, set[int]] = {}
    for activity in np.flatnonzero(every.origin >= 0):
        if names[activity].endswith(HOLDS_TWICE):
            begin, end = program.dep_ptr[activity], program.dep_ptr[activity + 1]
            joins = [int(a) for a in program.dep[begin:end] if every.origin[a] < 0]
            assert len(joins) == 1
            stage = int(program.lane[activity]) // len(LANES) // every.copies
            found.setdefault(joins[0], set()).add(stage)
    assert found
    assert {frozenset(stages) for stages in found.values()} == {frozenset({0, 3}), frozenset({1, 2})}


def test_a_rank_at_one_end_holds_up_the_other() -> None:
    """Half the rates on a rank of the first stage: what the last stage reduces comes later, too."""
    every = unfold(lowered("dualpipe", "none"))
    program = every.lowered.program
    owner = f"stage0.rank{every.copies - 1}"
    slow = [n for n, who in enumerate(program.capacities.owners) if who == owner]
    assert slow
    changes = [(0, n, max(1, int(program.capacities.rates[n]) // 2)) for n in slow]
    usual, later = play(program, "compiled"), play(program, "compiled", changes)
    reduced = [
        a
        for a in np.flatnonzero(every.origin >= 0)
        if program.classes.labels[program.cls[a]].name.endswith("gradients.all_reduce")
    ]
    assert all(later.start[a] > usual.start[a] for a in reduced)
