"""Adapters of chosen matrices and modules: their parameters, arithmetic and memory, experts' included."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import ScenarioError
from simulator.run import Outcome, run
from simulator.scenario import scenario_from_mapping

ALL_SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def outcome(
    model: Any, training: dict[str, Any], parallelism: dict[str, Any] | None = None, nodes: int = 1
) -> Outcome:
    mapping = {
        "name": "adapters",
        "cluster": {"system": "dgx-h100", "nodes": nodes},
        "model": model,
        "training": {
            "sequence_length": 1024,
            "micro_batch_size": 1,
            "global_batch_size": 8 * nodes,
            "optimizer": "sgd",
            "lora_rank": 8,
            "master_parameters": False,
            "gradient_precision": "bf16",
            **training,
        },
        "parallelism": parallelism or {},
        "software": "megatron-core",
    }
    return run(scenario_from_mapping(mapping))


def trained(found: Outcome, *, split: int = 1) -> int:
    """Trained parameters of the model, from the gradients of one GPU."""
    return sum(state.parts["gradients"] for state in found.lowered.states) // 2 * split


@pytest.mark.parametrize(
    ("model", "rank", "targets", "parameters"),
    [
        ("llama-2-7b", 8, ["q_proj", "v_proj"], 4_194_304),
        ("llama-2-7b", 16, ALL_SEVEN, 39_976_960),
        ("llama-2-7b", 16, ["all-linear"], 39_976_960),
        ("llama-3-8b", 16, ALL_SEVEN, 41_943_040),
        ("llama-2-7b", 8, ["attention.qkv"], 32 * 8 * (4096 + 3 * 4096)),
    ],
)
def test_parameters_are_those_that_peft_prints(
    model: str, rank: int, targets: list[str], parameters: int
) -> None:
    """Published: ``print_trainable_parameters`` of Llama-2-7B and Llama-3-8B in PEFT's and others' guides."""
    found = outcome(model, {"lora_rank": rank, "lora_targets": targets})
    assert trained(found) == parameters


def mixtral(targets: list[str], rank: int) -> int:
    """Rank times rows and columns of each module: 4 of attention, the router, 3 of each of 8 experts."""
    hidden, keys, inner, experts, layers = 4096, 1024, 14336, 8, 32
    sizes = {
        "q_proj": 2 * hidden,
        "k_proj": hidden + keys,
        "v_proj": hidden + keys,
        "o_proj": 2 * hidden,
        "router": hidden + experts,
        **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), experts * (hidden + inner)),
    }
    return layers * rank * sum(sizes[name] for name in targets)


@pytest.mark.parametrize(
    "targets", [["gate_proj", "up_proj", "down_proj"], ["router", "q_proj"], ["all-linear"]]
)
@pytest.mark.parametrize("split", [1, 2])
def test_adapters_of_experts_lie_where_the_experts_do(targets: list[str], split: int) -> None:
    """Spread over 4 GPUs, each has a quarter; split, down's first and up's second matrices are halved."""
    named = [*ALL_SEVEN, "router"] if targets == ["all-linear"] else targets
    alone = outcome("mixtral-8x7b", {"lora_targets": targets})
    assert trained(alone) == mixtral(named, 8)
    spread = outcome(
        "mixtral-8x7b",
        {"lora_targets": targets},
        {"expert_parallel": 4, "expert_tensor_parallel": split},
    )
    of_experts = [name for name in named if name in ("gate_proj", "up_proj", "down_proj")]
    whole = mixtral(of_experts, 8)
    inner = 32 * 8 * 8 * 14336 * len(of_experts)
    held = whole // 4 if split == 1 else (whole - inner // 2) // 4
    assert trained(spread) == mixtral(named, 8) - whole + held
    assert spread.lowered.states[0].expert == held
    axes = {spread.lowered.facts.axis[c] for c in spread.lowered.program.cls}
    assert ("expert_data" in axes) == bool(of_experts and split == 1)


def test_experts_adapters_do_the_work_of_their_tokens() -> None:
    """Two products forward and four backward of 2 m r (k + n) FLOP for the slots of two experts a token."""
    targets = ["down_proj"]
    found = outcome("mixtral-8x7b", {"lora_targets": targets})
    facts, program = found.lowered.facts, found.lowered.program
    chosen = [".lora_" in label.name for label in program.classes.labels]
    flops = sum(int(facts.model_flops[c]) for c in program.cls if chosen[c])
    each = 2 * (2 * 1024) * 8  # of two experts a token; the first layer hands no gradient on to its input
    assert flops == each * (32 * 3 * (14336 + 4096) - 14336)


def test_what_nothing_trained_reads_is_not_kept() -> None:
    """Of the MLP's inputs only those of matrices with adapters stay, as autograd keeps them.

    Of the first layer, whose input wants no gradient, only what stands behind the first adapter: behind that
    of o_proj, its input, the MLP's stream, and what the activation keeps.
    """
    kept = {
        name: outcome("llama-2-7b", {"lora_targets": [name], "lora_rank": 1}).result.memory_by_part[
            "activations"
        ]
        for name in ("o_proj", "up_proj", "down_proj")
    }
    normed, inner, narrow = 1024 * 4096 * 2, 1024 * 11008 * 2, 32 * 1024 * 2
    first = 2 * normed
    assert kept["up_proj"] - kept["o_proj"] == pytest.approx(32 * normed - first, abs=8 * narrow)
    first += 2 * inner
    assert kept["down_proj"] - kept["o_proj"] == pytest.approx(32 * inner - first, abs=8 * narrow)


@pytest.mark.parametrize(
    ("model", "targets", "message"),
    [
        ("llama-2-7b", ["experts.up"], "experts.up: Llama2-7B has none; it has: attention.output"),
        ("mixtral-8x7b", ["mlp.up"], "mlp.up: Mixtral-8x7B"),
        (
            "llama-2-7b",
            ["attention.qkv", "v_proj"],
            "attention.qkv and v_proj are adapters of the same matrix",
        ),
        ("llama-2-7b", ["all-linear", "v_proj"], "v_proj and all-linear are adapters of the same matrix"),
        ("deepseek-v3", ["q_proj"], "q_proj: DeepSeek-V3 has none; it has: "),
        ("llama-2-7b", ["query"], "lora_targets"),
    ],
)
def test_adapters_of_nothing_and_twice_of_one_are_refused(
    model: str, targets: list[str], message: str
) -> None:
    with pytest.raises(ScenarioError) as refused:
        outcome(model, {"lora_targets": targets})
    assert message.lower() in str(refused.value).lower()
