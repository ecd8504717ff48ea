"""Domains that a token visits, against drawing experts; traffic of tokens that travel to each domain once."""

import random
import time

import pytest

from simulator import load_scenario, simulate
from simulator.cost import RankGroup, collective_demand
from simulator.cost.routing import parts_visited
from simulator.program.planning.axes import Axes
from simulator.specs import AcceleratorSpec, Calibration, LinkSpec
from simulator.workload.kernels import Routed
from support.inputs import shipped

DEEPSEEK_V3 = Routed(256, 8, 8, 4)
IDEAL = Calibration.load().with_values(
    **{
        name: 1.0 if name.endswith("_fraction") or name == "channels" else 0.0
        for name in Calibration.load().constants
    }
)


def drawn(routed: Routed, parts: int, tokens: int = 20_000) -> float:
    """The same by drawing groups and experts."""
    source = random.Random(1)
    size, seen = routed.num_experts // routed.n_group, 0
    for _ in range(tokens):
        groups = source.sample(range(routed.n_group), routed.topk_group)
        pool = [group * size + place for group in groups for place in range(size)]
        visited = source.sample(pool, routed.num_experts_per_tok)
        seen += len({expert * parts // routed.num_experts for expert in visited})
    return seen / tokens


@pytest.mark.parametrize(
    ("routed", "parts"),
    [
        (DEEPSEEK_V3, 8),
        (DEEPSEEK_V3, 2),
        (DEEPSEEK_V3, 64),
        (Routed(160, 6, 8, 3), 8),
        (Routed(128, 8), 2),
        (Routed(128, 8), 16),
        (Routed(8, 2), 8),
    ],
)
def test_parts_visited_are_those_of_drawing(routed: Routed, parts: int):
    assert parts_visited(routed, parts) == pytest.approx(drawn(routed, parts), rel=0.01)


def test_no_more_parts_than_experts_and_groups_allow():
    assert parts_visited(DEEPSEEK_V3, 1) == pytest.approx(1.0)
    assert 3.5 < parts_visited(DEEPSEEK_V3, 8) < 4.0
    assert parts_visited(Routed(256, 8), 8) > 5.0
    assert parts_visited(DEEPSEEK_V3, 256) == pytest.approx(8.0)


def group(ranks: int, local: int) -> RankGroup:
    gpu = AcceleratorSpec.model_validate(
        {
            "name": "GPU",
            "peak_flops": {"bf16": "1 PFLOP/s"},
            "vector_flops": "60 TFLOP/s",
            "memory_capacity": "80 GB",
            "memory_bandwidth": "3 TB/s",
        }
    )
    up = LinkSpec.model_validate({"name": "u", "bandwidth": "200 GB/s", "latency": "0 s"})
    out = LinkSpec.model_validate({"name": "o", "bandwidth": "50 GB/s", "latency": "0 s"})
    return RankGroup(ranks, local, gpu, up, out)


def test_a_token_crosses_the_network_once_for_each_node_that_it_visits():
    size = 8 * 10**8
    together = collective_demand("all_to_all", size, group(64, 8), IDEAL, routed=DEEPSEEK_V3)
    apart = collective_demand("all_to_all", size, group(64, 8), IDEAL)
    nodes, ranks = parts_visited(DEEPSEEK_V3, 8), parts_visited(DEEPSEEK_V3, 64)
    assert apart.amounts["scale_out"] == pytest.approx(size * 7 / 8)
    assert together.amounts["scale_out"] == pytest.approx(size / 8 * nodes * 7 / 8)
    assert together.amounts["scale_up"] == pytest.approx(size / 8 * ranks * 7 / 8)
    assert together.amounts["scale_up"] > apart.amounts["scale_up"]


@pytest.mark.parametrize(("ranks", "met"), [(2, 0.0), (4, 2 / 3), (8, 6 / 7)])
def test_what_meets_others_at_its_receiver_takes_longer(ranks: int, met: float):
    crowded = IDEAL.with_values(exchange_meetings=0.5)
    alone = collective_demand("all_to_all", 10**8, group(ranks, ranks), IDEAL)
    found = collective_demand("all_to_all", 10**8, group(ranks, ranks), crowded)
    assert found.amounts["scale_up"] == pytest.approx(alone.amounts["scale_up"] * (1 + 0.5 * met))
    ring = collective_demand("all_gather", 10**8, group(ranks, ranks), crowded)
    assert ring.amounts["scale_up"] == pytest.approx(10**8 * (ranks - 1) / ranks)


def test_a_dispatch_by_node_holds_twenty_compute_units():
    """DeepSeek-V3 sets 20 of 132 aside."""
    assert collective_demand("all_to_all", 10**9, group(64, 8), IDEAL, routed=DEEPSEEK_V3).compute_units == 20
    assert collective_demand("all_to_all", 2**20, group(64, 8), IDEAL, routed=DEEPSEEK_V3).compute_units == 2


def test_inside_one_domain_only_experts_of_one_rank_share_a_token():
    size = 10**8
    together = collective_demand("all_to_all", size, group(8, 8), IDEAL, routed=Routed(128, 8))
    apart = collective_demand("all_to_all", size, group(8, 8), IDEAL)
    assert "scale_out" not in together.amounts
    share = parts_visited(Routed(128, 8), 8) / 8
    assert together.amounts["scale_up"] == pytest.approx(share * apart.amounts["scale_up"])


def axes(tensor: int, context: int, data: int, experts: int) -> Axes:
    return Axes(
        ("tensor", "context", "data", "pipeline"),
        (tensor, context, data, 1),
        expert_parallel=experts,
        expert_tensor_parallel=tensor,
    )


@pytest.mark.parametrize(
    ("plan", "axis", "near"),
    [
        (axes(1, 1, 64, 8), "expert", 8),
        (axes(2, 1, 32, 8), "expert", 4),
        (axes(8, 1, 8, 8), "expert", 1),
        (axes(1, 4, 16, 8), "context", 4),
        (axes(4, 4, 4, 2), "context", 2),
        (axes(8, 4, 2, 2), "context", 1),
    ],
)
def test_experts_and_contexts_share_a_node_as_far_as_inner_axes_leave_room(plan: Axes, axis: str, near: int):
    assert (plan.members(axis) < 8).sum() == near


def test_a_hundred_thousand_ranks_are_priced_at_once():
    begin = time.process_time()
    for collective in ("all_reduce", "all_gather", "all_to_all"):
        collective_demand(collective, 2**30, group(100_000, 8), IDEAL)
    collective_demand("all_to_all", 2**30, group(100_000, 8), IDEAL, routed=DEEPSEEK_V3)
    assert time.process_time() - begin < 0.1


def needed(**parallelism: object) -> float:
    """FLOP of the model in one step, all GPUs together, as MFU counts them."""
    changes = {f"parallelism.{key}": value for key, value in parallelism.items()}
    result = simulate(load_scenario(shipped("mixtral_8x7b"), {"cluster.nodes": 4, **changes}))
    assert result.model_tflops_per_gpu is not None
    return result.model_tflops_per_gpu * 1e12 * result.step_time_s * result.num_gpus


def test_neither_empty_slots_nor_a_busy_expert_are_arithmetic_of_the_model():
    """6 FLOP a token and parameter that it meets, and causal attention; what capacity drops is missing."""
    tokens, layers, width, inner = 256 * 4096, 32, 4096, 14336
    attention = width * width * (2 + 2 / 4)
    experts = 3 * width * inner * 2
    met = layers * (attention + experts + width * 8) + 32000 * width
    pairs = 12 * layers * width * (4096 + 1) / 2
    expected = tokens * (6 * met + pairs)
    assert needed() == pytest.approx(expected, rel=1e-3)
    assert needed(expert_imbalance=1.4) == pytest.approx(expected, rel=1e-3)
    assert needed(expert_capacity_factor=1.5) == pytest.approx(expected, rel=1e-3)
    dropped = tokens * 6 * layers * experts / 4
    assert needed(expert_capacity_factor=0.75) == pytest.approx(expected - dropped, rel=1e-3)
