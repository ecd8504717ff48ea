"""Sequences that are split over GPUs whose heads are split for the time of attention (Ulysses)."""

from __future__ import annotations

import pytest

from simulator.errors import ScenarioError
from simulator.run import check
from simulator.scenario import load_scenario
from simulator.specs.model import TransformerSpec
from simulator.workload.blocks import Shard
from simulator.workload.kernels import Communication
from simulator.workload.transformer import layer_block
from support.inputs import shipped

HEADS, SIZE, LENGTH, PARTS = 16, 64, 4096, 4


@pytest.mark.parametrize(("kv_heads", "copies"), [(16, 1), (4, 1), (2, 2), (1, 4)])
def test_heads_of_keys_go_to_all_that_have_their_queries(kv_heads: int, copies: int) -> None:
    """A GPU starts with its tokens' heads; one of the keys belongs to several GPUs where there are fewer."""
    model = TransformerSpec(
        name="few",
        num_hidden_layers=1,
        hidden_size=HEADS * SIZE,
        intermediate_size=4096,
        num_attention_heads=HEADS,
        num_key_value_heads=kv_heads,
        head_dim=SIZE,
        vocab_size=1000,
        max_position_embeddings=LENGTH,
    )
    shard = Shard(
        micro_batch_size=1,
        sequence_length=LENGTH,
        tensor_parallel=1,
        sequence_parallel=False,
        precision="bf16",
        attention="fused",
        gradient_bytes=4,
        context_parallel=PARTS,
        context_method="all_to_all",
    )
    block = layer_block(model, shard, dense=True)
    tokens = LENGTH // PARTS
    wanted = {
        "attention.heads.all_to_all": 2 * tokens * SIZE * (HEADS + 2 * kv_heads * copies),
        "attention.sequence.all_to_all": 2 * tokens * SIZE * HEADS,
    }
    for nodes, suffix in ((block.forward, ""), (block.backward, ".gradient")):
        sent = {
            node.op.name.replace(suffix + ".all", ".all"): node.op.message_bytes
            for node in nodes
            if isinstance(node.op, Communication) and node.op.axis == "context"
        }
        assert sent == wanted


def test_one_chunk_a_gpu_is_enough() -> None:
    """Every head sees the whole triangle; a ring needs two chunks of each GPU's for all to do the same."""
    keys = {"parallelism.context_parallel": 2, "training.sequence_length": 4098}
    path = shipped("llama2_7b_fsdp")
    check(load_scenario(path, {**keys, "parallelism.context_parallel_method": "all_to_all"}))
    with pytest.raises(
        ScenarioError, match=r"2 x 2 chunks do not divide sequence_length: 4098; .* 4096 and 4100"
    ):
        check(load_scenario(path, keys))


def test_heads_of_keys_that_cannot_be_given_out_evenly_are_refused() -> None:
    changes = {
        "model": {"base": "llama3-8b", "num_attention_heads": 30, "num_key_value_heads": 6, "head_dim": 128},
        "cluster.storage": None,
        "data": None,
        "parallelism": {"tensor_parallel": 1, "context_parallel": 5, "context_parallel_method": "all_to_all"},
        "training.sequence_length": 8000,
        "training.global_batch_size": 8,
        "cluster.nodes": 5,
    }
    with pytest.raises(ScenarioError, match=r"5 and the 6 heads of keys .* do not divide one another"):
        check(load_scenario(shipped("quickstart"), changes))
