"""Modules that are computed again: bytes saved and time spent against formulas, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.advise import planned_scenario, remedies
from simulator.advise.bounds import bounds
from simulator.advise.remedies import changed
from simulator.errors import PlanError, ScenarioError
from simulator.run import Outcome, run
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.specs.calibration import Calibration

LAYERS, TOKENS, WIDTH, INNER, HEADS = 4, 1024, 2048, 8192, 16
DENSE = {
    "name": "dense",
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "vocab_size": 1000,
    "max_position_embeddings": TOKENS,
    "norm": "rmsnorm",
    "position_embedding": "rotary",
    "hidden_act": "silu",
    "gated_mlp": True,
}
EXPERTS, VISITED, NARROW = 8, 2, 1024
RANKS, NOPE, ROPE, VALUE = (512, 256), 64, 32, 64
LATENT = DENSE | {
    "name": "latent",
    "mixture": {
        "num_experts": EXPERTS,
        "num_experts_per_tok": VISITED,
        "moe_intermediate_size": NARROW,
        "num_shared_experts": 1,
    },
    "latent_attention": {
        "q_lora_rank": RANKS[0],
        "kv_lora_rank": RANKS[1],
        "qk_nope_head_dim": NOPE,
        "qk_rope_head_dim": ROPE,
        "v_head_dim": VALUE,
    },
}
STREAM, SLOTS = TOKENS * WIDTH, TOKENS * VISITED
UP_PROJECTED = HEADS * (2 * (NOPE + ROPE) + VALUE) + sum(RANKS)
SAVED = [
    # Elements that a layer no longer keeps; in bf16 two bytes each, in fp8 one where a matrix reads them.
    (DENSE, "bf16", "core_attention", 0),
    (DENSE, "bf16", "layernorm", 2 * (2 * STREAM)),
    (DENSE, "fp8", "layernorm", 2 * STREAM),
    (DENSE, "bf16", "mlp", 2 * (STREAM + TOKENS * 3 * INNER)),
    (DENSE, "fp8", "mlp", STREAM + TOKENS * (2 * 2 * INNER + INNER)),
    (LATENT, "bf16", "layernorm", 2 * (2 * STREAM)),
    (LATENT, "fp8", "layernorm", STREAM + 2 * STREAM),
    (LATENT, "bf16", "mla_up_projection", 2 * TOKENS * UP_PROJECTED),
    (LATENT, "bf16", "moe_activation", 2 * SLOTS * NARROW),
    (LATENT, "fp8", "moe_activation", SLOTS * NARROW),
    (LATENT, "bf16", "shared_experts", 2 * TOKENS * 3 * NARROW),
    (LATENT, "bf16", "moe", 4 * TOKENS * EXPERTS + 2 * (SLOTS * (WIDTH + 3 * NARROW) + TOKENS * 3 * NARROW)),
]
"""Model, precision, module and bytes of a layer that it saves.

Source: Korthikanti et al., arXiv:2205.05198, section 4, operator by operator.
"""


def scenario(
    model: dict[str, Any], modules: list[str] | None, training: dict[str, Any] | None = None, **plan: Any
) -> Scenario:
    chosen = {} if modules is None else {"recompute": "selective", "recompute_modules": modules}
    return scenario_from_mapping(
        {
            "name": "modules",
            "cluster": {"system": "dgx-h100", "nodes": 1, "gpus_per_node": 1} | plan.pop("cluster", {}),
            "model": model,
            "training": {
                "sequence_length": TOKENS,
                "micro_batch_size": 1,
                "global_batch_size": 8,
                **chosen,
                **(training or {}),
            },
            "parallelism": plan,
            "software": {"base": "megatron-core", "cuda_graphs": True},
        }
    )


def seconds(outcome: Outcome, phase: str) -> dict[str, int]:
    """Name -> time of the activities of a phase, in the whole simulation [ps]."""
    program, record = outcome.lowered.program, outcome.record
    labels = program.classes.labels
    found: dict[str, int] = {}
    for cls, time in zip(program.cls.tolist(), (record.end - record.start).tolist(), strict=True):
        if labels[cls].phase == phase:
            found[labels[cls].name] = found.get(labels[cls].name, 0) + time
    return found


def kept(outcome: Outcome) -> int:
    """What the forward pass of a micro-batch leaves in memory [B]."""
    program = outcome.lowered.program
    classes, micro_batches = program.classes, 8 * len(outcome.lowered.step_ends)
    forward = np.array([label.phase == "forward" for label in classes.labels])
    moved = np.zeros(len(classes.labels), np.int64)
    owner = np.repeat(np.arange(len(moved)), np.diff(classes.pool_ptr))
    np.add.at(moved, owner, classes.pool_take - classes.pool_give)
    left = int(moved[program.cls][forward[program.cls]].sum())
    assert left % micro_batches == 0
    return left // micro_batches


@pytest.mark.parametrize(("model", "precision", "module", "saved"), SAVED, ids=str)
def test_a_module_saves_what_it_keeps_and_costs_its_forward_pass(
    model: dict[str, Any], precision: str, module: str, saved: int
) -> None:
    """On one GPU nothing hides it: the step grows by what the module's operators take forward."""
    training = {"precision": precision}
    before = run(scenario(model, None, training))
    after = run(scenario(model, [module], training))
    assert kept(before) - kept(after) == LAYERS * saved
    again, forward = seconds(after, "recompute"), seconds(before, "forward")
    assert again and not seconds(before, "recompute")
    for name, time in again.items():
        # The activation of experts that are shared has the same name.
        part = name == "mlp.activation" and module in ("moe_activation", "shared_experts")
        assert time < forward[name] if part else time == pytest.approx(forward[name], rel=1e-6)
    steps = len(before.lowered.step_ends)
    grown = (after.result.step_time_s - before.result.step_time_s) * 1e12
    assert grown == pytest.approx(sum(again.values()) / steps, rel=1e-3)
    assert after.result.mfu * after.result.step_time_s == pytest.approx(
        before.result.mfu * before.result.step_time_s
    )


def test_split_sequences_exchange_again_what_their_core_needs() -> None:
    """Ulysses: both exchanges and the kernel between them; a ring sends keys and values round again."""
    for method, expected in (
        ("all_to_all", {"attention.heads.all_to_all", "attention.core", "attention.sequence.all_to_all"}),
        ("ring", {"attention.ring.send", "attention.core"}),
        ("all_gather", {"attention.keys.all_gather", "attention.core"}),
    ):
        plan = {"cluster": {"gpus_per_node": 2}, "context_parallel": 2, "context_parallel_method": method}
        found = run(scenario(DENSE, ["core_attention"], **plan))
        assert set(seconds(found, "recompute")) == expected


def test_the_core_of_attention_is_what_selective_means() -> None:
    plain = run(scenario(DENSE, None, {"recompute": "selective", "attention": "unfused"})).result
    named = run(scenario(DENSE, ["core_attention"], {"attention": "unfused"})).result
    assert (plain.step_time_s, plain.memory_by_part) == (named.step_time_s, named.memory_by_part)


def test_a_module_comes_back_just_before_it_is_needed() -> None:
    """What the MLP keeps is back and gone before attention has its own back: never both at once."""
    modules = {"one": ["core_attention", "mlp"], "other": ["mlp"], "core": ["core_attention"]}
    training = {"attention": "unfused"}
    peaks = {
        name: run(scenario(DENSE, chosen, training)).result.peak_memory_bytes
        for name, chosen in modules.items()
    }
    assert peaks["one"] < min(peaks["other"], peaks["core"])
    found = run(scenario(DENSE, modules["one"], training))
    program = found.lowered.program
    names = [program.classes.labels[cls].name for cls in program.cls.tolist()]
    phases = [program.classes.labels[cls].phase for cls in program.cls.tolist()]
    order = [name for name, phase in zip(names, phases, strict=True) if phase in ("backward", "recompute")]
    assert order.index("mlp.down") < order.index("mlp.down.input_gradient")
    assert order.index("mlp.norm.gradient") < order.index("attention.scores")
    assert order.index("attention.output.input_gradient") < order.index("attention.scores")


@pytest.mark.parametrize("schedule", ["1f1b", "zb-1p"])
def test_bounds_stay_below_the_simulation(schedule: str) -> None:
    plan = {"cluster": {"gpus_per_node": 2}, "pipeline_parallel": 2, "pipeline_schedule": schedule}
    made = scenario(LATENT, ["layernorm", "mla_up_projection", "moe_activation"], **plan)
    found, result = bounds(made, Calibration.load()), run(made).result
    assert found.memory_bytes <= result.peak_memory_bytes
    assert found.step_s <= result.step_time_s


def test_plans_and_remedies_leave_modules_to_selective() -> None:
    """What recomputes whole layers, or nothing, does so without the modules that a scenario names."""
    made = scenario(DENSE, ["mlp"])
    meant = {"none": None, "selective": ("mlp",), "full": None}
    for kind, modules in meant.items():
        training = planned_scenario(made, {"training.recompute": kind}).training
        assert (training.recompute, training.recompute_modules) == (kind, modules)
    short = scenario(DENSE, ["mlp"], {"micro_batch_size": 448, "global_batch_size": 896})
    outcome = run(short)
    assert not outcome.result.fits
    found = [each.change for each in remedies(outcome)]
    assert {"training.recompute": "full", "training.recompute_modules": None} in found
    assert all(run(changed(short, change)).result.fits for change in found)


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        (DENSE, {"recompute_modules": ["mlp"]}, 'needs recompute: selective, but it is "none"'),
        (DENSE, {"recompute": "full", "recompute_modules": ["mlp"]}, "needs recompute: selective"),
        (DENSE, {"recompute": "selective", "recompute_modules": []}, "names none"),
        (DENSE, {"recompute": "selective", "recompute_modules": ["mlp", "mlp"]}, "mlp stands there twice"),
        (DENSE, {"recompute": "selective", "recompute_modules": ["moe_act"]}, 'mean "moe_activation"?'),
        (DENSE, {"recompute": "selective", "recompute_modules": ["moe"]}, 'has "moe"; there are core_att'),
        (LATENT, {"recompute": "selective", "recompute_modules": ["mlp"]}, 'has "mlp"; there are core_att'),
        (
            LATENT,
            {"recompute": "selective", "recompute_modules": ["shared_experts", "moe"]},
            "shared_experts is part of moe",
        ),
    ],
    ids=str,
)
def test_modules_that_mean_nothing_are_refused(
    model: dict[str, Any], training: dict[str, Any], message: str
) -> None:
    with pytest.raises((PlanError, ScenarioError)) as refused:
        run(scenario(model, None, training))
    assert message in str(refused.value)
