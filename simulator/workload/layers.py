"""A model given layer by layer: each layer as a block with its forward and backward pass on one GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.specs.model import (
    ActivationLayer,
    AttentionLayer,
    ConvolutionLayer,
    EmbeddingLayer,
    LayerListSpec,
    LinearLayer,
    LossLayer,
    NormLayer,
    PoolingLayer,
)
from simulator.workload import operators
from simulator.workload.blocks import Block, PassBuilder, Shard
from simulator.workload.frozen import frozen
from simulator.workload.kernels import Kernel, KernelKind, MatmulShape
from simulator.workload.weights import add_weight, kept_weight


def layer_list_blocks(
    model: LayerListSpec, shard: Shard, untrained: frozenset[str] = frozenset()
) -> list[Block]:
    """One block a layer, in order; the first that is trained needs no gradient of its input.

    Args:
        model: The layers.
        shard: One GPU's part of the micro-batch.
        untrained: Names of layers whose parameters are not trained.
    """
    blocks: list[Block] = []
    needs_input_gradient = False
    for position, layer in enumerate(model.layers):
        build, name = _BUILDERS[type(layer)], f"{position}.{layer.type}"
        fixed = f"layers.{name}" in untrained
        own = replace(shard, frozen=frozenset({name})) if fixed else shard
        block = build(layer, own, name, needs_input_gradient)
        if fixed:
            block = replace(block, frozen_parameters=block.parameters)
        trained = block.parameters > block.frozen_parameters
        needs_input_gradient = needs_input_gradient or trained
        blocks.append(block if needs_input_gradient else frozen(block))
    return blocks


def _linear(layer: LinearLayer, shard: Shard, name: str, propagate: bool) -> Block:
    return _dense(
        name,
        "matmul",
        MatmulShape(shard.tokens, layer.out_features, layer.in_features),
        shard,
        parameters=layer.in_features * layer.out_features + layer.out_features * layer.bias,
        input_elements=shard.tokens * layer.in_features,
        propagate=propagate,
    )


def _convolution(layer: ConvolutionLayer, shard: Shard, name: str, propagate: bool) -> Block:
    side = (layer.input_size + 2 * layer.padding - layer.kernel_size) // layer.stride + 1
    window = layer.kernel_size**2 * layer.in_channels // layer.groups
    return _dense(
        name,
        "convolution",
        MatmulShape(shard.tokens * side * side, layer.out_channels // layer.groups, window, layer.groups),
        shard,
        parameters=window * layer.out_channels + layer.out_channels * layer.bias,
        input_elements=shard.tokens * layer.in_channels * layer.input_size**2,
        propagate=propagate,
    )


def _dense(
    name: str,
    kind: KernelKind,
    shape: MatmulShape,
    shard: Shard,
    *,
    parameters: int,
    input_elements: int,
    propagate: bool,
) -> Block:
    """Inputs [m, k] times a weight [k, n]; traffic counts the true input, not the unrolled windows."""
    element = shard.element_bytes
    outputs = shape.m * shape.n * shape.batch
    flops = 2 * shape.m * shape.n * shape.k * shape.batch

    def product(suffix: str, product_shape: MatmulShape, read: int, written: int) -> Kernel:
        return Kernel(
            name=name + suffix,
            kind=kind,
            flops=flops,
            read_bytes=read,
            write_bytes=written,
            precision=shard.precision,
            shape=product_shape,
            model_flops=flops,
        )

    weights = shape.n * shape.k * shape.batch
    trained = not shard.frozen
    forward, backward = PassBuilder(), PassBuilder()
    kept = input_elements * element * trained
    made = add_weight(forward, name, weights, shard, matrix=False, keeps=propagate)
    whole = product("", shape, (input_elements + weights) * element, outputs * element)
    forward.add(whole, after=made or None, kept=kept)
    if propagate:
        transposed = MatmulShape(shape.m, shape.k, shape.n, shape.batch)
        add_weight(backward, name, weights, shard, backward=True, matrix=False)
        backward.add(
            product(".input_gradient", transposed, (outputs + weights) * element, input_elements * element),
            freed=kept_weight(weights, shard, matrix=False),
        )
    if not trained:
        return Block(name, forward.done(), backward.done(), parameters, input_elements * element)
    gradient = weights * shard.gradient_bytes
    backward.add(
        product(
            ".weight_gradient",
            MatmulShape(shape.k, shape.n, shape.m, shape.batch),
            (outputs + input_elements) * element + gradient,
            gradient,
        ),
        freed=kept,
        role="weight_gradient",
    )
    return Block(name, forward.done(), backward.done(), parameters, kept)


def _embedding(layer: EmbeddingLayer, shard: Shard, name: str, _: bool) -> Block:
    elements, element = shard.tokens * layer.embedding_dim, shard.element_bytes
    forward, backward = PassBuilder(), PassBuilder()
    forward.add(operators.pointwise(name, "embedding", elements, reads=element, writes=element, flops=1))
    gradient = shard.gradient_bytes
    backward.add(
        operators.pointwise(
            f"{name}.gradient", "embedding", elements, reads=element + gradient, writes=gradient, flops=1
        )
    )
    return Block(
        name, forward.done(), backward.done(), layer.num_embeddings * layer.embedding_dim, shard.tokens * 8
    )


def _norm(layer: NormLayer, shard: Shard, name: str, _: bool) -> Block:
    parameters = layer.features * (1 if layer.norm == "rmsnorm" else 2)
    elements = shard.tokens * layer.features * layer.positions
    return _pointwise(name, "norm", elements, operators.NORM_FLOPS, shard, parameters)


def _pooling(layer: PoolingLayer, shard: Shard, name: str, _: bool) -> Block:
    """Forward each input is read once; backward the gradient of each output goes back to its inputs."""
    inputs, outputs = (
        shard.tokens * layer.channels * side**2 for side in (layer.input_size, layer.output_size)
    )
    element = shard.element_bytes
    forward, backward = PassBuilder(), PassBuilder()
    kept = inputs * element
    pooled = Kernel(name, "elementwise", inputs, kept, outputs * element, "fp32")
    forward.add(pooled, kept=kept)
    back = Kernel(f"{name}.gradient", "elementwise", inputs, kept + outputs * element, kept, "fp32")
    backward.add(back, freed=kept)
    return Block(name, forward.done(), backward.done(), 0, kept)


def _activation(layer: ActivationLayer, shard: Shard, name: str, _: bool) -> Block:
    elements = shard.tokens * layer.features
    return _pointwise(name, "activation", elements, operators.POINTWISE_FLOPS[layer.function], shard, 0)


def _pointwise(
    name: str, kind: KernelKind, elements: int, flops: int, shard: Shard, parameters: int
) -> Block:
    element = shard.element_bytes
    forward, backward = PassBuilder(), PassBuilder()
    kept = elements * element
    forward.add(
        operators.pointwise(name, kind, elements, reads=element, writes=element, flops=flops),
        kept=kept,
    )
    backward.add(
        operators.pointwise(
            f"{name}.gradient", kind, elements, reads=2 * element, writes=element, flops=2 * flops
        ),
        freed=kept,
    )
    return Block(name, forward.done(), backward.done(), parameters, kept)


def _attention(layer: AttentionLayer, shard: Shard, name: str, propagate: bool) -> Block:
    key_heads = layer.num_key_value_heads or layer.num_attention_heads
    head = layer.hidden_size // layer.num_attention_heads
    width, columns = layer.hidden_size, layer.hidden_size + 2 * key_heads * head
    tokens, element = shard.tokens, shard.element_bytes
    into = _dense(
        f"{name}.qkv",
        "matmul",
        MatmulShape(tokens, columns, width),
        shard,
        parameters=width * columns + columns * layer.bias,
        input_elements=tokens * width,
        propagate=propagate,
    )
    out = _dense(
        f"{name}.output",
        "matmul",
        MatmulShape(tokens, width, width),
        shard,
        parameters=width * width + width * layer.bias,
        input_elements=tokens * width,
        propagate=True,
    )

    def core(*, backward: bool) -> Kernel:
        return operators.fused_attention(
            f"{name}.core" + (".gradient" if backward else ""),
            batch=shard.micro_batch_size,
            heads=layer.num_attention_heads,
            kv_heads=key_heads,
            query_length=shard.sequence_length,
            key_length=shard.sequence_length,
            head_dim=head,
            causal=layer.causal,
            precision=shard.precision,
            backward=backward,
        )

    kept = tokens * columns * element
    forward, backward = PassBuilder(list(into.forward)), PassBuilder(list(out.backward))
    forward.add(core(backward=False), kept=kept)
    for node in out.forward:
        forward.add(node.op, kept=node.kept_bytes)
    backward.add(core(backward=True), freed=kept)
    for node in into.backward:
        backward.add(node.op, freed=node.freed_bytes, role=node.role)
    return Block(name, forward.done(), backward.done(), into.parameters + out.parameters, into.input_bytes)


def _loss(layer: LossLayer, shard: Shard, name: str, _: bool) -> Block:
    elements, element = shard.tokens * layer.features, shard.element_bytes
    forward, backward = PassBuilder(), PassBuilder()
    flops = 3 if layer.function == "mse" else 8
    kept = 4 * elements
    forward.add(
        operators.pointwise(name, "loss", elements, reads=element + 4, writes=4, flops=flops), kept=kept
    )
    backward.add(
        operators.pointwise(f"{name}.gradient", "loss", elements, reads=4, writes=element, flops=2),
        freed=kept,
    )
    return Block(name, forward.done(), backward.done(), 0, elements * element)


_BUILDERS: dict[type, Callable[..., Block]] = {
    LinearLayer: _linear,
    ConvolutionLayer: _convolution,
    EmbeddingLayer: _embedding,
    NormLayer: _norm,
    ActivationLayer: _activation,
    PoolingLayer: _pooling,
    AttentionLayer: _attention,
    LossLayer: _loss,
}
