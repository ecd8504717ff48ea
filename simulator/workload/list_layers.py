"""Layers of a list as kernels: what each kind does in its passes, and what it keeps for the backward one."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Final

from simulator.specs.fits import spread
from simulator.specs.layers import (
    ActivationLayer,
    AttentionLayer,
    ConvolutionLayer,
    DropoutLayer,
    EmbeddingLayer,
    LinearLayer,
    LossLayer,
    MaskLayer,
    NormLayer,
    PoolingLayer,
    RecurrentLayer,
    StackLayer,
    UpsamplingLayer,
)
from simulator.workload import operators
from simulator.workload.kernels import Communication, MatmulShape
from simulator.workload.recurrent import recurrent
from simulator.workload.sites import Product, Site, add_backward, add_forward, aligned, plain_product

_OF_OUTPUT: Final = ("relu", "tanh", "sigmoid")
"""Activations whose gradient follows from their output, which the next layer keeps in most cases."""

_OVER_A_BATCH: Final = ("batchnorm", "instancenorm", "groupnorm")
"""Norms whose statistics are of more than one position: their input is read once for these, and once more."""

_LOSS_FLOPS: Final = {"mse": 3, "smooth_l1": 4, "cross_entropy": 8, "ctc": 16, "transducer": 16}
"""Arithmetic of a loss per element; of CTC and transducers both recursions over the labels, besides the
softmax."""


def linear(site: Site, layer: LinearLayer) -> None:
    """A product over all positions."""
    product = plain_product(site.samples * site.takes.places, site.gives.channels, site.takes.channels)
    add_forward(site, product, bias=layer.bias, kept=site.keep(site.x) if site.trains else 0)
    add_backward(site, product, bias=layer.bias, flows=site.x.flows)


def convolution(site: Site, layer: ConvolutionLayer) -> None:
    """A convolution as products whose windows are read in place."""
    product = convolved(site, layer)
    add_forward(site, product, bias=layer.bias, kept=site.keep(site.x) if site.trains else 0)
    add_backward(site, product, bias=layer.bias, flows=site.x.flows)


def convolved(site: Site, layer: ConvolutionLayer) -> Product:
    """The products of a convolution of n samples, C channels at P positions into K at Q, with T taps.

    | | rows | columns | inner |
    |---|---|---|---|
    | forward | n Q | K | T C |
    | gradient of the input | n P | C | T K, of which each input meets Q / P |
    | gradient of the weight | T C | K | n Q |

    each for a group, channels in multiples of what the matrix units take (`aligned`). A transposed
    convolution is the gradient of one that goes the other way.

    Source: NVIDIA, "Convolutional Layers User's Guide", table of dimensions of equivalent products.
    """
    taken, given = (site.gives, site.takes) if layer.transposed else (site.takes, site.gives)
    n, groups = site.samples, layer.groups
    taps = prod(spread(layer.kernel_size, len(taken.positions)))
    ins, outs = taken.channels // groups, given.channels // groups
    wide_in, wide_out = aligned(ins, site.shard), aligned(outs, site.shard)
    met = -(-taps * wide_out * given.places // taken.places)
    forward = MatmulShape(n * given.places, outs, taps * wide_in, groups)
    back = MatmulShape(n * taken.places, ins, met, groups)
    weight = MatmulShape(taps * wide_in, outs, n * given.places, groups)
    if _filtered_minimally(site, layer):
        tiles, before = (n * prod(-(-side // 2) for side in shape.positions) for shape in (given, taken))
        forward, back = MatmulShape(tiles, outs, ins, 16), MatmulShape(before, ins, outs, 16)
        weight = MatmulShape(ins, outs, tiles, 16)
    if layer.transposed:
        forward, back = back, forward
    return Product(
        "depthwise" if ins == outs == 1 else "convolution",
        2 * n * given.places * given.channels * ins * taps,
        forward,
        back,
        weight,
        inputs=site.x.elements,
        weights=taps * ins * given.channels,
        outputs=site.y.elements,
    )


def _filtered_minimally(site: Site, layer: ConvolutionLayer) -> bool:
    """Whether a convolution is done by Winograd's minimal filtering, F(2 x 2, 3 x 3).

    Four outputs take 16 products instead of 36: 2.25 times less arithmetic, as 16 products of matrices over
    tiles of 2 x 2. Libraries do so where products run on the vector units; on matrix units the transforms
    would take longer than what they save.

    Source: Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308.
    """
    plain = layer.groups == 1 and not layer.transposed and len(site.takes.positions) == 2
    steps = all(step == 1 for step in (*layer.stride, *layer.dilation))
    return plain and steps and set(layer.kernel_size) == {3} and site.shard.precision == "fp32"


def embedding(site: Site, layer: EmbeddingLayer) -> None:
    """Rows looked up, and their gradients added to those of the table."""
    del layer
    elements, element, gradient = site.y.elements, site.element, site.shard.gradient_bytes
    site.add("", "embedding", elements, element, element, 1)
    if site.trains:
        site.add(".gradient", "embedding", elements, element + gradient, gradient, 1)


def norm(site: Site, layer: NormLayer) -> None:
    """A norm; over more than a position it reads its input for the statistics and again to apply them.

    Backward the same: input and gradient are read for two sums, and again for the gradient of the input.
    Fused with an activation, and with a sum before that, its output is theirs, and a bit of mask an element
    is kept. Where the convolution before has summed the statistics, the input is read once.

    Source: Jung et al., Restructuring Batch Normalization to Accelerate CNN Training, arXiv:1807.01702;
        cuDNN, ``CUDNN_BATCHNORM_OPS_BN_ADD_ACTIVATION``.
    """
    e, elements, flops = site.element, site.x.elements, operators.NORM_FLOPS
    if layer.norm not in _OVER_A_BATCH:
        site.add("", "norm", elements, e, e, flops, kept=site.keep(site.x))
        site.add(".gradient", "norm", elements, 2 * e, e, 2 * flops)
        return
    mask = site.activated / 8
    joined = site.joined
    kept = site.keep(site.x) + int(elements * mask) * site.live
    statistics = 2 * site.takes.channels * 4 * site.live
    added = e * (joined is not None)
    handed = e * (joined is not None and joined.flows)
    summed = layer.norm == "batchnorm" and site.x.convolved and site.shard.software.fused_norm_statistics
    if not layer.synchronized:
        site.add("", "norm", elements, (2 - summed) * e + added, e + mask, flops, kept=kept + statistics)
        site.add(".gradient", "norm", elements, 4 * e + 2 * mask, e + handed, 2 * flops)
        return
    site.add(".statistics", "norm", elements, 0 if summed else e, 0, flops // 2, kept=kept + statistics)
    site.forward.add(_shared(site, ""))
    site.add("", "norm", elements, e + added, e + mask, flops // 2)
    site.add(".gradient.sums", "norm", elements, 2 * e + mask, 0, flops)
    site.backward.add(_shared(site, ".gradient"))
    site.add(".gradient", "norm", elements, 2 * e + mask, e + handed, flops)


def _shared(site: Site, suffix: str) -> Communication:
    """Two fp32 sums a channel, over all replicas."""
    size = 2 * 4 * site.takes.channels
    return Communication(f"{site.name}{suffix}.all_reduce", "all_reduce", "data", size)


def activation(site: Site, layer: ActivationLayer) -> None:
    """An element-wise function; it keeps what its gradient is made of, input or output."""
    e, flops = site.element, operators.POINTWISE_FLOPS[layer.function]
    kept = 0 if layer.function == "none" else site.keep(site.y if layer.function in _OF_OUTPUT else site.x)
    site.add("", "activation", site.x.elements, e, e, flops, kept=kept)
    site.add(".gradient", "activation", site.x.elements, 2 * e, e, 2 * flops)


def pooling(site: Site, layer: PoolingLayer) -> None:
    """Each input is read once; gradients of outputs go back to the largest inputs, or evenly to all."""
    e, inputs, outputs = site.element, site.x.elements, site.y.elements
    largest = layer.function == "max"
    kept = site.keep(site.x, site.y) if largest else 0
    site.add("", "elementwise", inputs, e, e * outputs / inputs, 1, kept=kept)
    reads = e * ((1 + largest) * outputs / inputs + largest)
    site.add(".gradient", "elementwise", inputs, reads, e, 1)


def upsampling(site: Site, layer: UpsamplingLayer) -> None:
    """Each input is read once and written several times."""
    del layer
    e, share = site.element, site.x.elements / site.y.elements
    site.add("", "elementwise", site.y.elements, e * share, e, 1)
    site.add(".gradient", "elementwise", site.y.elements, e, e * share, 1)


def dropout(site: Site, layer: DropoutLayer) -> None:
    """A byte of mask an element is written, kept, and read again."""
    del layer
    e, elements = site.element, site.x.elements
    site.add("", "elementwise", elements, e, e + 1, 3, kept=elements * site.live)
    site.add(".gradient", "elementwise", elements, e + 1, e, 1)


def mask(site: Site, layer: MaskLayer) -> None:
    """All is copied, and some of it set to zero; the mask follows from the lengths."""
    del layer
    e = site.element
    site.add("", "elementwise", site.x.elements, e, e, 1)
    site.add(".gradient", "elementwise", site.x.elements, e, e, 1)


def stack(site: Site, layer: StackLayer) -> None:
    """All is copied into another order, and its gradient back."""
    del layer
    e = site.element
    site.add("", "elementwise", site.y.elements, e, e, 0)
    site.add(".gradient", "elementwise", site.y.elements, e, e, 0)


def attention(site: Site, layer: AttentionLayer) -> None:
    """Queries, keys and values, fused attention over the tokens of a sample, and the projection behind it."""
    key_heads = layer.num_key_value_heads or layer.num_attention_heads
    head, width, tokens = layer.hidden_size // layer.num_attention_heads, layer.hidden_size, site.samples
    columns = width + 2 * key_heads * head
    into, out = plain_product(tokens, columns, width), plain_product(tokens, width, width)
    sizes: dict[str, Any] = {
        "batch": site.shard.micro_batch_size,
        "heads": layer.num_attention_heads,
        "kv_heads": key_heads,
        "query_length": site.shard.sequence_length,
        "key_length": site.shard.sequence_length,
        "head_dim": head,
        "causal": layer.causal,
        "precision": site.shard.precision,
    }
    read = site.keep(site.x) if site.trains else 0
    made, attended = (elements * site.element * site.live for elements in (tokens * columns, tokens * width))
    names = f"{site.name}.qkv", f"{site.name}.core", f"{site.name}.output"
    add_forward(site, into, name=names[0], bias=layer.bias, kept=read)
    site.forward.add(operators.fused_attention(names[1], **sizes), kept=made)
    add_forward(site, out, name=names[2], bias=layer.bias, kept=attended if site.trains else 0)
    add_backward(site, out, name=names[2], bias=layer.bias, flows=True)
    site.backward.add(operators.fused_attention(f"{names[1]}.gradient", backward=True, **sizes))
    add_backward(site, into, name=names[0], bias=layer.bias, flows=site.x.flows)


def loss(site: Site, layer: LossLayer) -> None:
    """Computed and kept in fp32."""
    elements, element = site.x.elements, site.element
    kept = 4 * elements * site.live
    site.add("", "loss", elements, element + 4, 4, _LOSS_FLOPS[layer.function], kept=kept)
    site.add(".gradient", "loss", elements, 4, element, 2)


BUILDERS: Final[dict[type, Callable[[Site, Any], None]]] = {
    LinearLayer: linear,
    ConvolutionLayer: convolution,
    EmbeddingLayer: embedding,
    NormLayer: norm,
    ActivationLayer: activation,
    PoolingLayer: pooling,
    UpsamplingLayer: upsampling,
    DropoutLayer: dropout,
    MaskLayer: mask,
    StackLayer: stack,
    RecurrentLayer: recurrent,
    AttentionLayer: attention,
    LossLayer: loss,
}
"""What builds each kind of layer."""
