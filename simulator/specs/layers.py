"""Layers of a model that is given layer by layer: what each of them says of itself.

What a layer takes follows from what the one before it gives (`shapes`), so keys of a layer's input may be
left out; those that are given are checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

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


def _each(value: Any) -> Any:
    """One number for all dimensions, or a list with one for each."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


_NUMBER_OR_LIST = {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]}
_ONE_OR_EACH = (BeforeValidator(_each), Field(min_length=1, max_length=3), WithJsonSchema(_NUMBER_OR_LIST))

Sizes = Annotated[tuple[Count, ...], *_ONE_OR_EACH]
"""A size along each dimension; one number stands for all."""
SizesOrZero = Annotated[tuple[CountOrZero, ...], *_ONE_OR_EACH]


class LinearLayer(Spec):
    """Fully connected layer."""

    type: Literal["linear"]
    """Kind of layer."""
    in_features: Count | None = None
    """Input width: the channels of each position, or all numbers of what has positions."""
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
    """Normalisation over the features, the positions or the batch."""

    type: Literal["norm"]
    """Kind of layer."""
    features: Count | None = None
    """Width (or channels)."""
    positions: Count | None = None
    """Positions per sample that are normed (height x width for images)."""
    norm: Norm | Literal["instancenorm"] = "layernorm"
    """Kind."""
    synchronized: bool = False
    """Whether a batch norm takes its statistics over all replicas."""

    @field_validator("synchronized")
    @classmethod
    def _statistics_of_a_batch(cls, synchronized: bool, info: ValidationInfo) -> bool:
        if synchronized and info.data.get("norm", "batchnorm") != "batchnorm":
            raise ValueError(f"does nothing for {info.data['norm']}, whose statistics are of one sample")
        return synchronized


class ActivationLayer(Spec):
    """Element-wise function."""

    type: Literal["activation"]
    """Kind of layer."""
    features: Count | None = None
    """Elements per sample and token."""
    function: Activation = "relu"
    """Which function."""


class ConvolutionLayer(Spec):
    """Convolution in one, two or three dimensions, computed as a matrix multiplication."""

    type: Literal["convolution"]
    """Kind of layer."""
    in_channels: Count | None = None
    """Input channels."""
    out_channels: Count
    """Output channels."""
    kernel_size: Sizes
    """Sides of the kernel; here and below one number is for all dimensions, a list has one for each."""
    input_size: Sizes | None = None
    """Sides of the input; one number alone is a square."""
    stride: Sizes = (1,)
    """Stride; of a transposed convolution, by how much the output is larger."""
    padding: SizesOrZero = (0,)
    """Padding on each side."""
    dilation: Sizes = (1,)
    """Distance of the kernel's elements in the input."""
    groups: Count = 1
    """Groups; equal to the channels in a depthwise convolution."""
    transposed: bool = False
    """Whether it is the gradient of a convolution the other way (up-convolution)."""
    bias: bool = False
    """Whether a bias is added."""


class PoolingLayer(Spec):
    """The largest or the mean of each window, channel by channel."""

    type: Literal["pooling"]
    """Kind of layer."""
    channels: Count | None = None
    """Channels."""
    input_size: Sizes | None = None
    """Sides of the input."""
    output_size: Sizes | None = None
    """Sides of the output; 1, which pools all positions, without it and `kernel_size`."""
    kernel_size: Sizes | None = None
    """Sides of the window, in place of `output_size`."""
    stride: Sizes | None = None
    """Distance of windows; `kernel_size` if not given."""
    padding: SizesOrZero = (0,)
    """Padding on each side, with `kernel_size`."""
    function: Literal["max", "mean"] = "max"
    """What is taken of a window."""


class UpsamplingLayer(Spec):
    """Positions repeated or interpolated."""

    type: Literal["upsampling"]
    """Kind of layer."""
    factor: Sizes = (2,)
    """By how much each dimension grows."""


class DropoutLayer(Spec):
    """Elements set to zero at random, with a byte of mask each."""

    type: Literal["dropout"]
    """Kind of layer."""


class MaskLayer(Spec):
    """Positions behind the end of samples that are shorter than the longest, set to zero."""

    type: Literal["mask"]
    """Kind of layer."""


class StackLayer(Spec):
    """Neighbouring positions side by side as channels (frames of a spectrogram)."""

    type: Literal["stack"]
    """Kind of layer."""
    factor: Sizes = (2,)
    """Positions along each dimension that become one; what is left over is cut off."""


class InputLayer(Spec):
    """Another input of the model, with which a `shortcut` begins: text beside speech."""

    type: Literal["input"]
    """Kind of layer."""
    shape: Annotated[tuple[Count, ...], BeforeValidator(_each), Field(min_length=1, max_length=4)]
    """Channels, then sides, as `input` of the model has them; `[1, 50]` for 50 tokens to look up."""


class RecurrentLayer(Spec):
    """Long short-term memory or gated recurrent units along the positions (or tokens) of a sample."""

    type: Literal["lstm", "gru"]
    """Kind of layer."""
    hidden_size: Count
    """Width."""
    num_layers: Count = 1
    """Layers, one above the other."""
    bidirectional: bool = False
    """Whether each goes along the sequence both ways, and gives both outputs side by side."""


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
    features: Count | None = None
    """Outputs per sample and token."""
    function: Literal["mse", "smooth_l1", "cross_entropy", "ctc", "transducer"] = "cross_entropy"
    """Which loss."""


class BlockLayer(Spec):
    """Layers that belong together: repeated, or with a way around them."""

    type: Literal["block"]
    """Kind of layer."""
    repeat: Count = 1
    """How often the block stands, one behind the other."""
    layers: tuple[Layer, ...] = Field(min_length=1)
    """Layers in order."""
    shortcut: tuple[Layer, ...] | None = None
    """Layers of a second way from the block's input, whose output joins that of `layers`; `[]` is the input
    itself (a residual block). No second way if not given."""
    join: Literal["sum", "concatenate", "outer_sum", "scale"] = "sum"
    """How both meet; `concatenate` puts their channels side by side; `outer_sum` adds each position of the
    one to each of the other; `scale` multiplies channels of the shortcut by what `layers` give, which has one
    position (squeeze and excitation)."""
    dense: bool = False
    """Whether the inputs of all dense blocks before it join, too, each through a `shortcut` of its own."""


class SideLayer(Spec):
    """Layers beside the others that end in a loss (a detector's head); their input goes on as it is."""

    type: Literal["side"]
    """Kind of layer."""
    layers: tuple[Layer, ...] = Field(min_length=1)
    """Layers in order, the last a loss."""


Layer = Annotated[
    LinearLayer
    | EmbeddingLayer
    | NormLayer
    | ActivationLayer
    | ConvolutionLayer
    | PoolingLayer
    | UpsamplingLayer
    | DropoutLayer
    | MaskLayer
    | StackLayer
    | InputLayer
    | RecurrentLayer
    | AttentionLayer
    | LossLayer
    | BlockLayer
    | SideLayer,
    Field(discriminator="type"),
]

BlockLayer.model_rebuild()
SideLayer.model_rebuild()
