"""A model given layer by layer."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from simulator.specs._base import Count, CountOrZero, Spec

Activation = Literal["gelu", "relu", "silu", "squared_relu", "tanh", "sigmoid", "none"]
Norm = Literal["rmsnorm", "layernorm", "batchnorm", "groupnorm"]


def divides(part: int | None, info: ValidationInfo, *wholes: str) -> int | None:
    """Refuse a part that does not divide what it is a part of; a whole that is wrong itself has been told."""
    for name in wholes:
        whole = info.data.get(name)
        if part is not None and whole is not None and whole % part:
            raise ValueError(f"must divide {name}, but {whole} = {whole // part} x {part} + {whole % part}")
    return part


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
        return divides(groups, info, "in_channels", "out_channels")


class PoolingLayer(Spec):
    """The largest or the mean of each window of an image, channel by channel."""

    type: Literal["pooling"]
    """Kind of layer."""
    channels: Count
    """Channels."""
    input_size: Count
    """Side of the square input."""
    output_size: Count = 1
    """Side of the square output; 1 pools the whole image."""

    @field_validator("output_size")
    @classmethod
    def _smaller(cls, side: int, info: ValidationInfo) -> int:
        if side > info.data.get("input_size", side):
            raise ValueError(f"a window cannot make {side} out of {info.data['input_size']} (input_size)")
        return side


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
        return divides(heads, info, "hidden_size")

    @field_validator("num_key_value_heads")
    @classmethod
    def _equal_groups_of_heads(cls, heads: int | None, info: ValidationInfo) -> int | None:
        return divides(heads, info, "num_attention_heads")


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
    | PoolingLayer
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
    """Layers in order; each takes as many numbers as the one before it gives."""

    @field_validator("layers")
    @classmethod
    def _widths_meet(cls, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        for place, (before, after) in enumerate(pairwise(layers)):
            given, taken = _gives(before), _takes(after)
            if taken is not None and taken[0] != given[0]:
                raise ValueError(
                    f"layer {place + 1} ({after.type}) takes {taken[0]:,} ({taken[1]}), but layer {place} "
                    f"({before.type}) gives {given[0]:,} ({given[1]}); {_fix(after, given[0])}"
                )
        return layers


def _takes(layer: Layer) -> tuple[int, str] | None:
    """Numbers of a sample (or token) that a layer takes, and the keys that say so; None for any."""
    match layer:
        case LinearLayer():
            return layer.in_features, "in_features"
        case ConvolutionLayer():
            return layer.in_channels * layer.input_size**2, "in_channels x input_size^2"
        case PoolingLayer():
            return layer.channels * layer.input_size**2, "channels x input_size^2"
        case EmbeddingLayer():
            return None
        case _:
            return _gives(layer)


def _gives(layer: Layer) -> tuple[int, str]:
    """Numbers of a sample (or token) that a layer gives, and the keys that say so."""
    match layer:
        case LinearLayer():
            return layer.out_features, "out_features"
        case EmbeddingLayer():
            return layer.embedding_dim, "embedding_dim"
        case ConvolutionLayer():
            side = (layer.input_size + 2 * layer.padding - layer.kernel_size) // layer.stride + 1
            return layer.out_channels * side**2, f"out_channels x {side}^2"
        case PoolingLayer():
            return layer.channels * layer.output_size**2, "channels x output_size^2"
        case AttentionLayer():
            return layer.hidden_size, "hidden_size"
        case NormLayer():
            return layer.features * layer.positions, "features x positions"
        case _:
            return layer.features, "features"


def _fix(layer: Layer, given: int) -> str:
    """The one key of a layer that would make it fit, and its value."""
    match layer:
        case LinearLayer():
            return f"in_features: {given} would fit"
        case AttentionLayer():
            return f"hidden_size: {given} would fit"
        case NormLayer() if given % layer.features == 0:
            return f"positions: {given // layer.features} would fit"
        case ConvolutionLayer() if given % layer.input_size**2 == 0:
            return f"in_channels: {given // layer.input_size**2} would fit"
        case PoolingLayer() if given % layer.input_size**2 == 0:
            return f"channels: {given // layer.input_size**2} would fit"
        case ActivationLayer() | LossLayer() | NormLayer():
            return f"features: {given} would fit"
        case _:
            return "no single key of it makes them meet"
