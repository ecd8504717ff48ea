"""A teacher beside the student: what it adds, counted by hand, and what it must not."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.engine.checks import check_conservation
from simulator.errors import ScenarioError
from simulator.run import Outcome, check, run
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.specs import TransformerSpec
from simulator.workload.parameters import count_parameters
from support.inputs import catalogue_model
from support.laws import assert_obeys_laws, model_flops

LENGTH, MICRO, BATCH = 2048, 1, 32
TEACHER = {"base": "llama3.1-8b", "num_hidden_layers": 6}
STUDENT = {"base": "llama3.2-1b", "num_hidden_layers": 4}


def scenario(
    parallelism: dict[str, Any] | None = None,
    distillation: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    model: object = STUDENT,
) -> Scenario:
    return scenario_from_mapping(
        {
            "cluster": {"system": "dgx-h100", "nodes": 1},
            "model": model,
            "training": {
                "sequence_length": LENGTH,
                "micro_batch_size": MICRO,
                "global_batch_size": BATCH,
                **(training or {}),
            },
            "parallelism": parallelism or {},
            **({} if distillation is None else {"distillation": distillation}),
        }
    )


def taught(
    parallelism: dict[str, Any] | None = None, training: dict[str, Any] | None = None, **more: Any
) -> Outcome:
    return run(scenario(parallelism, {"teacher": TEACHER, **more}, training))


def teacher() -> TransformerSpec:
    return catalogue_model("llama3.1-8b", num_hidden_layers=6)


@pytest.mark.parametrize("plan", [{}, {"tensor_parallel": 4}, {"pipeline_parallel": 2}], ids=str)
def test_the_teacher_adds_one_forward_pass_of_its_own(plan: dict[str, Any]) -> None:
    spec, tokens = teacher(), LENGTH * BATCH
    width, heads = spec.hidden_size, spec.num_attention_heads * spec.head_dim
    keys = spec.num_key_value_heads * spec.head_dim
    matrices = width * (heads + 2 * keys) + heads * width + 3 * width * spec.intermediate_size
    products = 2 * tokens * (spec.num_hidden_layers * matrices + width * spec.vocab_size)
    pairs = BATCH * LENGTH * (LENGTH + 1) // 2
    scores = spec.num_hidden_layers * 4 * pairs * heads
    more = model_flops(taught(plan)) - model_flops(run(scenario(plan)))
    assert more == pytest.approx(products + scores, rel=1e-9)


@pytest.mark.parametrize(
    ("plan", "ranks"),
    [({}, 1), ({"tensor_parallel": 4}, 4), ({"data_parallel_sharding": "parameters"}, 8)],
    ids=str,
)
def test_of_the_teacher_there_are_parameters_and_nothing_else(plan: dict[str, Any], ranks: int) -> None:
    with_it, alone = taught(plan).lowered.states[0], run(scenario(plan)).lowered.states[0]
    added = {key: size for key, size in with_it.parts.items() if alone.parts.get(key) != size}
    replicated = (2 * 6 + 1) * 4096 if plan.get("tensor_parallel") else 0
    held = -(-(count_parameters(teacher()) - replicated) // ranks) + replicated
    assert added == {"teacher": 2 * held} | {
        key: size for key, size in added.items() if key == "fragmentation"
    }
    assert with_it.checkpoint_bytes == alone.checkpoint_bytes
    assert with_it.updated == alone.updated


def test_no_gradient_of_the_teacher_is_computed_sent_or_reduced() -> None:
    for plan in ({"pipeline_parallel": 2}, {"data_parallel_sharding": "parameters"}):
        with_it, alone = taught(plan).lowered, run(scenario(plan)).lowered
        assert not {
            label.name
            for label in with_it.program.classes.labels
            if label.name.startswith("teacher.") and label.phase not in ("forward",)
        } - {"teacher.comparison.gradient"}
        sizes = [
            sorted(
                each.program.classes.demand_amount[i]
                for i, label in enumerate(each.program.classes.labels)
                if label.name == "send.backward"
                for i in range(each.program.classes.demand_ptr[i], each.program.classes.demand_ptr[i + 1])
            )
            for each in (with_it, alone)
        ]
        assert sizes[0] == sizes[1]


PLANS: list[dict[str, Any]] = [
    {"pipeline_parallel": 2, "pipeline_schedule": name}
    for name in ("gpipe", "1f1b", "zb-1p", "zb-v", "dualpipe", "dualpipe-v")
] + [
    {"pipeline_parallel": 2, "virtual_pipeline": 2},
    {"tensor_parallel": 4, "sequence_parallel": True, "context_parallel": 2},
    {"data_parallel_sharding": "parameters", "gather_prefetch": 3},
    {"data_parallel_sharding": "gradients"},
]


@pytest.mark.parametrize("top_k", [None, 64])
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_any_split_conserves_and_both_players_agree(plan: dict[str, Any], top_k: int | None) -> None:
    assert_obeys_laws(taught(plan, {"recompute": "full" if top_k else "none"}, top_k=top_k))


@pytest.mark.parametrize("own", [None, "none", "parameters"])
@pytest.mark.parametrize("students", ["optimizer", "parameters"])
def test_a_teacher_is_shared_out_as_it_is_said(own: str | None, students: str) -> None:
    plan = {"data_parallel_sharding": students}
    outcome = taught(plan, {"parameter_precision": "fp32"}, teacher_sharding=own)
    check_conservation(outcome.lowered.program, outcome.record)
    count, shared = count_parameters(teacher()), (own or students) == "parameters"
    held = outcome.lowered.states[0].parts["teacher"]
    assert held == 2 * (-(-count // 8) if shared else count)
    classes = outcome.lowered.program.classes
    gathered = [
        int(classes.pool_take[row])
        for number, label in enumerate(classes.labels)
        for row in range(classes.pool_ptr[number], classes.pool_ptr[number + 1])
        if label.name == "parameters.all_gather" and label.phase == "forward"
    ]
    layer = 2 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336 + 2 * 4096)
    assert (layer in gathered) == shared


def test_few_logits_take_less_memory_than_all_of_them() -> None:
    whole, few = taught(training={"micro_batch_size": 4}), taught(training={"micro_batch_size": 4}, top_k=64)
    logits = 4 * LENGTH * 128256 * 2
    chosen = 4 * LENGTH * 64 * (2 + 8)
    saved = whole.result.peak_memory_bytes - few.result.peak_memory_bytes
    assert saved == logits - chosen


@pytest.mark.parametrize(
    ("change", "plan", "said"),
    [
        ({"teacher": "gpt2-xl-1.5b"}, {}, "logits over two vocabularies"),
        ({"teacher": "t5-3b"}, {}, "of family: encoder-decoder"),
        ({"teacher": "llama3.1-9b"}, {}, "is not in the catalogue of models"),
        ({}, {}, 'missing key "teacher"'),
        ({"teacher": TEACHER, "top_k": 128256}, {}, "without it, all are compared"),
        ({"teacher": TEACHER, "temperature": 2}, {}, "unknown key"),
        (
            {"teacher": {"name": "x", "layers": [{"type": "activation", "features": 3}]}},
            {},
            "give a transformer",
        ),
        (
            {"teacher": {**TEACHER, "num_attention_heads": 36, "num_key_value_heads": 4}},
            {"tensor_parallel": 8},
            "8 does not divide num_attention_heads: 36",
        ),
        (
            {"teacher": TEACHER},
            {"data_parallel_sharding": "parameters", "reshard_after_forward": False},
            "keep the teacher's parameters",
        ),
        (
            {"teacher": {**TEACHER, "num_hidden_layers": 1}},
            {"pipeline_parallel": 4},
            "too many for num_hidden",
        ),
    ],
)
def test_a_teacher_that_does_not_fit_the_student_is_refused(
    change: dict[str, Any], plan: dict[str, Any], said: str
) -> None:
    with pytest.raises(ScenarioError) as refused:
        check(scenario(plan, change))
    assert said in str(refused.value)


def test_a_model_given_layer_by_layer_has_no_teacher() -> None:
    layers = {"name": "mlp", "layers": [{"type": "linear", "in_features": 8, "out_features": 8}]}
    with pytest.raises(ScenarioError, match="its outputs are no tokens"):
        scenario({}, {"teacher": TEACHER}, model=layers)
