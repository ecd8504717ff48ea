"""Attention written out by hand: latent attention with its scores in memory, norms of queries and keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from simulator.specs.model import LatentAttentionSpec, TransformerSpec
from simulator.workload import Block, Kernel, Shard, layer_block

SHARD = Shard(
    micro_batch_size=2,
    sequence_length=256,
    tensor_parallel=1,
    sequence_parallel=False,
    precision="bf16",
    attention="fused",
    gradient_bytes=4,
)
TOKENS = 2 * 256
LATENT = LatentAttentionSpec(
    q_lora_rank=96, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=40
)


def block(shard: Shard, **changes: object) -> Block:
    fields: dict[str, object] = {
        "name": "small",
        "num_hidden_layers": 2,
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 1000,
        "max_position_embeddings": 256,
        "position_embedding": "rotary",
        **changes,
    }
    return layer_block(TransformerSpec.model_validate(fields), shard)


def kernels(block: Block) -> dict[str, Kernel]:
    nodes = [*block.forward, *block.backward]
    return {node.op.name: node.op for node in nodes if isinstance(node.op, Kernel)}


def left(block: Block) -> int:
    return sum(node.kept_bytes - node.freed_bytes for node in (*block.forward, *block.backward))


def test_latent_attention_with_scores_in_memory_has_keys_and_values_of_their_own_size() -> None:
    unfused = kernels(
        block(replace(SHARD, attention="unfused"), latent_attention=LATENT, num_key_value_heads=8)
    )
    pairs = 2 * 8 * 256 * 256
    forward = {"attention.scores": 32 + 16, "attention.values": 40}
    backward = {
        "attention.values.weights_gradient": 40,
        "attention.values.gradient": 40,
        "attention.scores.query_gradient": 48,
        "attention.scores.key_gradient": 48,
    }
    for name, size in (forward | backward).items():
        assert unfused[name].flops == 2 * pairs * size, name
    assert unfused["attention.softmax"].write_bytes == pairs * 2
    fused = kernels(block(SHARD, latent_attention=LATENT, num_key_value_heads=8))
    assert "attention.softmax" not in fused


@pytest.mark.parametrize("attention", ["fused", "unfused"])
@pytest.mark.parametrize(
    "changes", [{"qk_norm": True}, {"latent_attention": LATENT, "num_key_value_heads": 8}]
)
def test_every_byte_comes_back(attention: str, changes: dict[str, object]) -> None:
    assert left(block(replace(SHARD, attention=attention), **changes)) == 0


def test_norms_of_queries_and_keys_read_and_keep_what_they_norm() -> None:
    plain, normed = block(SHARD), block(SHARD, qk_norm=True)
    new = kernels(normed).keys() - kernels(plain).keys()
    assert new == {"attention.query_key_norm", "attention.query_key_norm.gradient"}
    size = TOKENS * (8 + 2) * 64 * 2
    norm = kernels(normed)["attention.query_key_norm"]
    assert (norm.read_bytes, norm.write_bytes) == (size, size)
    kept = [each.kept_bytes for each in (plain, normed)]
    assert kept[1] - kept[0] == size


def test_latent_attention_norms_latent_vectors_instead() -> None:
    with pytest.raises(ValidationError, match="leave qk_norm out"):
        block(SHARD, qk_norm=True, latent_attention=LATENT)
