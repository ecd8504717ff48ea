"""Experts' layers with a mapping of their own on the ranks of a stage: groups, bytes, times, refusals."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from simulator import load_scenario, simulate
from simulator.errors import PlanError
from simulator.program import lower
from simulator.program.drafting.drafts import DRAFTS
from simulator.program.planning.axes import DEFAULT_ORDER, Axes
from simulator.program.planning.outline import Outline
from simulator.program.pricing.works import Meeting
from simulator.scenario import Scenario
from simulator.specs import Calibration
from support.inputs import shipped
from support.laws import assert_folds, play_on_both

MIXTRAL = shipped("mixtral_8x7b")
EXPERTS = ("expert_tensor", "expert", "expert_data")
PARTS = ("shard", "replica")


def plans(order: tuple[str, ...], copies: int = 1) -> list[Axes]:
    found = []
    for tensor, context, data, split, expert in product(
        (1, 2, 4), (1, 2), (2, 6), (1, 2, 3, 4, 8), (1, 2, 4)
    ):
        if tensor * context * data % (split * expert):
            continue
        degrees = {"tensor": tensor, "context": context, "data": data, "pipeline": 2}
        found.append(Axes(order, tuple(degrees[axis] for axis in order), expert, split, copies=copies))
    return found


@pytest.mark.parametrize("order", [*permutations(DEFAULT_ORDER)][::5])
def test_every_rank_has_one_place_in_a_grid_of_the_experts_layers(order: tuple[str, ...]):
    """Groups along two axes meet in one rank at most; all along an axis are of one size and hold rank 0's."""
    for axes in plans(order):
        ranks = np.sort(axes._ranks(("tensor", "context", "data")))
        sizes = axes.expert_tensor_parallel, axes.expert_parallel
        for group, size in zip(EXPERTS, (*sizes, len(ranks) // sizes[0] // sizes[1]), strict=True):
            numbers = axes.groups(group)
            assert set(np.bincount(numbers)) == {size}
            first = numbers[np.searchsorted(ranks, 0)]
            assert sorted(ranks[numbers == first]) == sorted(axes.members(group))
        for one, other in (EXPERTS[:2], EXPERTS[1:], EXPERTS[::2]):
            both = set(zip(axes.groups(one).tolist(), axes.groups(other).tolist(), strict=True))
            assert len(both) == len(ranks)


def test_with_tensor_innermost_ranks_are_megatrons():
    """Strides 1, etp, etp x ep, as its RankGenerator counts tp-ep-dp inside a stage."""
    for axes in plans(DEFAULT_ORDER):
        split, expert = axes.expert_tensor_parallel, axes.expert_parallel
        total = axes.num_ranks // 2
        assert axes.members("expert_tensor").tolist() == list(range(split))
        assert axes.members("expert").tolist() == list(range(0, split * expert, split))
        assert axes.members("expert_data").tolist() == list(range(0, total, split * expert))


def test_at_both_ends_of_dualpipe_the_same_experts_are_reduced_together():
    for axes in plans(DEFAULT_ORDER, copies=2):
        assert axes.meets_other_end("expert_data")
        for group in EXPERTS[:2]:
            ends = axes.groups(group), axes.groups(group, 1)
            assert not set(ends[0].tolist()) & set(ends[1].tolist())


def changed(**parallelism: object) -> dict[str, object]:
    base = {"cluster.nodes": 2, "training.global_batch_size": 32}
    plan = {"pipeline_parallel": 1, **parallelism}
    return base | {f"parallelism.{key}": value for key, value in plan.items()}


@pytest.mark.parametrize(
    ("tensor", "split", "expert"), [(4, 2, 2), (2, 4, 4), (1, 2, 8), (4, 8, 2), (2, 1, 8), (4, 4, 2)]
)
def test_gpus_hold_and_exchange_what_the_mapping_says(tensor: int, split: int, expert: int):
    plan = changed(
        tensor_parallel=tensor,
        sequence_parallel=tensor > 1,
        expert_tensor_parallel=split,
        expert_parallel=expert,
    )
    scenario = load_scenario(MIXTRAL, plan)
    lowered = lower(scenario)
    model = scenario.model
    matrices = 3 * model.hidden_size * model.mixture.moe_intermediate_size * model.mixture.num_experts
    assert lowered.plan.degree("expert_data") * split * expert == 16
    layers = sum(lowered.plan.layers_per_part)
    assert sum(s.expert for s in lowered.states) == layers * matrices // (split * expert)
    assert_folds(lowered)
    if split > 1:
        tokens = scenario.training.sequence_length * scenario.training.micro_batch_size // tensor
        slots = tokens * model.mixture.num_experts_per_tok * split
        gathered = {
            row.message_bytes
            for row in meetings(scenario)
            if row.collective == "all_gather" and row.ranks.count == split
        }
        assert slots * model.hidden_size * 2 in gathered


def meetings(scenario: Scenario) -> list[Meeting]:
    drafted = DRAFTS.get(Outline.of(scenario), Calibration.load(), scenario)
    return [work for work in drafted.classes.works if isinstance(work, Meeting)]


def test_groups_that_share_out_state_are_as_many_among_experts():
    """16 GPUs, experts over 4: four hold the same; in 2 groups of 8 replicas two share each expert out."""
    plan = {"expert_parallel": 4, "data_parallel_sharding": "gradients"}
    whole, halved = (
        lower(load_scenario(MIXTRAL, changed(**plan, **more))) for more in ({}, {"sharding_group_size": 8})
    )
    assert [whole.plan.degree(f"expert_{part}") for part in PARTS] == [4, 1]
    assert [halved.plan.degree(f"expert_{part}") for part in PARTS] == [2, 2]
    optimizer = [lowered.states[0].parts["optimizer"] for lowered in (whole, halved)]
    assert optimizer[1] == pytest.approx(2 * optimizer[0], rel=1e-6)
    with pytest.raises(
        PlanError, match=r"2 makes 8 groups of the 16 replicas, but only 4 GPUs hold the same"
    ):
        lower(load_scenario(MIXTRAL, changed(**plan, sharding_group_size=2)))


def test_both_players_agree():
    plan = changed(tensor_parallel=4, sequence_parallel=True, expert_tensor_parallel=2, expert_parallel=2)
    play_on_both(lower(load_scenario(MIXTRAL, plan)).program)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            {"expert_tensor_parallel": 3},
            "3 does not divide moe_intermediate_size: 14336 (2 and 4 do)",
        ),
        (
            {"expert_tensor_parallel": 32},
            "32 does not divide tensor_parallel 1 x context_parallel 1 x data_parallel 16 = 16 GPUs "
            "of a stage (16 does)",
        ),
        (
            {"expert_tensor_parallel": 4, "expert_parallel": 8},
            "8 does not divide tensor_parallel 1 x context_parallel 1 x data_parallel 16 = 16 GPUs "
            "of a stage / expert_tensor_parallel 4 = 4 (4 does)",
        ),
    ],
)
def test_what_does_not_come_out_even_is_refused_with_the_arithmetic(plan: dict[str, int], message: str):
    with pytest.raises(PlanError) as caught:
        lower(load_scenario(MIXTRAL, changed(**{"expert_parallel": 1} | plan)))
    assert message in str(caught.value)


def test_experts_split_less_than_the_rest_exchange_less():
    """Fine-grained experts: what tensor_parallel 4 asks for outside, one GPU an expert spares inside."""
    times = {
        split: simulate(
            load_scenario(
                MIXTRAL,
                changed(
                    tensor_parallel=4,
                    sequence_parallel=True,
                    expert_tensor_parallel=split,
                    expert_parallel=8 // split,
                ),
            )
        ).step_time_s
        for split in (1, 2, 4)
    }
    assert times[1] < times[2] < times[4]
