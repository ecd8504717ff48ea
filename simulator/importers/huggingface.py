"""A Hugging Face ``config.json`` as a transformer: data only, no code of the model is ever imported.

Each architecture says what its config leaves unsaid (norms, gates, biases, how positions enter); the
sizes are read from the config under the names that the architecture uses for them. What the config sets
but a transformer here cannot express becomes a warning that says what is simulated instead.
"""

from __future__ import annotations

from collections.abc import Mapping

from simulator.importers._architectures import ARCHITECTURES, Architecture
from simulator.importers._encoder_decoders import ENCODER_DECODERS, encoder_decoder
from simulator.importers._reading import MOST_LAYERS, ConfigError, ConfigProblem, Reader

__all__ = ["ConfigError", "ConfigProblem", "transformer_from_config"]


def transformer_from_config(config: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """The keys of a `TransformerSpec` from a config of the transformers library.

    Defaults follow the library: key and value heads as many as heads, head size the width over the heads.

    Args:
        config: The parsed file; a multi-modal config is read from its ``text_config``.

    Returns:
        The mapping (without a name), and warnings, one line each.

    Raises:
        ConfigError: Every mistake found, each with the path of its key.

    Valid: configs of the architectures that `known_model_types` lists.
    """
    warnings: list[str] = []
    prefix: tuple[str, ...] = ()
    nested = config.get("text_config")
    if isinstance(nested, Mapping):
        prefix = ("text_config",)
        warnings.append("text_config: only the text model is read; vision and audio towers are left out")
        config = {"model_type": config.get("model_type"), **nested}
    if config.get("auto_map"):
        warnings.append("auto_map: the model's own code is never imported; the config is read as data")
    reader = Reader(config, prefix)
    name = reader.get("model_type")
    if isinstance(name, str) and name in ENCODER_DECODERS:
        made = encoder_decoder(reader, name)
    else:
        made = _one_stack(reader)
    if reader.problems:
        raise ConfigError(reader.problems)
    return made, warnings + [f"{'.'.join((*prefix, key))}: {text}" for key, text in reader.warnings]


def _one_stack(reader: Reader) -> dict[str, object]:
    architecture = _architecture(reader)
    if architecture is None:
        raise ConfigError(reader.problems)
    reader.defaults = architecture.defaults
    made = _sizes(reader, architecture)
    made |= _shape(reader, architecture)
    _mixture(reader, architecture, made)
    _latent(reader, architecture, made)
    _not_simulated(reader, architecture, made)
    return made


def known_model_types() -> list[str]:
    """The values of ``model_type`` that can be read."""
    return sorted((*ARCHITECTURES, *ENCODER_DECODERS))


def _architecture(reader: Reader) -> Architecture | None:
    name = reader.get("model_type")
    if isinstance(name, str) and name in ARCHITECTURES:
        return ARCHITECTURES[name]
    what = "missing" if name is None else f"{reader.shown(name)} is not known"
    reader.problem("model_type", f"{what}; known are {', '.join(known_model_types())}")
    return None


def _sizes(reader: Reader, architecture: Architecture) -> dict[str, object]:
    width = reader.count("hidden_size", *architecture.also("hidden_size"))
    heads = reader.count("num_attention_heads", *architecture.also("num_attention_heads"))
    layers = reader.count("num_hidden_layers", *architecture.also("num_hidden_layers"), most=MOST_LAYERS)
    inner_default = 4 * width if width is not None and architecture.default_inner else None
    inner = reader.count("intermediate_size", *architecture.also("intermediate_size"), default=inner_default)
    key_heads = _key_heads(reader, architecture, heads)
    head_dim = reader.count("head_dim", default=0)
    if not head_dim and width is not None and heads is not None:
        head_dim = width // heads
        if width % heads and not architecture.latent:
            key = reader.written("hidden_size", *architecture.also("hidden_size"))
            reader.problem(
                key, f"{width} is not divisible by num_attention_heads: {heads}, and there is no head_dim"
            )
    if heads is not None and key_heads is not None and heads % key_heads:
        reader.problem(
            reader.written("num_key_value_heads", "num_kv_heads", "num_attention_heads"),
            f"{key_heads} key and value heads do not divide num_attention_heads: {heads}",
        )
    default_positions = architecture.default_positions
    return {
        "kind": "transformer",
        "family": architecture.family,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": head_dim,
        "vocab_size": reader.count("vocab_size"),
        "max_position_embeddings": reader.count(
            "max_position_embeddings",
            *architecture.also("max_position_embeddings"),
            default=default_positions,
        ),
    }


def _key_heads(reader: Reader, architecture: Architecture, heads: int | None) -> int | None:
    if architecture.falcon:
        # Falcon says it in three ways: the new decoder counts them, the old one has one or all.
        if reader.flag("new_decoder_architecture", False):
            return reader.count("num_kv_heads", default=heads)
        return 1 if reader.flag("multi_query", True) else heads
    if not architecture.grouped:
        return heads
    if reader.get("num_key_value_heads") is None:
        reader.warn("num_key_value_heads", "not given; taken to be as many as num_attention_heads")
    return reader.count("num_key_value_heads", default=heads)


def _shape(reader: Reader, architecture: Architecture) -> dict[str, object]:
    names = "hidden_act", *architecture.also("hidden_act")
    biases = architecture.biases
    switched = reader.flag(architecture.bias_key, biases == "all") if architecture.bias_key else True
    attention = switched and reader.flag("attention_bias", True)
    shape: dict[str, object] = {
        "hidden_act": reader.activation(*names, default=architecture.activation),
        "gated_mlp": architecture.gated,
        "norm": architecture.norm,
        "norms_per_layer": architecture.norms,
        "position_embedding": architecture.position,
        "tie_word_embeddings": reader.flag("tie_word_embeddings", architecture.tied),
        "attention_bias": attention and biases != "",
        "attention_output_bias": attention and biases in ("attention", "all"),
        "mlp_bias": switched and biases == "all",
        "qk_norm": architecture.qk_norm,
    }
    if architecture.mlp_bias_key:
        shape["mlp_bias"] = reader.flag(architecture.mlp_bias_key, False)
    window = reader.count("sliding_window", default=0) if architecture.window == "always" else 0
    if window:
        shape["sliding_window"] = window
    if reader.flag("alibi", False):
        shape["position_embedding"] = "alibi"
    return shape


def _mixture(reader: Reader, architecture: Architecture, made: dict[str, object]) -> None:
    if not architecture.experts:
        if any(reader.number(key) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
            reader.problem(
                reader.written("num_experts", "num_local_experts", "n_routed_experts"),
                "experts in an architecture that has none here",
            )
        return
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    default = None if architecture.experts == "always" else 0
    experts = reader.count(*names, default=default, least=0)
    if experts == 0:
        reader.warn(reader.written(*names), "no experts: a dense MLP of intermediate_size in every layer")
    if not experts:
        return
    per_token = reader.count("num_experts_per_tok", "experts_per_token")
    if per_token is not None and per_token > experts:
        reader.problem(
            reader.written("num_experts_per_tok", "experts_per_token"), f"{per_token} of {experts} experts"
        )
    inner = made["intermediate_size"]
    default_inner = inner if isinstance(inner, int) else None
    made["mixture"] = {
        "num_experts": experts,
        "num_experts_per_tok": per_token,
        "moe_intermediate_size": reader.count("moe_intermediate_size", default=default_inner),
        "num_shared_experts": reader.count("n_shared_experts", default=0, least=0),
        "first_k_dense_replace": reader.count("first_k_dense_replace", default=0, least=0),
        "decoder_sparse_step": reader.count("decoder_sparse_step", default=1),
        "n_group": reader.count("n_group", default=1),
        "topk_group": reader.count("topk_group", default=1),
    }
    if (reader.number("moe_layer_freq") or 1) != 1:
        reader.problem(
            "moe_layer_freq", "experts in every other layer, the first included, cannot be expressed"
        )
    if reader.get("mlp_only_layers"):
        reader.problem("mlp_only_layers", "dense layers between layers of experts cannot be expressed")
    if reader.number("num_nextn_predict_layers"):
        reader.warn(
            "num_nextn_predict_layers",
            "layers for multi-token prediction are left out; a scenario may add them",
        )


def _latent(reader: Reader, architecture: Architecture, made: dict[str, object]) -> None:
    if not architecture.latent:
        return
    latent = {
        "q_lora_rank": reader.count("q_lora_rank", default=0, least=0),
        "kv_lora_rank": reader.count("kv_lora_rank"),
        "qk_nope_head_dim": reader.count("qk_nope_head_dim"),
        "qk_rope_head_dim": reader.count("qk_rope_head_dim"),
        "v_head_dim": reader.count("v_head_dim"),
    }
    made["latent_attention"] = latent
    plain, rotary = latent["qk_nope_head_dim"], latent["qk_rope_head_dim"]
    if plain is not None and rotary is not None:
        made["head_dim"] = plain + rotary


def _not_simulated(reader: Reader, architecture: Architecture, made: dict[str, object]) -> None:
    """What the config asks for and a transformer here has no word for."""
    some = architecture.window == "some" or reader.flag("use_sliding_window", False)
    if some and architecture.window != "always" and reader.number("sliding_window"):
        reader.warn(
            "sliding_window",
            "some layers attend to a window only; all are simulated with full attention, "
            "which is the same up to that many tokens",
        )
    parallel = architecture.parallel
    for key in ("use_parallel_residual", "parallel_attn"):
        if reader.get(key) is not None:
            parallel = reader.flag(key, True) and parallel
    if architecture.falcon and not reader.flag("new_decoder_architecture", False) and parallel:
        made["norms_per_layer"] = 1
    if parallel:
        reader.warn(
            "model_type", "attention and MLP run side by side; they are simulated one after the other"
        )
    embedded = reader.get("word_embed_proj_dim")
    if embedded is not None and embedded != made["hidden_size"]:
        reader.problem(
            "word_embed_proj_dim", "an embedding of another width than the model cannot be expressed"
        )
    if reader.get("quantization_config"):
        reader.warn("quantization_config", "weights are simulated in the precision of the training block")
    for key, text in architecture.remarks:
        reader.warn(key, text)
