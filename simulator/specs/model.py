"""What is trained: a transformer in Hugging Face's words, or a list of layers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from simulator.specs._base import Count, CountOrZero, Spec

Activation = Literal["gelu", "relu", "silu", "squared_relu", "tanh", "sigmoid", "none"]
Norm = Literal["rmsnorm", "layernorm", "batchnorm", "groupnorm"]


def _divides(part: int | None, info: ValidationInfo, *wholes: str) -> int | None:
    """Refuse a part that does not divide what it is a part of; a whole that is wrong itself has been told."""
    for name in wholes:
        whole = info.data.get(name)
        if part is not None and whole is not None and whole % part:
            raise ValueError(f"must divide {name}, but {whole} = {whole // part} x {part} + {whole % part}")
    return part


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
    """Leading layers that keep a dense MLP of `intermediate_size`."""

    @field_validator("num_experts_per_tok")
    @classmethod
    def _no_more_than_there_are(cls, visited: int, info: ValidationInfo) -> int:
        if visited > info.data.get("num_experts", visited):
            raise ValueError(f"{visited} of only {info.data['num_experts']} experts (num_experts)")
        return visited


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
    family: Literal["decoder", "encoder"] = "decoder"
    """`decoder`: causal attention, next-token loss; `encoder`: full attention, masked-token loss."""
    num_hidden_layers: Count
    """Blocks."""
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
    """Norms in one block (4 where sub-layers are normed before and after)."""
    position_embedding: Literal["learned", "rotary", "alibi", "relative", "sinusoidal", "none"] = "learned"
    """How positions enter."""
    tie_word_embeddings: bool = False
    """Whether the head shares the embedding's matrix."""
    attention_bias: bool = False
    """Biases on the query, key and value projections."""
    attention_output_bias: bool = False
    """Bias on the attention's output projection."""
    mlp_bias: bool = False
    """Biases in the MLP."""
    qk_norm: bool = False
    """Norms on queries and keys."""
    sliding_window: Count | None = None
    """Attention window of the local layers."""
    mixture: MixtureSpec | None = None
    """Routed experts, if any."""
    latent_attention: LatentAttentionSpec | None = None
    """Multi-head latent attention, if any."""

    @field_validator("num_key_value_heads")
    @classmethod
    def _equal_groups_of_heads(cls, heads: int, info: ValidationInfo) -> int | None:
        return _divides(heads, info, "num_attention_heads")


class LinearLayer(Spec):
    """Fully connected layer."""

    type: Literal["linear"]
    """Kind of layer."""
    in_features: Count
    """Input width."""
    out_features: Count
    """Output width."""
    bias: bool = True
    """Whether a bias is added."""


class EmbeddingLayer(Spec):
    """Table look-up."""

    type: Literal["embedding"]
    """Kind of layer."""
    num_embeddings: Count
    """Rows."""
    embedding_dim: Count
    """Width."""


class NormLayer(Spec):
    """Normalisation over the features."""

    type: Literal["norm"]
    """Kind of layer."""
    features: Count
    """Width (or channels)."""
    positions: Count = 1
    """Positions per sample that are normed (height x width for images)."""
    norm: Norm = "layernorm"
    """Kind."""


class ActivationLayer(Spec):
    """Element-wise function."""

    type: Literal["activation"]
    """Kind of layer."""
    features: Count
    """Elements per sample and token."""
    function: Activation = "relu"
    """Which function."""


class ConvolutionLayer(Spec):
    """Two-dimensional convolution, computed as a matrix multiplication."""

    type: Literal["convolution"]
    """Kind of layer."""
    in_channels: Count
    """Input channels."""
    out_channels: Count
    """Output channels."""
    kernel_size: Count
    """Side of the square kernel."""
    input_size: Count
    """Side of the square input."""
    stride: Count = 1
    """Stride."""
    padding: CountOrZero = Field(default=0, validate_default=True)
    """Padding on each side."""
    groups: Count = 1
    """Groups; equal to the channels in a depthwise convolution."""
    bias: bool = False
    """Whether a bias is added."""

    @field_validator("padding")
    @classmethod
    def _kernel_fits(cls, padding: int, info: ValidationInfo) -> int:
        kernel, side = info.data.get("kernel_size"), info.data.get("input_size")
        if kernel is not None and side is not None and kernel > side + 2 * padding:
            raise ValueError(f"a kernel of {kernel} does not fit an input of {side} + 2 x {padding}")
        return padding

    @field_validator("groups")
    @classmethod
    def _equal_groups_of_channels(cls, groups: int, info: ValidationInfo) -> int | None:
        return _divides(groups, info, "in_channels", "out_channels")


class AttentionLayer(Spec):
    """Multi-head attention with its projections."""

    type: Literal["attention"]
    """Kind of layer."""
    hidden_size: Count
    """Width."""
    num_attention_heads: Count
    """Query heads."""
    num_key_value_heads: Count | None = None
    """Key and value heads; as many as query heads if not given."""
    causal: bool = False
    """Whether a token sees only what stands before it."""
    bias: bool = True
    """Biases on the projections."""

    @field_validator("num_attention_heads")
    @classmethod
    def _equal_heads(cls, heads: int, info: ValidationInfo) -> int | None:
        return _divides(heads, info, "hidden_size")

    @field_validator("num_key_value_heads")
    @classmethod
    def _equal_groups_of_heads(cls, heads: int | None, info: ValidationInfo) -> int | None:
        return _divides(heads, info, "num_attention_heads")


class LossLayer(Spec):
    """What training minimises."""

    type: Literal["loss"]
    """Kind of layer."""
    features: Count
    """Outputs per sample and token."""
    function: Literal["mse", "cross_entropy"] = "cross_entropy"
    """Which loss."""


Layer = Annotated[
    LinearLayer
    | EmbeddingLayer
    | NormLayer
    | ActivationLayer
    | ConvolutionLayer
    | AttentionLayer
    | LossLayer,
    Field(discriminator="type"),
]


class LayerListSpec(Spec):
    """A model given layer by layer; linear, norm and activation layers act on every token of a sample."""

    kind: Literal["layers"] = "layers"
    """Which form of model this block describes."""
    name: str
    """Name, as shown in reports."""
    layers: tuple[Layer, ...] = Field(min_length=1)
    """Layers in order."""


ModelSpec = Annotated[TransformerSpec | LayerListSpec, Field(discriminator="kind")]
