"""Experts in some of the layers, of one stack or of two: parameters, arithmetic and groups by hand."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import ScenarioError
from simulator.run import Outcome, run
from simulator.scenario import scenario_from_mapping
from simulator.workload.parameters import active_parameters, count_parameters
from support.laws import assert_folds, play_on_both

WIDTH, INNER, EXPERT, EXPERTS, VOCABULARY, SOURCE, TARGET = 512, 2048, 1024, 8, 8000, 512, 128
T5: dict[str, Any] = {
    "name": "switch",
    "family": "encoder-decoder",
    "num_encoder_layers": 4,
    "num_decoder_layers": 6,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": 8,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "norm": "rmsnorm",
    "position_embedding": "relative",
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": True,
}
MIXTURE = {"num_experts": EXPERTS, "num_experts_per_tok": 1, "moe_intermediate_size": EXPERT}


def outcome(
    mixture: dict[str, Any], parallelism: dict[str, Any] | None = None, model: dict[str, Any] = T5
) -> Outcome:
    both = {"decoder_sequence_length": TARGET} if "num_encoder_layers" in model else {}
    return run(
        scenario_from_mapping(
            {
                "name": "sparse",
                "cluster": {"system": "dgx-h100", "nodes": 1},
                "model": {**model, "mixture": MIXTURE | mixture},
                "training": {
                    "sequence_length": SOURCE,
                    "micro_batch_size": 1,
                    "global_batch_size": 16,
                    "dropout": False,
                    **both,
                },
                "parallelism": parallelism or {},
            }
        )
    )


@pytest.mark.parametrize(
    ("steps", "encoder", "decoder"),
    [
        ({}, 4, 6),
        ({"decoder_sparse_step": 2}, 2, 3),
        ({"decoder_sparse_step": 3}, 1, 2),
        ({"decoder_sparse_step": 2, "encoder_sparse_step": 4}, 1, 3),
        ({"decoder_sparse_step": 2, "first_k_dense_replace": 2}, 1, 2),
    ],
)
def test_every_so_many_th_layer_has_experts(steps: dict[str, int], encoder: int, decoder: int) -> None:
    """Parameters and arithmetic of the MLPs: an expert's for each token and its router's, or a dense one."""
    found = outcome(steps)
    model = found.scenario.model
    attention, mlp, routed = 4 * WIDTH**2, 2 * WIDTH * INNER, 2 * WIDTH * EXPERT
    sparse, layers = encoder + decoder, 10
    shared = VOCABULARY * WIDTH + 2 * 32 * 8 + 2 * WIDTH + (2 * layers + 6) * WIDTH
    attentions = (layers + 6) * attention
    router = sparse * WIDTH * EXPERTS
    whole = shared + attentions + (layers - sparse) * mlp + router + sparse * EXPERTS * routed
    assert count_parameters(model) == whole
    assert active_parameters(model) == whole - sparse * (EXPERTS - 1) * routed
    assert found.lowered.states[0].parts["parameters"] == 2 * whole
    matrices = encoder * SOURCE * (routed + WIDTH * EXPERTS) + (4 - encoder) * SOURCE * mlp
    matrices += decoder * TARGET * (routed + WIDTH * EXPERTS) + (6 - decoder) * TARGET * mlp
    matrices += (
        4 * SOURCE * attention + 6 * TARGET * (attention + attention // 2) + 6 * SOURCE * attention // 2
    )
    matrices += TARGET * WIDTH * VOCABULARY
    pairs = 4 * SOURCE**2 + 6 * (TARGET * (TARGET + 1) // 2 + TARGET * SOURCE)
    flops = 2 * (6 * matrices + 12 * pairs * WIDTH)  # two micro-batches a GPU
    program, facts = found.lowered.program, found.lowered.facts
    assert float(facts.model_flops[program.cls].sum()) == pytest.approx(flops, rel=1e-6)


@pytest.mark.parametrize(
    "plan",
    [
        {"expert_parallel": 8},
        {"expert_parallel": 4, "tensor_parallel": 2, "sequence_parallel": True},
        {"expert_parallel": 2, "pipeline_parallel": 2, "encoder_pipeline_parallel": 1},
        {"expert_parallel": 4, "context_parallel": 2, "data_parallel_sharding": "parameters"},
    ],
    ids=str,
)
def test_experts_of_both_stacks_are_spread(plan: dict[str, Any]) -> None:
    found = outcome({"decoder_sparse_step": 2}, plan).lowered
    held = found.plan.axes.expert_parallel * found.plan.axes.expert_tensor_parallel
    assert sum(state.expert for state in found.states) == 5 * EXPERTS * 2 * WIDTH * EXPERT // held
    play_on_both(found.program)
    assert_folds(found)


DECODER = {
    "name": "decoder",
    "num_hidden_layers": 4,
    **{key: T5[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")},
    "max_position_embeddings": 512,
}


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (
            {"decoder_sparse_step": 5},
            "no layer of 4 has experts: first_k_dense_replace 0, decoder_sparse_step 5",
        ),
        ({"first_k_dense_replace": 4}, "no layer of 4 has experts"),
        ({"encoder_sparse_step": 2}, "encoder_sparse_step is for a model of family: encoder-decoder"),
    ],
)
def test_steps_that_leave_none_or_nothing_are_refused(mixture: dict[str, int], message: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        outcome(mixture, model=DECODER)
    assert message in str(refused.value)
