"""How many parameters a model has, counted from its shape."""

from __future__ import annotations

from math import prod

from simulator.specs.fits import spread
from simulator.specs.layer_list import placed_layers
from simulator.specs.model import (
    AttentionLayer,
    ConvolutionLayer,
    EmbeddingLayer,
    LayerListSpec,
    LinearLayer,
    ModelSpec,
    NormLayer,
    RecurrentLayer,
    TransformerSpec,
)
from simulator.specs.shapes import Placed, leaves


def count_parameters(model: ModelSpec) -> int:
    """All trainable parameters of a model, whole and on no particular GPU.

    A transformer has its embedding, its position table where positions are learned, its layers, a last
    norm and, unless the embedding is shared, a head; an encoder also the dense layer before its head. The
    stacks of an encoder-decoder share one embedding and have tables of positions of their own.

    Args:
        model: A transformer or a list of layers.

    Returns:
        Number of parameters. Not counted: segment tables and poolers of encoders, positions that are not
        trained, parameters that a framework adds by padding.

    Source: shapes of the matrices; Vaswani et al., arXiv:1706.03762; Ainslie et al., arXiv:2305.13245
        (grouped-query attention); DeepSeek-V2, arXiv:2405.04434 (latent attention).
    """
    if isinstance(model, LayerListSpec):
        return sum(map(layer_parameters, leaves(placed_layers(model))))
    experts = 0 if model.mixture is None else model.mixture.num_experts
    return _of_transformer(model, experts)


def active_parameters(model: ModelSpec) -> int:
    """Parameters that take part in the pass of one token: of the routed experts only those it visits.

    Args:
        model: A transformer or a list of layers; without routed experts all parameters are active.

    Returns:
        Number of parameters, the whole embedding included.
    """
    if isinstance(model, LayerListSpec) or model.mixture is None:
        return count_parameters(model)
    return _of_transformer(model, model.mixture.num_experts_per_tok)


def _of_transformer(model: TransformerSpec, experts: int) -> int:
    """The count with so many routed experts in each layer that has any."""
    width = model.hidden_size
    tables = model.vocab_size * (1 if model.tie_word_embeddings else 2)
    tables += model.max_position_embeddings * (model.position_embedding == "learned")
    head = _norm(model.norm, width) * model.final_norm + (width * width + width) * (model.family == "encoder")
    head += model.relative_attention_num_buckets * model.num_attention_heads
    if model.num_decoder_layers is not None:
        head += _second_stack(model, model.num_decoder_layers)
    every = _attention(model) + model.norms_per_layer * _norm(model.norm, width)
    dense = _mlp(model, model.intermediate_size)
    mixture = model.mixture
    if mixture is None:
        ahead = model.num_nextn_predict_layers
        module = every + dense + 2 * width * width + (2 + model.final_norm) * _norm(model.norm, width)
        return tables * width + head + model.num_hidden_layers * (every + dense) + ahead * module
    with_experts = sum(map(model.has_experts, range(model.num_hidden_layers)))
    routed = width * mixture.num_experts
    routed += (experts + mixture.num_shared_experts) * _mlp(model, mixture.moe_intermediate_size)
    layers = model.num_hidden_layers * (every + dense) + with_experts * (routed - dense)
    ahead = model.num_nextn_predict_layers
    module = every + (routed if model.has_experts(model.num_hidden_layers - 1) else dense)
    module += 2 * width * width + (2 + model.final_norm) * _norm(model.norm, width)
    return tables * width + head + layers + ahead * module


def _second_stack(model: TransformerSpec, decoder_layers: int) -> int:
    """What an encoder-decoder has beyond a decoder of as many layers, embedding and head."""
    width, norm = model.hidden_size, _norm(model.norm, model.hidden_size)
    cross = _attention(model) + max(1, model.norms_per_layer // 2) * norm
    tables = model.relative_attention_num_buckets * model.num_attention_heads
    bands = model.num_mel_bins
    if bands:
        tables += 3 * (bands + width) * width + 2 * width
    elif model.position_embedding == "learned":
        tables += model.max_position_embeddings * width
    return decoder_layers * cross + tables + norm * model.final_norm


def _attention(model: TransformerSpec) -> int:
    width, heads = model.hidden_size, model.num_attention_heads
    latent = model.latent_attention
    if latent is not None:
        query = heads * (latent.qk_nope_head_dim + latent.qk_rope_head_dim)
        rank = latent.q_lora_rank
        down = width * query if rank == 0 else width * rank + rank + rank * query
        compressed = width * (latent.kv_lora_rank + latent.qk_rope_head_dim) + latent.kv_lora_rank
        up = latent.kv_lora_rank * heads * (latent.qk_nope_head_dim + latent.v_head_dim)
        return down + compressed + up + heads * latent.v_head_dim * width
    query, keys = heads * model.head_dim, model.num_key_value_heads * model.head_dim
    biases = (query + 2 * keys) * model.attention_bias + width * model.attention_output_bias
    return width * (query + 2 * keys) + query * width + biases + 2 * model.head_dim * model.qk_norm


def _mlp(model: TransformerSpec, inner: int) -> int:
    up = inner * (2 if model.gated_mlp else 1)
    return model.hidden_size * (up + inner) + (up + model.hidden_size) * model.mlp_bias


def _norm(kind: str, features: int) -> int:
    return features * (1 if kind == "rmsnorm" else 2)


_RECURRENT_BIASES = 2
"""Biases of each gate: one for the input, one for the state (cuDNN)."""


def recurrent_gates(layer: RecurrentLayer) -> int:
    """Gates of a recurrent layer, its candidate included."""
    return 4 if layer.type == "lstm" else 3


def layer_parameters(item: Placed) -> int:
    """Parameters of a layer of a list, in its place."""
    layer, taken, given = item.layer, item.takes.channels, item.gives.channels
    match layer:
        case LinearLayer():
            return taken * given + given * layer.bias
        case EmbeddingLayer():
            return layer.num_embeddings * layer.embedding_dim
        case NormLayer():
            return _norm(layer.norm, taken)
        case ConvolutionLayer():
            window = prod(spread(layer.kernel_size, len(item.takes.positions)))
            return window * taken * given // layer.groups + given * layer.bias
        case RecurrentLayer():
            gates, directions = recurrent_gates(layer) * layer.hidden_size, 1 + layer.bidirectional
            above = directions * layer.hidden_size
            inputs = taken + (layer.num_layers - 1) * above
            each = inputs + layer.num_layers * (layer.hidden_size + _RECURRENT_BIASES)
            return directions * gates * each
        case AttentionLayer():
            width, heads = layer.hidden_size, layer.num_attention_heads
            columns = width + 2 * (layer.num_key_value_heads or heads) * (width // heads)
            return width * (columns + width) + (columns + width) * layer.bias
        case _:
            return 0
