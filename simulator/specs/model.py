"""What is trained: a transformer in Hugging Face's words, or a list of layers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from simulator.specs._base import Count, CountOrZero, Spec, whole
from simulator.specs.layer_list import LayerListSpec
from simulator.specs.layers import (
    Activation,
    ActivationLayer,
    AttentionLayer,
    BlockLayer,
    ConvolutionLayer,
    DropoutLayer,
    EmbeddingLayer,
    InputLayer,
    Layer,
    LinearLayer,
    LossLayer,
    MaskLayer,
    Norm,
    NormLayer,
    PoolingLayer,
    RecurrentLayer,
    SideLayer,
    StackLayer,
    UpsamplingLayer,
    divides,
)

__all__ = [
    "ActivationLayer",
    "AttentionLayer",
    "BlockLayer",
    "ConvolutionLayer",
    "DropoutLayer",
    "EmbeddingLayer",
    "InputLayer",
    "LatentAttentionSpec",
    "Layer",
    "LayerListSpec",
    "LinearLayer",
    "LossLayer",
    "MaskLayer",
    "MixtureSpec",
    "ModelSpec",
    "NormLayer",
    "PoolingLayer",
    "RecurrentLayer",
    "SideLayer",
    "StackLayer",
    "TransformerSpec",
    "UpsamplingLayer",
]


class MixtureSpec(Spec):
    """Routed experts in place of the dense MLP."""

    num_experts: Count
    """Routed experts in a layer."""
    num_experts_per_tok: Count
    """Experts that each token visits."""
    moe_intermediate_size: Count
    """Width of one expert."""
    num_shared_experts: CountOrZero = 0
    """Experts that every token visits."""
    first_k_dense_replace: CountOrZero = 0
    """Leading layers of a stack that keep a dense MLP of `intermediate_size`."""
    decoder_sparse_step: Count = 1
    """Every so many-th layer has experts, the others a dense MLP; 2 for the second, the fourth and so on."""
    encoder_sparse_step: Count | None = None
    """The same in the encoder of an encoder-decoder; as in its decoder if not given."""
    n_group: Count = Field(default=1, validate_default=True)
    """Groups that the experts are in, in order (node-limited routing)."""
    topk_group: Count = Field(default=1, validate_default=True)
    """Groups that the experts of one token may be in."""

    @field_validator("num_experts_per_tok")
    @classmethod
    def _no_more_than_there_are(cls, visited: int, info: ValidationInfo) -> int:
        if visited > info.data.get("num_experts", visited):
            raise ValueError(f"{visited} of only {info.data['num_experts']} experts (num_experts)")
        return visited

    @field_validator("n_group")
    @classmethod
    def _equal_groups(cls, groups: int, info: ValidationInfo) -> int | None:
        return divides(groups, info, "num_experts")

    @field_validator("topk_group")
    @classmethod
    def _enough_experts(cls, chosen: int, info: ValidationInfo) -> int:
        groups, experts = info.data.get("n_group"), info.data.get("num_experts")
        visited = info.data.get("num_experts_per_tok")
        if groups is None or experts is None or visited is None:
            return chosen
        if chosen > groups:
            raise ValueError(f"{chosen} of only {groups} groups (n_group)")
        if chosen * (experts // groups) < visited:
            raise ValueError(
                f"{chosen} groups of {experts // groups} experts hold fewer than the {visited} "
                "that a token visits (num_experts_per_tok)"
            )
        return chosen


class LatentAttentionSpec(Spec):
    """Multi-head latent attention (DeepSeek-V2)."""

    q_lora_rank: CountOrZero = 0
    """Rank of the compressed query; 0 means that the query is not compressed."""
    kv_lora_rank: Count
    """Rank of the compressed key and value."""
    qk_nope_head_dim: Count
    """Head size of the part without rotary embedding."""
    qk_rope_head_dim: Count
    """Head size of the rotary part."""
    v_head_dim: Count
    """Head size of the value."""


class TransformerSpec(Spec):
    """A transformer; keys are Hugging Face's where Hugging Face has one."""

    kind: Literal["transformer"] = "transformer"
    """Which form of model this block describes."""
    name: str
    """Name, as shown in reports."""
    family: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    """`decoder`: causal attention, next-token loss; `encoder`: full attention, masked-token loss;
    `encoder-decoder`: a decoder whose layers attend to an encoder's output, too (T5, BART, Whisper)."""
    num_hidden_layers: Count
    """Blocks; of an encoder-decoder those of both stacks, which then follow."""
    num_encoder_layers: Count | None = None
    """Blocks of the encoder of an encoder-decoder."""
    num_decoder_layers: Count | None = Field(default=None, validate_default=True)
    """Blocks of the decoder of an encoder-decoder."""
    hidden_size: Count
    """Width of the residual stream."""
    intermediate_size: Count
    """Width of the MLP."""
    num_attention_heads: Count
    """Query heads."""
    num_key_value_heads: Count
    """Key and value heads; fewer than the query heads in grouped-query attention."""
    head_dim: Count
    """Size of one head."""
    vocab_size: Count
    """Rows of the embedding."""
    max_position_embeddings: Count
    """Longest sequence; rows of the position table where positions are learned."""
    hidden_act: Activation = "gelu"
    """Activation of the MLP."""
    gated_mlp: bool = False
    """Whether the MLP has a gate projection (SwiGLU, GeGLU): three matrices instead of two."""
    norm: Norm = "layernorm"
    """Kind of normalisation."""
    norms_per_layer: Annotated[int, Field(ge=1, le=4)] = 2
    """Norms in one block (4 where sub-layers are normed before and after); attention to an encoder's output
    comes with its own."""
    final_norm: bool = True
    """Whether a norm stands behind the last layer of a stack (or, at the same cost, before the first)."""
    position_embedding: Literal["learned", "rotary", "alibi", "relative", "sinusoidal", "none"] = "learned"
    """How positions enter; `relative`: a bias on the scores, looked up by distance (T5)."""
    relative_attention_num_buckets: CountOrZero = Field(default=0, validate_default=True)
    """Distances that have a bias of their own, with `position_embedding: relative`."""
    num_mel_bins: CountOrZero = 0
    """Bands of a spectrogram that the encoder reads through two convolutions, the second with stride 2, in
    place of an embedding, with sinusoidal positions (Whisper); 0 where it reads tokens."""
    tie_word_embeddings: bool = False
    """Whether the head shares the embedding's matrix."""
    num_nextn_predict_layers: Annotated[CountOrZero, Field(le=64)] = 0
    """Modules behind the last layer that predict tokens further on (multi-token prediction): each has a
    projection of state and embedding, a layer as the last, and embedding and head once more; 64 at most."""
    attention_bias: bool = False
    """Biases on the query, key and value projections."""
    attention_output_bias: bool = False
    """Bias on the attention's output projection."""
    mlp_bias: bool = False
    """Biases in the MLP."""
    qk_norm: bool = False
    """Norms on queries and keys."""
    sliding_window: Count | None = None
    """Tokens that each token attends to, itself and those right before it; all before it if not given."""
    mixture: MixtureSpec | None = None
    """Routed experts, if any."""
    latent_attention: LatentAttentionSpec | None = None
    """Multi-head latent attention, if any."""

    @model_validator(mode="before")
    @classmethod
    def _layers_of_both_stacks(cls, data: Any) -> Any:
        """The number of all layers follows from those of the stacks."""
        if not isinstance(data, dict):
            return data
        stacks = [whole(data.get(key)) for key in ("num_encoder_layers", "num_decoder_layers")]
        if data.get("family") == "encoder-decoder" and None in stacks:
            raise ValueError("an encoder-decoder needs num_encoder_layers and num_decoder_layers")
        if data.get("num_hidden_layers") is not None:
            return data
        if any(isinstance(each, bool) or not isinstance(each, int) for each in stacks):
            return data
        return {**data, "num_hidden_layers": sum(stacks)}

    @field_validator("num_decoder_layers")
    @classmethod
    def _two_stacks(cls, decoder: int | None, info: ValidationInfo) -> int | None:
        if not {"family", "num_hidden_layers", "num_encoder_layers"} <= info.data.keys():
            return decoder
        encoder, total = info.data["num_encoder_layers"], info.data["num_hidden_layers"]
        if info.data["family"] != "encoder-decoder":
            if encoder is not None or decoder is not None:
                raise ValueError("only a model of family: encoder-decoder has two stacks of layers")
        elif encoder + decoder != total:
            raise ValueError(
                f"num_encoder_layers {encoder} + num_decoder_layers {decoder} = {encoder + decoder}, "
                f"but num_hidden_layers is {total}; leave that out, it follows"
            )
        return decoder

    @field_validator("relative_attention_num_buckets")
    @classmethod
    def _buckets_of_relative_positions(cls, buckets: int, info: ValidationInfo) -> int:
        position = info.data.get("position_embedding")
        if position is not None and (position == "relative") != (buckets > 0):
            wanted = "is needed with" if position == "relative" else "does nothing without"
            raise ValueError(f"{wanted} position_embedding: relative; T5 has 32")
        return buckets

    @field_validator("num_mel_bins")
    @classmethod
    def _heard_by_an_encoder(cls, bins: int, info: ValidationInfo) -> int:
        if bins and info.data.get("family") in ("decoder", "encoder"):
            raise ValueError("only the encoder of a model of family: encoder-decoder reads a spectrogram")
        return bins

    @field_validator("sliding_window")
    @classmethod
    def _windows_of_decoders(cls, window: int | None, info: ValidationInfo) -> int | None:
        if window is not None and info.data.get("family") in ("encoder", "encoder-decoder"):
            raise ValueError("a window is modelled for a model of family: decoder only")
        return window

    @field_validator("mixture")
    @classmethod
    def _layers_of_experts(cls, mixture: MixtureSpec | None, info: ValidationInfo) -> MixtureSpec | None:
        layers, family = info.data.get("num_hidden_layers"), info.data.get("family")
        if mixture is None or layers is None or family is None:
            return mixture
        if mixture.encoder_sparse_step is not None and family != "encoder-decoder":
            raise ValueError("encoder_sparse_step is for a model of family: encoder-decoder")
        encoder = info.data.get("num_encoder_layers") or 0
        if not any(_routed(mixture, number, encoder) for number in range(layers)):
            raise ValueError(
                f"no layer of {layers} has experts: first_k_dense_replace {mixture.first_k_dense_replace}, "
                f"decoder_sparse_step {mixture.decoder_sparse_step}"
            )
        return mixture

    @field_validator("latent_attention")
    @classmethod
    def _plain_encoder_decoders(cls, part: Any, info: ValidationInfo) -> Any:
        if part is not None and info.data.get("family") == "encoder-decoder":
            raise ValueError("not modelled in a model of family: encoder-decoder")
        return part

    @field_validator("latent_attention")
    @classmethod
    def _normed_latent_vectors(
        cls, part: LatentAttentionSpec | None, info: ValidationInfo
    ) -> LatentAttentionSpec | None:
        if part is not None and info.data.get("qk_norm"):
            raise ValueError("norms its latent vectors, not queries and keys: leave qk_norm out")
        return part

    @field_validator("num_nextn_predict_layers")
    @classmethod
    def _decoders_look_ahead(cls, modules: int, info: ValidationInfo) -> int:
        if modules and info.data.get("family") != "decoder":
            raise ValueError("only a decoder predicts tokens further on")
        return modules

    @field_validator("num_key_value_heads")
    @classmethod
    def _equal_groups_of_heads(cls, heads: int, info: ValidationInfo) -> int | None:
        return divides(heads, info, "num_attention_heads")

    def has_experts(self, number: int) -> bool:
        """Whether a layer, counted over both stacks, has routed experts."""
        return self.mixture is not None and _routed(self.mixture, number, self.num_encoder_layers or 0)


def _routed(mixture: MixtureSpec, number: int, encoder_layers: int) -> bool:
    step = mixture.decoder_sparse_step
    if number < encoder_layers:
        step = mixture.encoder_sparse_step or step
    else:
        number -= encoder_layers
    return number >= mixture.first_k_dense_replace and (number + 1) % step == 0


ModelSpec = Annotated[TransformerSpec | LayerListSpec, Field(discriminator="kind")]
