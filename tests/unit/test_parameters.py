"""Counts of parameters against counts by hand and against the blocks that are simulated."""

from __future__ import annotations

import pytest

from simulator.specs import LayerListSpec, TransformerSpec
from simulator.workload import Shard, embedding_block, head_block, layer_block, layer_list_blocks
from simulator.workload.parameters import active_parameters, count_parameters

SHARD = Shard(
    micro_batch_size=1,
    sequence_length=8,
    tensor_parallel=1,
    sequence_parallel=False,
    precision="bf16",
    attention="fused",
    gradient_bytes=4,
)
SMALL = {
    "name": "small",
    "num_hidden_layers": 3,
    "hidden_size": 8,
    "intermediate_size": 20,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 2,
    "vocab_size": 50,
    "max_position_embeddings": 16,
}
LAYERS = [
    {
        "type": "convolution",
        "in_channels": 4,
        "out_channels": 6,
        "kernel_size": 3,
        "input_size": 8,
        "groups": 2,
    },
    {"type": "norm", "features": 6, "positions": 36, "norm": "batchnorm"},
    {"type": "activation", "features": 216},
    {"type": "pooling", "channels": 6, "input_size": 6},
    {"type": "linear", "in_features": 6, "out_features": 8},
    {"type": "attention", "hidden_size": 8, "num_attention_heads": 4, "num_key_value_heads": 2},
    {"type": "loss", "features": 8},
]


def transformer(**changes: object) -> TransformerSpec:
    return TransformerSpec.model_validate(SMALL | changes)


def test_a_decoder_by_hand() -> None:
    # Untied tables 2*50*8 + positions 16*8; a layer: q, k, v, output 8*8+2*8*4+8*8, MLP 2*8*20, norms 2*16.
    assert count_parameters(transformer()) == 800 + 128 + 3 * (64 + 64 + 64 + 320 + 32) + 16


def test_biases_and_norms_by_hand() -> None:
    plain = count_parameters(transformer())
    assert count_parameters(transformer(attention_bias=True)) - plain == 3 * (8 + 4 + 4)
    assert count_parameters(transformer(attention_output_bias=True)) - plain == 3 * 8
    assert count_parameters(transformer(mlp_bias=True)) - plain == 3 * (20 + 8)
    assert count_parameters(transformer(gated_mlp=True)) - plain == 3 * 160
    assert count_parameters(transformer(qk_norm=True)) - plain == 3 * 2 * 2
    assert plain - count_parameters(transformer(norm="rmsnorm")) == (3 * 2 + 1) * 8
    assert plain - count_parameters(transformer(tie_word_embeddings=True)) == 400
    assert plain - count_parameters(transformer(position_embedding="rotary")) == 128


def test_experts_by_hand() -> None:
    mixture = {
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 5,
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
    }
    with_experts = transformer(mixture=mixture)
    # Two of three layers have a router 8*6 and 6+1 experts of 2*8*5 in place of the MLP 2*8*20.
    assert count_parameters(with_experts) - count_parameters(transformer()) == 2 * (48 + 7 * 80 - 320)
    assert count_parameters(with_experts) - active_parameters(with_experts) == 2 * 4 * 80
    assert active_parameters(transformer()) == count_parameters(transformer())


def test_latent_attention_by_hand() -> None:
    latent = {"kv_lora_rank": 3, "qk_nope_head_dim": 2, "qk_rope_head_dim": 1, "v_head_dim": 2}
    key_value = 8 * (3 + 1) + 3 + 3 * 4 * (2 + 2)
    output = 4 * 2 * 8
    direct = transformer(latent_attention=latent)
    grouped = 64 + 64 + 64
    assert count_parameters(direct) - count_parameters(transformer()) == 3 * (
        8 * 12 + key_value + output - grouped
    )
    low_rank = transformer(latent_attention=latent | {"q_lora_rank": 5})
    assert count_parameters(low_rank) - count_parameters(direct) == 3 * (8 * 5 + 5 + 5 * 12 - 8 * 12)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gated_mlp": True, "norm": "rmsnorm", "position_embedding": "rotary"},
        {
            "attention_bias": True,
            "attention_output_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
        {"qk_norm": True, "norms_per_layer": 4, "gated_mlp": True, "mlp_bias": True},
        {"family": "encoder"},
    ],
)
def test_the_blocks_that_are_simulated_hold_as_many(changes: dict[str, object]) -> None:
    model = transformer(**changes)
    blocks = [embedding_block(model, SHARD), *[layer_block(model, SHARD)] * model.num_hidden_layers]
    blocks.append(head_block(model, SHARD, shares_embedding=model.tie_word_embeddings))
    assert count_parameters(model) == sum(block.parameters for block in blocks)


def test_a_list_of_layers_by_hand_and_by_blocks() -> None:
    model = LayerListSpec.model_validate({"name": "list", "layers": tuple(LAYERS)})
    by_hand = 2 * 9 * 6 + 2 * 6 + (6 * 8 + 8) + (8 * (8 + 8) + 16 + 8 * 8 + 8)
    assert count_parameters(model) == by_hand == active_parameters(model)
    assert by_hand == sum(block.parameters for block in layer_list_blocks(model, SHARD))
