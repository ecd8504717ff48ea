"""What the two stacks of an encoder-decoder have besides layers, embedding and head.

A bias of relative positions, which all layers of a stack add to their scores; the norm behind the encoder;
the convolutions through which an encoder hears.
"""

from __future__ import annotations

from simulator.specs.model import TransformerSpec
from simulator.workload import chains, operators
from simulator.workload.attention import position_bias_bytes
from simulator.workload.blocks import Block, PassBuilder, Shard
from simulator.workload.columns import tensor
from simulator.workload.kernels import Kernel, MatmulShape

_CONVOLVED = 3
"""Width of both convolutions. Source: Radford et al., Whisper, arXiv:2212.04356, section 2.2."""
_STRIDE = 2
"""Frames of the spectrogram to one position of the encoder."""


def position_bias_block(model: TransformerSpec, shard: Shard, *, shares_table: bool = False) -> Block:
    """Biases by distance: a table of buckets and heads, looked up for every pair of positions of a stack.

    Args:
        model: The transformer.
        shard: One GPU's part of the micro-batch, in the stack.
        shares_table: Whether the table is already counted with another part of the stack on this GPU.

    Source: Raffel et al., T5, arXiv:1910.10683, section 2.1.
    """
    element, biases = shard.element_bytes, position_bias_bytes(model, shard)
    heads = model.num_attention_heads // shard.tensor_parallel
    pairs = heads * shard.sequence_length**2 // shard.context_parallel
    forward, backward = PassBuilder(), PassBuilder()
    looked_up = operators.pointwise(
        "position_bias", "embedding", pairs, reads=element, writes=element, flops=1
    )
    forward.add(looked_up, kept=biases)
    # Of a table that is not trained nothing is summed; the biases are let go all the same.
    trained = pairs if shard.trains("position_bias") else 0
    summed = operators.pointwise(
        "position_bias.gradient", "embedding", trained, reads=element, writes=0, flops=1
    )
    backward.add(summed, freed=biases)
    table = 0 if shares_table else model.relative_attention_num_buckets * heads
    return Block(
        name="position_bias",
        forward=forward.done(),
        backward=backward.done(),
        parameters=table,
        input_bytes=0,
        frozen_parameters=0 if trained else table,
    )


def encoder_norm_block(model: TransformerSpec, shard: Shard) -> Block:
    """The norm behind the encoder's last layer, whose output the decoder's layers read."""
    element, elements = shard.element_bytes, shard.residual_tokens * model.hidden_size
    forward, backward = PassBuilder(), PassBuilder()
    forward.add(chains.norm("encoder_norm", elements, model, shard), kept=elements * element)
    undone = chains.norm_gradient("encoder_norm.gradient", elements, model, shard)
    backward.add(undone, freed=elements * element)
    held = chains.norm_parameters(model)
    return Block(
        name="encoder_norm",
        forward=forward.done(),
        backward=backward.done(),
        parameters=held,
        input_bytes=elements * element,
        sequential_parameters=held if shard.trains("encoder_norm") else 0,
        frozen_parameters=0 if shard.trains("encoder_norm") else held,
    )


def front_end_block(model: TransformerSpec, shard: Shard) -> Block:
    """Two convolutions over time, each with a GELU: a spectrogram for the encoder.

    Every tensor-parallel GPU computes all of it. The second convolution has a stride of two: a sequence of
    s positions comes from 2 s frames.

    Source: Radford et al., Whisper, arXiv:2212.04356, section 2.2.
    """
    width, element, tokens = model.hidden_size, shard.element_bytes, shard.tokens
    frames = _STRIDE * tokens
    forward, backward = PassBuilder(), PassBuilder()
    layers = (
        ("front_end.first", frames, frames * model.num_mel_bins, model.num_mel_bins),
        ("front_end.second", tokens, frames * width, width),
    )
    if shard.sequence_parallel:
        backward.add(tensor(shard, "front_end.gradient", "all_gather", tokens * width * element))
    for name, outputs, inputs, channels in layers:
        rows, kept = _CONVOLVED * channels, inputs * element
        forward.add(_convolution(name, MatmulShape(outputs, width, rows), inputs, shard), kept=kept)
        forward.add(_gelu(name, outputs * width, shard), kept=outputs * width * element)
    for name, outputs, inputs, channels in reversed(layers):
        rows, kept = _CONVOLVED * channels, inputs * element
        backward.add(_gelu_gradient(name, outputs * width, shard), freed=outputs * width * element)
        data = len(backward.nodes) - 1
        if name == "front_end.second":
            shape = MatmulShape(outputs, rows, width)
            data = backward.add(_convolution(f"{name}.input_gradient", shape, outputs * width, shard))
        chains.add_weight_gradient(
            backward,
            f"{name}.weight_gradient",
            outputs,
            width,
            rows,
            shard,
            after=(data,),
            freed=kept,
            precision=shard.precision,
        )
    held = sum((_CONVOLVED * channels + 1) * width for *_, channels in layers)
    return Block(
        name="front_end",
        forward=forward.done(),
        backward=backward.done(),
        parameters=held,
        input_bytes=frames * model.num_mel_bins * element,
        frozen_parameters=held if shard.lora_rank else 0,
    )


def _convolution(name: str, shape: MatmulShape, inputs: int, shard: Shard) -> Kernel:
    """A convolution as a product [positions, window] x [window, channels]; its input is read once."""
    element, flops = shard.element_bytes, 2 * shape.m * shape.n * shape.k
    return Kernel(
        name=name,
        kind="convolution",
        flops=flops,
        read_bytes=(inputs + shape.n * shape.k) * element,
        write_bytes=shape.m * shape.n * element,
        precision=shard.precision,
        shape=shape,
        model_flops=flops,
    )


def _gelu(name: str, elements: int, shard: Shard) -> Kernel:
    element, flops = shard.element_bytes, operators.POINTWISE_FLOPS["gelu"]
    return operators.pointwise(
        f"{name}.activation", "activation", elements, reads=element, writes=element, flops=flops
    )


def _gelu_gradient(name: str, elements: int, shard: Shard) -> Kernel:
    element, flops = shard.element_bytes, 2 * operators.POINTWISE_FLOPS["gelu"]
    name = f"{name}.activation.gradient"
    return operators.pointwise(name, "activation", elements, reads=2 * element, writes=element, flops=flops)
