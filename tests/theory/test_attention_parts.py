"""Attention written out by hand: latent attention with its scores in memory, norms of queries and keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from simulator.specs.model import LatentAttentionSpec, TransformerSpec
from simulator.workload import Block, Communication, Kernel, Node, Shard, layer_block

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


def exchanged(nodes: tuple[Node, ...]) -> dict[str, int]:
    """Bytes of what the attention of tensor-parallel GPUs exchanges, by name."""
    found = (node.op for node in nodes if isinstance(node.op, Communication))
    return {op.name: op.message_bytes for op in found if op.name.startswith("attention")}


@pytest.mark.parametrize("query_rank", [96, 0])
def test_latent_vectors_are_exchanged_instead_of_the_residual_stream(query_rank: int) -> None:
    """Of a split sequence each GPU projects its part down, and vectors are gathered."""
    latent = LATENT.model_copy(update={"q_lora_rank": query_rank})
    changes = {"latent_attention": latent, "num_key_value_heads": 8}
    alone = block(SHARD, **changes)
    split = block(replace(SHARD, tensor_parallel=4, sequence_parallel=True), **changes)
    copied = block(replace(SHARD, tensor_parallel=4), **changes)
    queries, vectors, key, stream = (2 * TOKENS * columns for columns in (query_rank or 512, 64, 16, 512))
    assert exchanged(split.forward) == {
        "attention.query_up.all_gather": queries,
        "attention.key_value_up.all_gather": vectors,
        "attention.rotary_key.all_gather": key,
        "attention.reduce_scatter": stream,
    }
    summed = {"query_up": queries, "key_value_up": vectors, "rotary_key": key}
    assert exchanged(split.backward) == {
        "attention.gradient.all_gather": stream,
        "attention.query_up.input.all_gather": queries,
        "attention.key_value_up.input.all_gather": vectors,
        **{f"attention.{name}.gradient.reduce_scatter": size for name, size in summed.items()},
    }
    assert exchanged(copied.forward) == {"attention.all_reduce": stream}
    assert exchanged(copied.backward) == {
        f"attention.{name}.gradient.all_reduce": size for name, size in summed.items()
    }
    for name, whole in kernels(alone).items():
        if name.startswith("attention.down"):
            # Split, all of it is the model's; else each of four GPUs does the same.
            assert kernels(split)[name].flops == kernels(split)[name].model_flops == whole.flops // 4
            assert kernels(copied)[name].flops == 4 * kernels(copied)[name].model_flops == whole.flops
    assert left(split) == left(copied) == 0
    down = (query_rank + 64 + 16) + (query_rank + 64)
    assert copied.kept_bytes - split.kept_bytes == 2 * TOKENS * (down + 2 * 2 * 512) * 3 // 4
