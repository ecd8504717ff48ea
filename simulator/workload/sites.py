"""A layer of a list at work: what it reads, writes and keeps, and products with their gradients."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil
from typing import Final

from simulator.specs.fits import Shape
from simulator.specs.layers import Layer
from simulator.workload import chains
from simulator.workload.blocks import Block, PassBuilder, Shard
from simulator.workload.kernels import Kernel, KernelKind, MatmulShape
from simulator.workload.operators import pointwise
from simulator.workload.weights import add_weight

_DIRECT: Final = {"": 16, ".input_gradient": 19, ".weight_gradient": 46}
"""Instructions for each multiply-add of direct depthwise kernels, by what they compute: two loads with their
addresses, conversions and the bounds of both sides; for the gradient of the weight a division by the width.

Source: counted in conv_depthwise2d_forward_kernel, _backward_kernel and _grad_weight_kernel of PyTorch 1.9,
    aten/src/ATen/native/cuda/DepthwiseConv2d.cu; an unsigned division by a variable is some 20 instructions.
Valid: to a fifth, as compilers arrange them.
"""

_NO_MATRIX_UNITS: Final = ("fp32", "fp64")
"""Precisions whose products need no particular order of channels and positions."""


@dataclass(eq=False, slots=True)
class Tensor:
    """What layers hand on.

    Attributes:
        elements: Numbers of it on this GPU.
        flows: Whether its gradient is wanted.
        kept: Whether a layer keeps it for its backward pass already.
        convolved: Whether a convolution on the matrix units writes it.
    """

    elements: int
    flows: bool
    kept: bool = False
    convolved: bool = False


@dataclass(slots=True)
class Site:
    """A layer at work.

    Attributes:
        name: Its name.
        layer: What it is.
        takes: Shape that it takes.
        gives: Shape that it gives.
        shard: One GPU's part of the micro-batch.
        x: What it reads.
        y: What it writes.
        trains: Whether its parameters are trained.
        live: Whether it has a backward pass.
        joined: What a norm adds before the activation that is fused with it.
        activated: Whether an activation is fused with it.
        forward: Nodes of the forward pass.
        backward: Nodes of the backward pass.
    """

    name: str
    layer: Layer
    takes: Shape
    gives: Shape
    shard: Shard
    x: Tensor
    y: Tensor
    trains: bool
    live: bool
    joined: Tensor | None = None
    activated: bool = False
    forward: PassBuilder = field(default_factory=PassBuilder)
    backward: PassBuilder = field(default_factory=PassBuilder)

    @property
    def samples(self) -> int:
        """Samples (times tokens) of the micro-batch."""
        return self.shard.tokens

    @property
    def element(self) -> int:
        """Bytes of an element."""
        return self.shard.element_bytes

    def keep(self, *tensors: Tensor) -> int:
        """Bytes that come to stay so that the backward pass finds some tensors; none that is kept already."""
        if not self.live:
            return 0
        new = [tensor for tensor in tensors if not tensor.kept]
        for tensor in new:
            tensor.kept = True
        return sum(tensor.elements for tensor in new) * self.element

    def add(
        self,
        suffix: str,
        kind: KernelKind,
        elements: int,
        reads: float,
        writes: float,
        flops: int,
        kept: int = 0,
    ) -> None:
        """A memory-bound kernel; one whose name ends in ``gradient`` belongs to the backward pass."""
        back = suffix.startswith(".gradient")
        kernel = pointwise(self.name + suffix, kind, elements, reads=reads, writes=writes, flops=flops)
        (self.backward if back else self.forward).add(kernel, kept=kept)

    def block(self, parameters: int, beside: int) -> Block:
        """The finished block; what it keeps, its last backward node frees.

        Args:
            parameters: Its parameters.
            beside: Gradients that wait meanwhile for layers on other ways [B].
        """
        nodes = list(self.backward.nodes) if self.live else []
        kept = sum(node.kept_bytes for node in self.forward.nodes)
        if nodes:
            nodes[-1] = replace(nodes[-1], freed_bytes=kept)
        fixed = parameters if not self.trains else 0
        inputs, outputs = self.x.elements * self.element, self.y.elements * self.element
        return Block(
            self.name,
            self.forward.done(),
            tuple(nodes),
            parameters,
            inputs,
            frozen_parameters=fixed,
            carried_bytes=outputs + beside,
        )


@dataclass(frozen=True, slots=True)
class Product:
    """Inputs times weights, and the two products of the backward pass.

    Attributes:
        kind: ``matmul`` or ``convolution``; ``depthwise`` for one that leaves the matrix units alone.
        flops: Arithmetic of each of the three, as the model needs it [FLOP].
        forward: Shape of the product.
        input_gradient: That of the gradient of its input.
        weight_gradient: That of the gradient of its weight.
        inputs: Elements of the input; windows are read out of it, not out of a copy.
        weights: Elements of the weight.
        outputs: Elements of the output.
    """

    kind: KernelKind
    flops: int
    forward: MatmulShape
    input_gradient: MatmulShape
    weight_gradient: MatmulShape
    inputs: int
    weights: int
    outputs: int


def plain_product(m: int, n: int, k: int) -> Product:
    """[m, k] times [k, n]."""
    shapes = MatmulShape(m, n, k), MatmulShape(m, k, n), MatmulShape(k, n, m)
    return Product("matmul", 2 * m * n * k, *shapes, inputs=m * k, weights=n * k, outputs=m * n)


def add_forward(site: Site, product: Product, *, name: str = "", bias: bool = False, kept: int = 0) -> None:
    """The product, with the cast of its weight, orders that its operands are brought into, and its bias."""
    name, shard, element = name or site.name, site.shard, site.element
    add_weight(site.forward, name, product.weights, shard, matrix=False, keeps=site.live and site.x.flows)
    elements = product.inputs, product.weights, product.outputs
    _add_layout(site.forward, name, product, elements, shard)
    read, written = (product.inputs + product.weights) * element, product.outputs * element
    site.forward.add(_kernel(name, "", product, product.forward, read, written, shard), kept=kept)
    site.forward.add(chains.linear_bias(name, product.outputs, bias, shard))


def add_backward(site: Site, product: Product, *, name: str = "", bias: bool = False, flows: bool) -> None:
    """Gradients of a product's input, where it `flows`, and of its weight, where that is trained."""
    name, shard, element = name or site.name, site.shard, site.element
    into = site.backward
    if flows:
        add_weight(into, name, product.weights, shard, backward=True, matrix=False)
        elements = product.outputs, product.weights, product.inputs
        _add_layout(into, f"{name}.input_gradient", product, elements, shard)
        read, written = (product.outputs + product.weights) * element, product.inputs * element
        shape = product.input_gradient
        into.add(_kernel(name, ".input_gradient", product, shape, read, written, shard))
    if not site.trains:
        return
    into.add(chains.bias_gradient(name, product.outputs, bias, shard))
    elements = product.outputs, product.inputs, product.weights
    _add_layout(into, f"{name}.weight_gradient", product, elements, shard)
    gradient = product.weights * shard.gradient_bytes
    read = (product.outputs + product.inputs) * element + gradient
    shape = product.weight_gradient
    kernel = _kernel(name, ".weight_gradient", product, shape, read, gradient, shard)
    into.add(kernel, role="weight_gradient")


def _kernel(
    name: str, suffix: str, product: Product, shape: MatmulShape, read: int, written: int, shard: Shard
) -> Kernel:
    on_vectors = product.kind == "depthwise"
    direct = on_vectors and shard.software.depthwise_kernels == "direct"
    return Kernel(
        name=name + suffix,
        kind=product.kind,
        flops=product.flops if on_vectors else 2 * shape.m * shape.n * shape.k * shape.batch,
        read_bytes=read,
        write_bytes=written,
        precision="fp32" if on_vectors else shard.precision,
        shape=None if on_vectors else shape,
        model_flops=product.flops,
        instructions=product.flops // 2 * _DIRECT[suffix] if direct else 0,
    )


def _add_layout(
    into: PassBuilder, name: str, product: Product, elements: tuple[int, ...], shard: Shard
) -> None:
    """Operands and result brought from channels-first into channels-last order, or back, by the library.

    Matrix units multiply channels that lie side by side; a framework that keeps its tensors channels-first
    has the library convert them around each convolution. It is part of the convolution's launch.

    Source: NVIDIA, "Convolutional Layers User's Guide", section on tensor layouts.
    """
    software = shard.software
    if product.kind != "convolution" or software.convolution_layout == "channels_last":
        return
    if shard.precision in _NO_MATRIX_UNITS:
        return
    element, whole = shard.element_bytes, sum(elements)
    kernel = pointwise(
        f"{name}.layout", "elementwise", whole, reads=element, writes=element, flops=0, launches=0
    )
    into.add(kernel)


def aligned(channels: int, shard: Shard) -> int:
    """Channels as the matrix units see them: a multiple of 16 bytes, four where there are no more.

    Source: NVIDIA, "Convolutional Layers User's Guide", sections on channels in and out and on kernels for
        the first layer.
    """
    if shard.precision in _NO_MATRIX_UNITS:
        return channels
    multiple = 4 if channels <= 4 else 16 // shard.element_bytes
    return ceil(channels / multiple) * multiple
