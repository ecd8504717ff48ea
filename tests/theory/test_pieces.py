"""Products that work on pieces of the sequence beside the collectives of tensor parallelism."""

from __future__ import annotations

import pytest

from simulator.run import simulate
from simulator.scenario import scenario_from_mapping
from simulator.specs.model import TransformerSpec
from simulator.specs.software import SoftwareSpec
from simulator.workload.blocks import Block, Shard
from simulator.workload.kernels import Communication
from simulator.workload.transformer import layer_block

MODEL = TransformerSpec(
    name="some",
    num_hidden_layers=1,
    hidden_size=4096,
    intermediate_size=16384,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_dim=128,
    vocab_size=32000,
    max_position_embeddings=4096,
)


def layer(*, pieces: bool, recipe: str = "") -> Block:
    shard = Shard(
        micro_batch_size=1,
        sequence_length=4096,
        tensor_parallel=8,
        sequence_parallel=True,
        precision="bf16",
        attention="fused",
        gradient_bytes=4,
        recipe=recipe,
        software=SoftwareSpec(name="any", pipelined_tensor_parallel=pieces),
    )
    return layer_block(MODEL, shard, dense=True)


def sent(block: Block) -> int:
    nodes = (*block.forward, *block.backward)
    return sum(node.op.message_bytes for node in nodes if isinstance(node.op, Communication))


@pytest.mark.parametrize("recipe", ["", "fp8"])
def test_pieces_are_as_many_bytes_as_the_whole(recipe: str) -> None:
    assert sent(layer(pieces=True, recipe=recipe)) == sent(layer(pieces=False, recipe=recipe))


@pytest.mark.parametrize("recipe", ["", "fp8"])
def test_what_follows_a_product_has_all_that_was_gathered(recipe: str) -> None:
    """A gather starts with the product, and is awaited by a node of the pass that follows that."""
    block = layer(pieces=True, recipe=recipe)
    for nodes in (block.forward, block.backward):
        for place, node in enumerate(nodes):
            if isinstance(node.op, Communication) and node.op.collective == "all_gather" and not node.role:
                readers = [number for number, other in enumerate(nodes) if place in other.after]
                products = [
                    number
                    for number, other in enumerate(nodes)
                    if other.after == node.after and getattr(other.op, "kind", "") == "matmul"
                ]
                assert len(products) == 1, node.op.name
                assert readers, node.op.name
                assert min(readers) > products[0], node.op.name


def test_of_exposed_collectives_a_quarter_of_the_reductions_is_left() -> None:
    """With products that take longer than the transfers beside them: gathers vanish, reductions are in four.

    Per layer six collectives stand in the way of a pass: two gathers and two reductions forward, two gathers
    of gradients backward. All have one size, so a gather and a reduce-scatter take alike; of the six a half
    is left (two quarters).
    """

    def exposed(layers: int, *, pieces: bool) -> float:
        mapping = {
            "name": "pieces",
            "cluster": {"system": "dgx-h100", "nodes": 1, "gpus_per_node": 2},
            "model": {"base": "llama3-70b", "num_hidden_layers": layers},
            "training": {
                "sequence_length": 8192,
                "micro_batch_size": 1,
                "global_batch_size": 1,
                "precision": "bf16",
                "optimizer": "adamw",
                "recompute": "none",
            },
            "parallelism": {"tensor_parallel": 2, "data_parallel": 1, "sequence_parallel": True},
            "software": {"base": "megatron-core", "pipelined_tensor_parallel": pieces},
        }
        result = simulate(scenario_from_mapping(mapping))
        return sum(
            time
            for cause, time in result.breakdown.items()
            if cause in ("communication.all_gather", "communication.reduce_scatter")
        )

    before, after = (exposed(6, pieces=way) - exposed(2, pieces=way) for way in (False, True))
    assert before * 0.5 / 6 < after < before * 0.2
