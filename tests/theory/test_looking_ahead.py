"""Models that predict tokens further on: what a module adds, and where."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import simulate
from simulator.errors import ScenarioError
from simulator.program.drafting.model import lay_out_model
from simulator.program.planning.outline import Outline
from simulator.program.planning.plan import plan_of
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.workload import Block, Kernel
from simulator.workload.parameters import count_parameters

WIDTH, INNER, VOCABULARY, TOKENS, LAYERS = 512, 1024, 4096, 256, 4


def scenario(modules: int, *, experts: bool = False, plan: dict[str, Any] | None = None) -> Scenario:
    mixture = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
    return scenario_from_mapping(
        {
            "cluster": {"system": "dgx-h100"},
            "model": {
                "kind": "transformer",
                "name": "ahead",
                "num_hidden_layers": LAYERS,
                "hidden_size": WIDTH,
                "intermediate_size": INNER,
                "num_attention_heads": 8,
                "vocab_size": VOCABULARY,
                "max_position_embeddings": TOKENS,
                "position_embedding": "rotary",
                "gated_mlp": True,
                "norm": "rmsnorm",
                "num_nextn_predict_layers": modules,
                **({"mixture": mixture} if experts else {}),
            },
            "training": {"sequence_length": TOKENS, "micro_batch_size": 1, "global_batch_size": 16},
            "parallelism": {"data_parallel": 8} if plan is None else plan,
        }
    )


def blocks(given: Scenario) -> list[tuple[Block, ...]]:
    """The blocks of each stage."""
    outline = Outline.of(given)
    _, layout = lay_out_model(outline, plan_of(outline))
    return [tuple(block for part in stage for block in part) for stage in layout.blocks]


@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("modules", [0, 1, 2])
def test_blocks_hold_the_parameters_that_the_shape_has(modules: int, experts: bool) -> None:
    given = scenario(modules, experts=experts)
    held = sum(block.parameters for block in blocks(given)[0])
    assert held == count_parameters(given.model)
    added = held - count_parameters(scenario(0, experts=experts).model)
    attention, norm = 4 * WIDTH * WIDTH, WIDTH
    mlp = 8 * 3 * WIDTH * 256 + 8 * WIDTH if experts else 3 * WIDTH * INNER
    assert added == modules * (attention + mlp + 2 * norm + 2 * WIDTH * WIDTH + 3 * norm)


def test_a_module_computes_a_layer_a_projection_and_the_head_once_more() -> None:
    def arithmetic(found: list[Block], kind: str) -> int:
        nodes = [node.op for block in found for node in (*block.forward, *block.backward)]
        return sum(op.flops for op in nodes if isinstance(op, Kernel) and op.kind == kind)

    plain, ahead = (list(blocks(scenario(modules))[0]) for modules in (0, 1))
    (layer,) = set(ahead[1:5])
    more = arithmetic(ahead, "matmul") - arithmetic(plain, "matmul")
    projection, head = (6 * TOKENS * WIDTH * columns for columns in (2 * WIDTH, VOCABULARY))
    assert more == arithmetic([layer], "matmul") + projection + head
    assert [block.name for block in ahead[5:]] == ["head", "embedding", "ahead", "layer", "head"]


def test_what_a_module_keeps_is_freed() -> None:
    for block in blocks(scenario(1))[0]:
        assert block.kept_bytes == sum(node.freed_bytes for node in block.backward)


def test_the_last_stage_has_a_copy_of_the_embedding() -> None:
    """Its gradients are summed with the first stage's; the head is the last stage's own."""
    plan = {"data_parallel": 4, "pipeline_parallel": 2}
    first, last = blocks(scenario(1, plan=plan))
    table = VOCABULARY * WIDTH
    assert [sum(b.parameters for b in stage if b.name == "embedding") for stage in (first, last)] == [
        table
    ] * 2
    outline = Outline.of(scenario(1, plan=plan))
    _, layout = lay_out_model(outline, plan_of(outline))
    assert [(tie.parameters, tie.stages) for tie in layout.ties] == [(table, frozenset({0, 1}))]


@pytest.mark.parametrize("sharding", ["none", "optimizer", "gradients", "parameters"])
def test_steps_with_modules_take_longer_under_every_sharding(sharding: str) -> None:
    plan = {"data_parallel": 8, "data_parallel_sharding": sharding}
    plain, ahead = (simulate(scenario(modules, plan=plan)) for modules in (0, 1))
    assert ahead.step_time_s > plain.step_time_s
    assert ahead.peak_memory_bytes > plain.peak_memory_bytes


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"data_parallel": 4, "tensor_parallel": 2}, "tensor_parallel"),
        ({"data_parallel": 4, "context_parallel": 2}, "context_parallel"),
    ],
)
def test_what_is_not_modelled_beside_modules_is_refused(plan: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=f"not modelled with parallelism.{said}"):
        simulate(scenario(1, plan=plan))
