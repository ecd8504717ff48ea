"""Configs of the transformers library, good and bad."""

from __future__ import annotations

import sys

import pytest

from simulator.importers import ConfigError, transformer_from_config
from simulator.importers.huggingface import known_model_types
from simulator.specs import TransformerSpec
from simulator.workload.parameters import count_parameters
from support.inputs import catalogue_model

LLAMA: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
QWEN = {"attention_bias": False, "head_dim": 128, "hidden_act": "silu", "max_position_embeddings": 40960}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "n_group": 8,
    "topk_group": 4,
    "moe_layer_freq": 1,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "tie_word_embeddings": False,
}


def sizes(
    layers: int, width: int, heads: int, inner: int, vocabulary: int, positions: int
) -> dict[str, object]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
    }


def spec(config: dict[str, object]) -> TransformerSpec:
    return TransformerSpec.model_validate({"name": "it", **transformer_from_config(config)[0]})


def problems(config: dict[str, object]) -> list[tuple[tuple[str, ...], str]]:
    with pytest.raises(ConfigError) as caught:
        transformer_from_config(config)
    return [(problem.path, problem.message) for problem in caught.value.problems]


GPT2 = {
    "model_type": "gpt2",
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}
OPT = sizes(64, 9216, 72, 36864, 50272, 2048) | {"model_type": "opt", "ffn_dim": 36864}
MIXTRAL = sizes(32, 4096, 32, 14336, 32000, 32768) | {
    "model_type": "mixtral",
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": None,
}
QWEN2 = sizes(28, 3584, 28, 18944, 152064, 131072) | {"model_type": "qwen2", "num_key_value_heads": 4}
QWEN3_MOE = (
    sizes(48, 2048, 32, 6144, 151936, 40960)
    | QWEN
    | {
        "model_type": "qwen3_moe",
        "num_key_value_heads": 4,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (LLAMA, "llama3-8b"),
        (GPT2, "gpt2-124m"),
        (OPT, "opt-66b"),
        (MIXTRAL, "mixtral-8x7b"),
        (QWEN2, "qwen2.5-7b"),
        (QWEN3_MOE, "qwen3-30b-a3b"),
        (DEEPSEEK, "deepseek-v3"),
        (sizes(24, 1024, 16, 4096, 30522, 512) | {"model_type": "bert"}, "bert-large"),
        (
            sizes(40, 5120, 40, 17920, 100352, 16384) | {"model_type": "phi3", "num_key_value_heads": 10},
            "phi-4-14b",
        ),
    ],
)
def test_a_config_gives_the_entry_of_the_catalogue(config: dict[str, object], name: str) -> None:
    assert spec(config) == catalogue_model(name).model_copy(update={"name": "it"})


# Parameters as the models' pages give them (safetensors), where the catalogue has no entry.
@pytest.mark.parametrize(
    ("config", "published"),
    [
        # https://huggingface.co/google/gemma-2-2b
        (
            sizes(26, 2304, 8, 9216, 256000, 8192)
            | {"model_type": "gemma2", "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096},
            2_614_341_888,
        ),
        # https://huggingface.co/google/gemma-3-1b-pt
        (
            sizes(26, 1152, 4, 6912, 262144, 32768)
            | {"model_type": "gemma3_text", "num_key_value_heads": 1, "head_dim": 256, "sliding_window": 512},
            999_885_952,
        ),
        # https://huggingface.co/EleutherAI/gpt-neox-20b (20,554,567,680 in the paper, arXiv:2204.06745)
        (sizes(44, 6144, 64, 24576, 50432, 2048) | {"model_type": "gpt_neox"}, 20_554_567_680),
        # https://huggingface.co/tiiuae/falcon-7b
        (
            {
                "model_type": "falcon",
                "hidden_size": 4544,
                "num_hidden_layers": 32,
                "num_attention_heads": 71,
                "vocab_size": 65024,
                "multi_query": True,
                "new_decoder_architecture": False,
                "parallel_attn": True,
                "bias": False,
            },
            6_921_720_704,
        ),
    ],
    ids=["gemma2-2b", "gemma3-1b", "gpt-neox-20b", "falcon-7b"],
)
def test_a_config_has_as_many_parameters_as_the_model(config: dict[str, object], published: int) -> None:
    assert count_parameters(spec(config)) == published


def test_absent_keys_take_the_library_s_defaults() -> None:
    config = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    made, warnings = transformer_from_config(config | {"head_dim": None, "num_experts": 0})
    assert (made["num_key_value_heads"], made["head_dim"]) == (32, 128)
    assert warnings == ["num_key_value_heads: not given; taken to be as many as num_attention_heads"]


def test_no_experts_is_a_dense_model_and_said() -> None:
    made, warnings = transformer_from_config(MIXTRAL | {"num_local_experts": 0})
    assert "mixture" not in made
    assert warnings == ["num_local_experts: no experts: a dense MLP of intermediate_size in every layer"]


def test_a_nested_text_model_is_read_and_its_mistakes_are_placed() -> None:
    inner = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
    }
    made, warnings = transformer_from_config({"model_type": "gemma3", "text_config": inner})
    assert (made["hidden_size"], made["num_attention_heads"], made["vocab_size"]) == (2560, 8, 262208)
    assert warnings[0].startswith("text_config: only the text model")
    wrong = problems({"model_type": "gemma3", "text_config": inner | {"hidden_size": "2560"}})
    assert wrong == [(("text_config", "hidden_size"), 'the text "2560" is not a whole number')]


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"vocab_size": "128256"}, "vocab_size", 'the text "128256" is not a whole number'),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers", "out of range; 1 to 10,000"),
        ({"num_hidden_layers": 1e12}, "num_hidden_layers", "out of range"),
        ({"num_hidden_layers": 10**5000}, "num_hidden_layers", "more than 18 digits is out of range"),
        ({"num_attention_heads": 0}, "num_attention_heads", "out of range"),
        ({"hidden_size": float("nan")}, "hidden_size", "not finite"),
        ({"hidden_size": float("inf")}, "hidden_size", "not finite"),
        ({"hidden_size": 4097}, "hidden_size", "not divisible by num_attention_heads: 32"),
        ({"num_key_value_heads": 5}, "num_key_value_heads", "do not divide num_attention_heads: 32"),
        ({"num_hidden_layers": True}, "num_hidden_layers", "True is not a whole number"),
        ({"intermediate_size": None}, "intermediate_size", "missing"),
        ({"intermediate_size": [14336]}, "intermediate_size", "a list is not a whole number"),
        ({"hidden_act": "mystery"}, "hidden_act", "known are gelu"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings", "neither true nor false"),
        ({"num_experts": 8}, "num_experts", "experts in an architecture that has none"),
        ({"model_type": "mamba"}, "model_type", "known are bart, bert, bloom"),
        ({"model_type": None}, "model_type", "missing; known are"),
        ({"model_type": ["llama"]}, "model_type", "a list is not known"),
    ],
)
def test_a_mistake_is_told_with_its_key(change: dict[str, object], key: str, said: str) -> None:
    ((path, message),) = problems(LLAMA | change)
    assert path == (key,)
    assert said in message
    assert len(message) < 400


def test_all_mistakes_are_told_at_once() -> None:
    wrong = problems(LLAMA | {"vocab_size": "x", "num_hidden_layers": 0, "num_key_value_heads": 7})
    assert {path for path, _ in wrong} == {("vocab_size",), ("num_hidden_layers",), ("num_key_value_heads",)}
    with pytest.raises(ValueError, match="num_hidden_layers: 0 is out of range"):
        transformer_from_config(LLAMA | {"num_hidden_layers": 0})


def test_more_experts_per_token_than_there_are() -> None:
    assert problems(MIXTRAL | {"num_experts_per_tok": 9}) == [(("num_experts_per_tok",), "9 of 8 experts")]


def test_the_model_s_own_code_is_never_imported() -> None:
    before = set(sys.modules)
    made, warnings = transformer_from_config(LLAMA | {"auto_map": {"AutoModel": "antigravity.It"}})
    assert "antigravity" not in set(sys.modules) - before
    assert made["hidden_size"] == 4096
    assert "never imported" in warnings[0]


def test_what_cannot_be_expressed_is_said() -> None:
    neox = sizes(44, 6144, 64, 24576, 50432, 2048) | {"model_type": "gpt_neox"}
    assert "side by side" in transformer_from_config(neox)[1][0]
    assert transformer_from_config(neox | {"use_parallel_residual": False})[1] == []
    (window,) = transformer_from_config(QWEN2 | {"sliding_window": 4096, "use_sliding_window": True})[1]
    assert window.startswith("sliding_window: some layers")
    assert transformer_from_config(QWEN2 | {"sliding_window": 4096, "use_sliding_window": False})[1] == []
    assert transformer_from_config(DEEPSEEK)[1] == [
        "num_nextn_predict_layers: layers for multi-token prediction are left out; a scenario may add them"
    ]


def test_known_model_types_are_many_and_sorted() -> None:
    assert known_model_types() == sorted(known_model_types())
    assert {"llama", "gemma3_text", "gpt_oss", "starcoder2", "roberta"} <= set(known_model_types())
