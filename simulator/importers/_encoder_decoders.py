"""Configs of models with two stacks: T5's words for sizes, BART's, and how their relatives differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from simulator.importers._reading import ACTIVATIONS, MOST_LAYERS, Reader


@dataclass(frozen=True, slots=True)
class TwoStacks:
    """What a ``model_type`` of an encoder-decoder leaves unsaid.

    Attributes:
        feed_forward: Default of T5's ``feed_forward_proj``; empty for one that names its sizes as BART does.
        tied: Default of ``tie_word_embeddings``.
        position: How positions enter.
        final_norm: Whether a norm stands outside the layers of each stack.
        spectrogram: Whether the encoder reads a spectrogram.
        remarks: Warnings that always hold, by key.
    """

    feed_forward: str = ""
    tied: bool = True
    position: str = "learned"
    final_norm: bool = True
    spectrogram: bool = False
    remarks: tuple[tuple[str, str], ...] = ()


_EMBEDDING_NORM: Final = (
    ("model_type", "the norm of each embedding is simulated as one behind its stack, at the same cost"),
)

ENCODER_DECODERS: Final[dict[str, TwoStacks]] = {
    "bart": TwoStacks(remarks=_EMBEDDING_NORM),
    "marian": TwoStacks(position="sinusoidal", final_norm=False),
    "mt5": TwoStacks(feed_forward="gated-gelu", tied=False),
    "pegasus": TwoStacks(position="sinusoidal"),
    "t5": TwoStacks(feed_forward="relu"),
    "whisper": TwoStacks(
        spectrogram=True, remarks=(("model_type", "biases of keys are counted, which it does not have"),)
    ),
}

_ROWS_AHEAD: Final = 2
"""Rows of BART's tables of positions before the first position."""


def encoder_decoder(reader: Reader, model_type: str) -> dict[str, object]:
    """The keys of a `TransformerSpec` from the config of an encoder-decoder."""
    stacks = ENCODER_DECODERS[model_type]
    made = _t5(reader, stacks) if stacks.feed_forward else _bart(reader, stacks, model_type)
    for key, text in stacks.remarks:
        reader.warn(key, text)
    return {
        "kind": "transformer",
        "family": "encoder-decoder",
        **made,
        "vocab_size": reader.count("vocab_size"),
        "final_norm": stacks.final_norm,
        "tie_word_embeddings": reader.flag("tie_word_embeddings", stacks.tied),
    }


def _t5(reader: Reader, stacks: TwoStacks) -> dict[str, object]:
    layers = reader.count("num_layers", "num_hidden_layers", most=MOST_LAYERS)
    heads = reader.count("num_heads", "num_attention_heads")
    projection = reader.text("feed_forward_proj", default=stacks.feed_forward)
    gate, _, name = projection.rpartition("-")
    if name not in ACTIVATIONS or gate not in ("", "gated"):
        reader.problem("feed_forward_proj", f'"{projection}" is not known; relu and gated-gelu are')
    return {
        "num_encoder_layers": layers,
        "num_decoder_layers": reader.count("num_decoder_layers", default=layers, most=MOST_LAYERS),
        "hidden_size": reader.count("d_model", "hidden_size"),
        "intermediate_size": reader.count("d_ff"),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": reader.count("d_kv"),
        "max_position_embeddings": reader.count("n_positions", default=512),
        "hidden_act": ACTIVATIONS.get(name),
        "gated_mlp": gate == "gated",
        "norm": "rmsnorm",
        "position_embedding": "relative",
        "relative_attention_num_buckets": reader.count("relative_attention_num_buckets", default=32),
    }


def _bart(reader: Reader, stacks: TwoStacks, model_type: str) -> dict[str, object]:
    width = reader.count("d_model", "hidden_size")
    heads = _equal(reader, "encoder_attention_heads", "decoder_attention_heads")
    inner = _equal(reader, "encoder_ffn_dim", "decoder_ffn_dim")
    if width is not None and heads is not None and width % heads:
        reader.problem("d_model", f"{width} is not divisible by encoder_attention_heads: {heads}")
    positions = reader.count("max_target_positions" if stacks.spectrogram else "max_position_embeddings")
    ahead = _ROWS_AHEAD if model_type == "bart" else 0
    made: dict[str, object] = {
        "num_encoder_layers": reader.count("encoder_layers", most=MOST_LAYERS),
        "num_decoder_layers": reader.count("decoder_layers", most=MOST_LAYERS),
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": None if width is None or heads is None else width // heads,
        "max_position_embeddings": None if positions is None else positions + ahead,
        "hidden_act": reader.activation("activation_function", default="gelu"),
        "gated_mlp": False,
        "norm": "layernorm",
        "position_embedding": stacks.position,
        "attention_bias": True,
        "attention_output_bias": True,
        "mlp_bias": True,
    }
    if stacks.spectrogram:
        made["num_mel_bins"] = reader.count("num_mel_bins")
    return made


def _equal(reader: Reader, encoder: str, decoder: str) -> int | None:
    """A size that both stacks must share."""
    first, second = reader.count(encoder), reader.count(decoder)
    if first is not None and second is not None and first != second:
        reader.problem(
            decoder, f"{second}, but {encoder} is {first}: stacks of two sizes cannot be expressed"
        )
    return first
