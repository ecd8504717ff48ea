"""Models of two stacks: parameters by hand, configs of the transformers library, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import ScenarioError
from simulator.importers import ConfigError, transformer_from_config
from simulator.run import check
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.specs import TransformerSpec
from simulator.workload.parameters import count_parameters
from support.inputs import catalogue_model

T5: dict[str, Any] = {
    "model_type": "t5",
    "d_model": 1024,
    "d_kv": 128,
    "d_ff": 65536,
    "num_layers": 24,
    "num_decoder_layers": 24,
    "num_heads": 128,
    "relative_attention_num_buckets": 32,
    "feed_forward_proj": "relu",
    "n_positions": 512,
    "vocab_size": 32128,
}
BART: dict[str, Any] = {
    "model_type": "bart",
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "activation_function": "gelu",
    "max_position_embeddings": 1024,
    "vocab_size": 50265,
}
WHISPER = {key: value for key, value in BART.items() if key != "max_position_embeddings"} | {
    "model_type": "whisper",
    "d_model": 1280,
    "encoder_layers": 32,
    "decoder_layers": 32,
    "encoder_attention_heads": 20,
    "decoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "decoder_ffn_dim": 5120,
    "num_mel_bins": 128,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "vocab_size": 51866,
}
MARIAN = BART | {"model_type": "marian", "activation_function": "swish", "vocab_size": 58101}


def spec(config: dict[str, Any]) -> TransformerSpec:
    return TransformerSpec.model_validate({"name": "it", **transformer_from_config(config)[0]})


def t5_by_hand(width: int, inner: int, heads: int, head: int, layers: int, matrices: int, tables: int) -> int:
    """Raffel et al.: no biases; a layer's norms scale only; one table of buckets a stack."""
    attention = 4 * width * heads * head
    mlp = matrices * width * inner
    encoder = attention + mlp + 2 * width
    decoder = 2 * attention + mlp + 3 * width
    return tables * 32128 * width + layers * (encoder + decoder) + 2 * width + 2 * 32 * heads


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("t5-base", t5_by_hand(768, 3072, 12, 64, 12, 2, 1)),
        ("t5-large", t5_by_hand(1024, 4096, 16, 64, 24, 2, 1)),
        ("t5-3b", t5_by_hand(1024, 16384, 32, 128, 24, 2, 1)),
        ("t5-11b", t5_by_hand(1024, 65536, 128, 128, 24, 2, 1)),
        ("t5-v1.1-xxl", t5_by_hand(4096, 10240, 64, 64, 24, 3, 2)),
    ],
)
def test_t5_has_as_many_parameters_as_by_hand(name: str, count: int) -> None:
    assert count_parameters(catalogue_model(name)) == count


def test_what_the_published_weights_have_of_bart_and_whisper() -> None:
    # facebook/bart-large: 406,291,456; openai/whisper-large-v3: 1,543,490,560, with 1,500 fixed positions of
    # the encoder and without biases of keys in its 96 attentions.
    assert count_parameters(catalogue_model("bart-large")) == 406_291_456
    assert count_parameters(catalogue_model("whisper-large-v3")) == 1_543_490_560 - 1500 * 1280 + 96 * 1280


@pytest.mark.parametrize(
    ("config", "name"), [(T5, "t5-11b"), (BART, "bart-large"), (WHISPER, "whisper-large-v3")]
)
def test_a_config_gives_the_entry_of_the_catalogue(config: dict[str, Any], name: str) -> None:
    assert spec(config) == catalogue_model(name).model_copy(update={"name": "it"})


def test_relatives_differ_as_their_configs_say() -> None:
    marian, mt5 = spec(MARIAN), spec(T5 | {"model_type": "mt5", "feed_forward_proj": None})
    assert (marian.hidden_act, marian.position_embedding, marian.final_norm) == ("silu", "sinusoidal", False)
    assert (mt5.gated_mlp, mt5.hidden_act, mt5.tie_word_embeddings) == (True, "gelu", False)
    assert spec(T5 | {"num_decoder_layers": None}).num_decoder_layers == 24
    assert spec(T5 | {"num_layers": 6, "num_decoder_layers": 2}).num_hidden_layers == 8
    assert "norm of each embedding" in transformer_from_config(BART)[1][0]


@pytest.mark.parametrize(
    ("config", "key", "said"),
    [
        (T5 | {"feed_forward_proj": "gated"}, "feed_forward_proj", "relu and gated-gelu are"),
        (T5 | {"d_kv": None}, "d_kv", "missing"),
        (T5 | {"num_layers": 1e12}, "num_layers", "out of range"),
        (BART | {"decoder_ffn_dim": 2048}, "decoder_ffn_dim", "2048, but encoder_ffn_dim is 4096"),
        (BART | {"d_model": 1000}, "d_model", "not divisible by encoder_attention_heads: 16"),
        (BART | {"vocab_size": "50265"}, "vocab_size", "is not a whole number"),
    ],
)
def test_what_a_config_cannot_say_is_told_at_its_key(config: dict[str, Any], key: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        transformer_from_config(config)
    (problem,) = caught.value.problems
    assert problem.path == (key,)
    assert said in problem.message


def scenario(model: object, training: dict[str, Any], parallelism: dict[str, Any] | None = None) -> Scenario:
    return scenario_from_mapping(
        {
            "cluster": {"system": "dgx-a100", "nodes": 1},
            "model": model,
            "training": {"micro_batch_size": 1, "global_batch_size": 32, **training},
            "parallelism": parallelism or {},
        }
    )


LENGTHS = {"sequence_length": 512, "decoder_sequence_length": 128}
BASE = {"base": "t5-base"}


@pytest.mark.parametrize(
    ("model", "training", "parallelism", "said"),
    [
        ("t5-base", {"sequence_length": 512}, {}, "decoder_sequence_length: missing"),
        ("gpt2-124m", LENGTHS, {}, "only a model of family: encoder-decoder"),
        ("bart-large", LENGTHS | {"decoder_sequence_length": 2048}, {}, "2,048 tokens, but bart-large has"),
        ("whisper-large-v3", LENGTHS | {"decoder_sequence_length": 449}, {}, "449 tokens"),
        (BASE | {"num_decoder_layers": None}, LENGTHS, {}, "needs num_encoder_layers and num_decoder_layers"),
        (BASE | {"num_hidden_layers": 30}, LENGTHS, {}, "12 + num_decoder_layers 12 = 24, but"),
        ({"base": "gpt2-124m", "num_decoder_layers": 3}, {}, {}, "only a model of family: encoder-decoder"),
        (BASE | {"relative_attention_num_buckets": 0}, LENGTHS, {}, "is needed with position_embedding"),
        (BASE | {"position_embedding": "rotary"}, LENGTHS, {}, "does nothing without position_embedding"),
        (BASE | {"sliding_window": 64}, LENGTHS, {}, "family: decoder only"),
        (
            BASE
            | {
                "latent_attention": {
                    "kv_lora_rank": 64,
                    "qk_nope_head_dim": 32,
                    "qk_rope_head_dim": 16,
                    "v_head_dim": 32,
                }
            },
            LENGTHS,
            {},
            "not modelled in a model of family: encoder-decoder",
        ),
        ({"base": "gpt2-124m", "num_mel_bins": 80}, {}, {}, "reads a spectrogram"),
        (
            "t5-base",
            LENGTHS | {"decoder_sequence_length": 130},
            {"context_parallel": 2},
            "2 x 2 chunks do not divide decoder_sequence_length: 130; of lengths, 128 and 132 are multiples",
        ),
        ("t5-base", LENGTHS, {"pipeline_parallel": 2, "pipeline_schedule": "dualpipe"}, "at both ends"),
        (
            "t5-base",
            {"sequence_length": 512, "decoder_sequence_length": 114},
            {"tensor_parallel": 4, "sequence_parallel": True},
            "does not divide decoder_sequence_length: 114",
        ),
        (
            "t5-base",
            LENGTHS,
            {"pipeline_parallel": 2, "encoder_pipeline_parallel": 2},
            "none for the decoder",
        ),
        (
            "t5-base",
            LENGTHS,
            {"pipeline_parallel": 4, "encoder_pipeline_parallel": 2, "virtual_pipeline": 2},
            "give pipeline_layers instead",
        ),
        (
            "t5-base",
            LENGTHS,
            {"pipeline_parallel": 2, "encoder_pipeline_parallel": 1, "pipeline_layers": [12, 12]},
            "pipeline_layers says already",
        ),
        ("gpt2-124m", {}, {"pipeline_parallel": 2, "encoder_pipeline_parallel": 1}, "one stack of layers"),
        ("t5-base", LENGTHS | {"frozen_layers": 3}, {}, "share one embedding"),
    ],
)
def test_what_does_not_go_together_is_refused(
    model: object, training: dict[str, Any], parallelism: dict[str, Any], said: str
) -> None:
    with pytest.raises(ScenarioError) as refused:
        check(scenario(model, training, parallelism))
    assert said in str(refused.value)


def test_layers_of_a_stack_can_be_changed_alone() -> None:
    changed = scenario({"base": "t5-base", "num_decoder_layers": 3}, LENGTHS).model
    assert isinstance(changed, TransformerSpec)
    assert changed.num_hidden_layers == 15


def test_stages_of_the_encoder_hold_no_layer_of_the_decoder() -> None:
    plan = check(scenario("t5-base", LENGTHS, {"pipeline_parallel": 4, "encoder_pipeline_parallel": 3})).plan
    assert plan.layers_per_part == (4, 4, 4, 12)
