"""Parameters frozen by name: what is left of backward passes, gradients, state and activations."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from simulator.errors import ScenarioError
from simulator.run import Outcome, run
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.workload.kernels import Kernel, MatmulShape
from simulator.workload.names import chosen, parameter_names
from simulator.workload.parameters import count_parameters
from support.laws import assert_folds, play_on_both

LAYERS, HIDDEN, INNER, VOCABULARY, TOKENS = 4, 512, 2048, 8000, 256
DENSE: dict[str, Any] = {
    "name": "small",
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": 8,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": TOKENS,
    "norm": "rmsnorm",
    "position_embedding": "rotary",
}
EXPERTS = {
    "mixture": {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 256,
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
    }
}
LATENT = {
    "latent_attention": {
        "q_lora_rank": 128,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
    }
}
STACKS = {
    "family": "encoder-decoder",
    "num_hidden_layers": 2 * LAYERS,
    "num_encoder_layers": LAYERS,
    "num_decoder_layers": LAYERS,
    "position_embedding": "relative",
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": True,
}
MODELS: dict[str, dict[str, Any]] = {
    "dense": DENSE,
    "tied": {**DENSE, "tie_word_embeddings": True, "gated_mlp": True},
    "experts": {**DENSE, **EXPERTS},
    "latent": {**DENSE, **EXPERTS, **LATENT},
    "stacks": {**DENSE, **STACKS},
    "encoder": {**DENSE, "family": "encoder", "norm": "layernorm", "mlp_bias": True, "attention_bias": True},
}


def scenario(
    model: dict[str, Any],
    frozen: list[str],
    parallelism: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    **blocks: Any,
) -> Scenario:
    stacks = {"decoder_sequence_length": TOKENS} if "num_encoder_layers" in model else {}
    mapping = {
        "name": "frozen",
        "cluster": {"system": "dgx-h100", "nodes": 1},
        "model": model,
        "training": {
            "sequence_length": TOKENS,
            "micro_batch_size": 1,
            "global_batch_size": 16,
            "frozen": frozen,
            **stacks,
            **(training or {}),
        },
        "parallelism": parallelism or {},
        "software": "megatron-core",
    }
    return scenario_from_mapping({**mapping, **blocks})


def outcome(model: dict[str, Any], frozen: list[str], *args: Any, **blocks: Any) -> Outcome:
    return run(scenario(model, frozen, *args, **blocks))


@pytest.mark.parametrize(
    ("frozen", "trained"),
    [
        (["embedding"], LAYERS * (4 * HIDDEN**2 + 2 * HIDDEN * INNER + 2 * HIDDEN) + HIDDEN + 8000 * HIDDEN),
        (["embedding", "layers.0-2", "head"], 4 * HIDDEN**2 + 2 * HIDDEN * INNER + 2 * HIDDEN),
        (["*.attention.*", "embedding", "head"], LAYERS * (2 * HIDDEN * INNER + HIDDEN)),
        (["layers", "embedding"], HIDDEN + VOCABULARY * HIDDEN),
        (["*.mlp", "*.norm", "head", "embedding"], LAYERS * 4 * HIDDEN**2),
        (["layers.1.mlp.down", "embedding", "head", "layers.0", "layers.2-3", "*.norm"], 0),
    ],
)
def test_gradients_and_state_are_those_of_what_is_left(frozen: list[str], trained: int) -> None:
    parts = outcome(DENSE, frozen).lowered.states[0].parts
    trained = trained or 4 * HIDDEN**2 + HIDDEN * INNER
    assert (parts["gradients"], parts["optimizer"]) == (4 * trained, 12 * trained)
    whole = LAYERS * (4 * HIDDEN**2 + 2 * HIDDEN * INNER + 2 * HIDDEN) + 2 * VOCABULARY * HIDDEN + HIDDEN
    assert parts["parameters"] == 2 * whole


def gradients(found: Outcome) -> dict[str, int]:
    """FLOP of the products that make gradients, of inputs and of weights, in one micro-batch."""
    program, facts = found.lowered.program, found.lowered.facts
    sums = {"input": 0, "weight": 0}
    for cls in program.cls[program.tags["micro_batch"] == 0]:
        for kind in sums:
            if program.classes.labels[cls].name.endswith(f".{kind}_gradient"):
                sums[kind] += int(facts.model_flops[cls])
    return sums


@pytest.mark.parametrize("seed", range(12))
def test_autograd_makes_no_other_gradients(seed: int) -> None:
    """By hand: of a weight if it is trained; of a product's input if anything that stands before it is."""
    source = random.Random(seed)
    model = MODELS["dense"]
    names = parameter_names(scenario(model, []).model)
    share = source.choice((0.2, 0.5, 0.8, 0.95))
    frozen = [name for name in names if source.random() < share]
    left = [name for name in names if name not in frozen]
    if not left:
        return
    sizes = {"qkv": 3 * HIDDEN**2, "output": HIDDEN**2, "up": HIDDEN * INNER, "down": HIDDEN * INNER}
    wanted = {"input": 0, "weight": 0}
    for place, name in enumerate(names):
        size = HIDDEN * VOCABULARY if name == "head.projection" else sizes.get(name.rpartition(".")[2], 0)
        wanted["weight"] += 2 * TOKENS * size * (name in left)
        wanted["input"] += 2 * TOKENS * size * any(before in left for before in names[:place])
    found = gradients(outcome(model, frozen))
    # The embedding's gradient is no product; attention's own is labelled otherwise.
    assert found == wanted


PLANS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"pipeline_parallel": 2}, {}),
    ({"pipeline_parallel": 2, "pipeline_schedule": "zb-1p"}, {}),
    ({"data_parallel_sharding": "parameters"}, {}),
    ({"tensor_parallel": 2, "sequence_parallel": True, "data_parallel_sharding": "gradients"}, {}),
    ({"tensor_parallel": 2}, {"attention": "unfused"}),
    ({}, {"recompute": "full"}),
    ({}, {"recompute": "selective"}),
    ({}, {"recompute": "selective", "recompute_modules": ["layernorm", "core_attention"]}),
    ({}, {"precision": "fp8", "dropout": True}),
    ({"pipeline_parallel": 2}, {"offload": {"optimizer": "host"}}),
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("place", range(len(PLANS)))
def test_whatever_is_frozen_all_that_is_kept_is_freed(name: str, place: int) -> None:
    """Any names, any plan: memory comes back, folded and unfolded ranks agree, and so do the players."""
    source = random.Random(place * 100 + len(name))
    model, (plan, training) = MODELS[name], PLANS[place]
    if name in ("experts", "latent") and plan.get("tensor_parallel") and not plan.get("sequence_parallel"):
        plan = {**plan, "sequence_parallel": True}
    names = parameter_names(scenario(model, []).model)
    for share in (0.5, 0.9):
        frozen = [each for each in names if source.random() < share]
        if len(frozen) == len(names):
            frozen.pop()
        found = outcome(model, frozen, plan, training)
        play_on_both(found.lowered.program)
        for block in (b for chunks in blocks_of(found) for chunk in chunks for b in chunk):
            again = sum(node.kept_bytes for node in block.backward)
            assert block.kept_bytes + again == sum(node.freed_bytes for node in block.backward), block.name
            assert all(node.kept_bytes >= 0 and node.freed_bytes >= 0 for node in block.backward)
    assert_folds(found.lowered)


def blocks_of(found: Outcome) -> Any:
    from simulator.program.drafting.model import lay_out_model
    from simulator.program.planning.outline import Outline

    return lay_out_model(Outline.of(found.scenario), found.lowered.plan)[1].blocks


@pytest.mark.parametrize("name", MODELS)
def test_names_cover_every_parameter_once(name: str) -> None:
    """Freezing all but one, one after the other, leaves all parameters in sum."""
    model = scenario(MODELS[name], []).model
    names, total = parameter_names(model), 0
    for kept in names:
        frozen = [each for each in names if each != kept]
        total += outcome(MODELS[name], frozen).lowered.states[0].parts["gradients"] // 4
    assert total == count_parameters(model)


def test_less_that_is_trained_takes_less_time_and_memory() -> None:
    steps = [[], ["embedding"], ["embedding", "layers.0-1"], ["embedding", "layers"]]
    results = [outcome(DENSE, frozen).result for frozen in steps]
    times = [result.step_time_s for result in results]
    peaks = [max(result.memory_by_stage) for result in results]
    assert times == sorted(times, reverse=True) and len(set(times)) == len(times)
    assert peaks == sorted(peaks, reverse=True)


def test_a_decoder_on_a_frozen_encoder_hands_no_gradient_back() -> None:
    """Fine-tuning the decoder alone: the encoder has a forward pass only, its stages no backward pass."""
    frozen = ["encoder", "embedding"]
    found = outcome(MODELS["stacks"], frozen, {"pipeline_parallel": 2, "encoder_pipeline_parallel": 1})
    program = found.lowered.program
    labels = [program.classes.labels[c] for c in program.cls]
    assert not any(label.name.startswith("cross_attention.source") for label in labels)
    assert not any(label.name == "send.backward" for label in labels)
    assert found.lowered.states[0].parts["gradients"] == 0
    trained = outcome(MODELS["stacks"], ["decoder"], {"pipeline_parallel": 2, "encoder_pipeline_parallel": 1})
    labels = [trained.lowered.program.classes.labels[c] for c in trained.lowered.program.cls]
    assert any(label.name.startswith("cross_attention.source") for label in labels)


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (["layers.0-3.atention.*"], '"layers.0-3.atention.*" names no parameters of the model; nearest are '),
        (["layers.7"], "its layers are 0 to 3"),
        (["embeddings"], "nearest are embedding"),
        (["embedding", "embedding"], '"embedding" names nothing that is not frozen without it'),
        (["*"], "leaves none with parameters to train"),
        ([""], '"" names no parameters'),
        (["layers.5-2"], "names no parameters"),
        (["encoder"], "names no parameters"),
    ],
)
def test_patterns_that_name_nothing_are_refused_with_the_nearest(frozen: list[str], message: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        outcome(DENSE, frozen)
    assert message in str(refused.value)


def test_frozen_names_and_adapters_do_not_go_together() -> None:
    with pytest.raises(ScenarioError, match="does nothing beside lora_rank"):
        outcome(DENSE, ["embedding"], {}, {"lora_rank": 8})


def test_a_list_of_layers_freezes_by_number_and_kind() -> None:
    layers = [
        {"type": "linear", "in_features": 64, "out_features": 128},
        {"type": "norm", "features": 128},
        {"type": "linear", "in_features": 128, "out_features": 128},
        {"type": "linear", "in_features": 128, "out_features": 10},
    ]
    model = {"kind": "layers", "name": "list", "layers": layers}
    found = outcome(model, ["layers.2"])
    weights = [
        node.op.shape
        for block in blocks_of(found)[0][0]
        for node in block.backward
        if node.role == "weight_gradient" and isinstance(node.op, Kernel)
    ]
    assert len(weights) == 2 and all(isinstance(shape, MatmulShape) for shape in weights)
    trained = 64 * 128 + 128 + 2 * 128 + 128 * 10 + 10
    assert found.lowered.states[0].parts["gradients"] == 4 * trained
    assert chosen(("*.linear",), found.scenario.model) == {f"layers.{n}.linear" for n in (0, 2, 3)}


def test_patterns_of_many_stars_take_no_longer() -> None:
    model = scenario(DENSE, []).model
    begin = time.process_time()
    for pattern in ("*a" * 30 + "*b", "*" * 3000 + "x", "*.".join("abcdefgh") * 200, "0-99999999.*"):
        with pytest.raises(LookupError, match="names no parameters"):
            chosen((pattern,), model)
    assert time.process_time() - begin < 1.0
    assert chosen(("l*s.*.m*p*",), model) == chosen(("*.mlp.up", "layers.0-3.mlp"), model)
