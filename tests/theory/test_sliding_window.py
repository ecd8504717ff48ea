"""Attention within a window: pairs counted one by one, and the time that follows from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from simulator.errors import ScenarioError
from simulator.run import check, simulate
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.specs.model import LatentAttentionSpec, TransformerSpec
from simulator.workload import Kernel, Shard, layer_block
from simulator.workload.operators import attended_pairs

SMALL: dict[str, Any] = {
    "name": "windowed",
    "num_hidden_layers": 2,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 65536,
    "position_embedding": "rotary",
}
SHARD = Shard(
    micro_batch_size=2,
    sequence_length=8192,
    tensor_parallel=1,
    sequence_parallel=False,
    precision="bf16",
    attention="fused",
    gradient_bytes=4,
)


@pytest.mark.parametrize("window", [1, 2, 7, 40, 41, 200])
def test_pairs_are_those_that_one_counts(window: int) -> None:
    length = 41
    counted = sum(1 for query in range(length) for key in range(length) if 0 <= query - key < window)
    assert attended_pairs(length, length, causal=True, window=window) == counted


def attention(window: int | None, shard: Shard = SHARD, **changes: Any) -> int:
    model = TransformerSpec(**{**SMALL, **changes}, sliding_window=window)
    nodes = [node.op for node in layer_block(model, shard).forward]
    names = ("attention.core", "attention.scores", "attention.values")
    return sum(op.model_flops for op in nodes if isinstance(op, Kernel) and op.name in names)


@pytest.mark.parametrize("way", ["fused", "unfused", "latent", "all_to_all", "all_gather"])
def test_arithmetic_counts_the_window(way: str) -> None:
    shard, parts, changes, width = SHARD, 1, {}, 8 * 128
    if way == "unfused":
        shard = replace(SHARD, attention="unfused")
    elif way == "latent":
        changes = {
            "latent_attention": LatentAttentionSpec(
                kv_lora_rank=256, qk_nope_head_dim=96, qk_rope_head_dim=32, v_head_dim=128
            )
        }
    elif way in ("all_to_all", "all_gather"):
        parts = 4
        shard = replace(SHARD, context_parallel=parts, context_method=way)
    pairs = sum(min(1000, query + 1) for query in range(8192))
    # Gathered keys are told as whole keys a query: less than one more than there are.
    assert attention(1000, shard, **changes) * parts == pytest.approx(4 * 2 * pairs * width, rel=1.1e-3)


def test_a_window_as_long_as_the_sequence_is_none() -> None:
    assert attention(8192) == attention(None) == attention(100_000)


def scenario(window: int | None, length: int, parallelism: dict[str, Any] | None = None) -> Scenario:
    return scenario_from_mapping(
        {
            "cluster": {"system": "dgx-h100", "nodes": 1},
            "model": {**SMALL, **({} if window is None else {"sliding_window": window})},
            "training": {"sequence_length": length, "micro_batch_size": 1, "global_batch_size": 8},
            "parallelism": parallelism or {},
        }
    )


def core_seconds(window: int | None, length: int) -> float:
    operators = simulate(scenario(window, length)).operators
    return float(operators.loc[operators["name"].str.startswith("attention.core"), "time_s"].sum())


def test_time_follows_the_window_and_grows_linearly_with_the_sequence() -> None:
    whole = [core_seconds(None, length) for length in (32768, 65536)]
    within = [core_seconds(2048, length) for length in (32768, 65536)]
    # Blocks of queries are whole, so a window costs up to a block more than its pairs.
    assert whole[1] / whole[0] == pytest.approx(4.0, rel=0.05)
    assert within[1] / within[0] == pytest.approx(2.0, rel=0.1)
    pairs = [attended_pairs(65536, 65536, causal=True, window=window) for window in (2048, 0)]
    assert pairs[0] / pairs[1] < within[1] / whole[1] < 1.2 * pairs[0] / pairs[1]
    assert core_seconds(32768, 32768) == whole[0]


def test_a_wider_window_is_never_faster() -> None:
    times = [core_seconds(window, 16384) for window in (128, 1000, 2048, 5000, 16000, None)]
    assert times == sorted(times)


def test_keys_that_go_round_a_ring_are_refused() -> None:
    with pytest.raises(ScenarioError, match="all_to_all and all_gather are"):
        check(scenario(4096, 16384, {"context_parallel": 2}))
    check(scenario(4096, 4096, {"context_parallel": 2}))
    check(scenario(4096, 16384, {"context_parallel": 2, "context_parallel_method": "all_to_all"}))


@pytest.mark.parametrize("family", ["encoder"])
def test_a_window_of_an_encoder_is_refused(family: str) -> None:
    with pytest.raises(ValueError, match="family: decoder only"):
        TransformerSpec(**SMALL, family=family, sliding_window=64)
