"""Element-wise work between the matrices, as the software fuses it: one kernel or a chain of several."""

from __future__ import annotations

from dataclasses import replace

from simulator.specs.model import TransformerSpec
from simulator.workload import lora
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.kernels import Kernel
from simulator.workload.operators import NORM_FLOPS, POINTWISE_FLOPS, pointwise, weight_gradient
from simulator.workload.precision import FORMATS, sized


def norm(name: str, elements: int, model: TransformerSpec, shard: Shard) -> Kernel:
    """A norm, forward.

    In one kernel it reads and writes each element once. Written out in steps (an RMSNorm in eager PyTorch) it
    is converted to fp32, squared and averaged, scaled, converted back and weighted.
    """
    element = shard.element_bytes
    if shard.software.norm != "separate" or model.norm == "layernorm":
        return pointwise(name, "norm", elements, reads=element, writes=element, flops=NORM_FLOPS)
    reads, writes = 2 * element + 16, 2 * element + 12
    return pointwise(name, "norm", elements, reads=reads, writes=writes, flops=NORM_FLOPS, launches=6)


def norm_parameters(model: TransformerSpec) -> int:
    """Parameters of one norm."""
    return model.hidden_size * (2 if model.norm == "layernorm" else 1)


def norm_gradient(name: str, elements: int, model: TransformerSpec, shard: Shard) -> Kernel:
    """A norm, backward: the gradients of input and of weights, in one pass over both operands or in two.

    Frozen, it has only the former; in steps, the product that is summed over the tokens falls away.
    """
    element, style = shard.element_bytes, shard.software.norm
    trained = shard.trains(name.removesuffix(".gradient"))
    if style == "single_pass":
        return pointwise(name, "norm", elements, reads=2 * element, writes=element, flops=NORM_FLOPS)
    if style == "fused" or model.norm == "layernorm":
        reads, launches = (2 + 2 * trained) * element, 1 + trained
        return pointwise(
            name, "norm", elements, reads=reads, writes=element, flops=NORM_FLOPS, launches=launches
        )
    reads, writes = (1 + 3 * trained) * element + 36, (1 + trained) * element + 24
    launches = 9 + 2 * trained
    return pointwise(
        name, "norm", elements, reads=reads, writes=writes, flops=2 * NORM_FLOPS, launches=launches
    )


def kept_by_norm(model: TransformerSpec, shard: Shard, name: str) -> int:
    """Bytes of an element that a norm keeps for itself: its input, in fp32 where a step makes it that.

    In steps what is weighted is kept for the weights' gradient, too.

    Source: LlamaRMSNorm in Transformers, RMSNorm in LitGPT: ``hidden_states.to(torch.float32)``.
    """
    if shard.software.norm != "separate" or model.norm == "layernorm":
        return shard.element_bytes
    return 4 + shard.element_bytes * shard.trains(name)


def linear_bias(name: str, elements: int, biased: bool, shard: Shard) -> Kernel | None:
    """A bias added behind a matrix product by a kernel of its own; None where there is none."""
    if not biased or shard.software.fused_linear_bias:
        return None
    element = shard.element_bytes
    return pointwise(f"{name}.bias", "elementwise", elements, reads=element, writes=element, flops=1)


def bias_gradient(name: str, elements: int, biased: bool, shard: Shard) -> Kernel | None:
    """The sum over all tokens that is a bias's gradient, where no matrix product takes it along."""
    if not biased or shard.software.fused_linear_bias or not shard.trains(name):
        return None
    return pointwise(
        f"{name}.bias_gradient", "elementwise", elements, reads=shard.element_bytes, writes=0, flops=1
    )


def residual(name: str, elements: int, biased: bool, shard: Shard) -> Kernel:
    """Bias, dropout and residual: the stream and the branch in, the stream (and a mask) out."""
    element, dropout = shard.element_bytes, int(shard.dropout)
    reads, writes, launches = 2 * element, element + dropout, 1
    if not shard.software.fused_dropout_residual:
        separate = int(biased and not shard.software.fused_linear_bias) + dropout
        reads, writes, launches = reads + separate * element, writes + separate * element, 1 + separate
    return pointwise(name, "elementwise", elements, reads=reads, writes=writes, flops=3, launches=launches)


def residual_gradient(name: str, elements: int, biased: bool, shard: Shard) -> Kernel:
    """Backward of `residual`: the mask applied to the branch, the bias's sum, and both gradients added.

    The gradient of the stream is that of the branch too, so only a dropout writes one for the branch; where
    the branch meets the stream again, one kernel adds the two.
    """
    element, dropout = shard.element_bytes, int(shard.dropout)
    summed = int(biased and not shard.software.fused_linear_bias)
    reads = 2 * element + dropout * (element + 1) + summed * element
    writes = element + dropout * element
    launches = 1 + dropout + summed
    return pointwise(name, "elementwise", elements, reads=reads, writes=writes, flops=3, launches=launches)


def activation(model: TransformerSpec, elements: int, shard: Shard) -> Kernel:
    """The MLP's activation with its bias or gate, `elements` wide behind it."""
    element, gated = shard.element_bytes, int(model.gated_mlp)
    reads, writes, launches = element * (1 + gated), element, 1
    if not shard.software.fused_activation and (gated or (model.mlp_bias and not gated)):
        extra = gated or not shard.software.fused_linear_bias
        reads, writes, launches = reads + element * extra, writes + element * extra, 1 + extra
    flops = POINTWISE_FLOPS[model.hidden_act]
    return pointwise(
        "mlp.activation", "activation", elements, reads=reads, writes=writes, flops=flops, launches=launches
    )


def kept_by_activation(elements: int, model: TransformerSpec, shard: Shard) -> int:
    """Bytes that the activation keeps: what the next product reads, and the gate's own where it is apart."""
    apart = model.gated_mlp and not shard.software.fused_activation
    operand = kept_operand(shard, "mlp.down", elements)
    return operand + elements * apart * shard.element_bytes


def stored_input(numbers: int, shard: Shard) -> int:
    """Bytes of what the activation reads as it is kept for the backward pass."""
    return sized(numbers, FORMATS[shard.activation_input or shard.precision].number_bytes)


def kept_of_input(numbers: int, shard: Shard) -> int:
    """Of these bytes, those that the product before keeps: none where a kernel behind it stores them."""
    return 0 if shard.activation_input else stored_input(numbers, shard)


def add_store(into: PassBuilder, name: str, numbers: int, shard: Shard) -> None:
    """What the activation reads, cast to be kept in fewer bits; the activation itself reads it as it was.

    Source: Megatron-Core, ``activation_func_fp8_input_store``; DeepSeek-V3, arXiv:2412.19437, section 3.3.3.
    """
    if not shard.activation_input:
        return
    reads, writes = shard.element_bytes, FORMATS[shard.activation_input].number_bytes
    kernel = pointwise(f"{name}.store", "elementwise", numbers, reads=reads, writes=writes, flops=2)
    into.add(kernel, kept=stored_input(numbers, shard))


def add_restore(
    into: PassBuilder, name: str, numbers: int, shard: Shard, *, after: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """The same cast back before its gradient; returns the node, or nothing where nothing was cast."""
    if not shard.activation_input:
        return ()
    reads, writes = FORMATS[shard.activation_input].number_bytes, shard.element_bytes
    kernel = pointwise(f"{name}.restore", "elementwise", numbers, reads=reads, writes=writes, flops=1)
    return (into.add(kernel, after=after),)


def kept_operand(shard: Shard, matrix: str, elements: int) -> int:
    """Bytes of a matrix's input that are kept for its gradient or for that of an adapter; 0 without both."""
    return shard.operand_bytes(elements) if lora.reads_input(shard, matrix) else 0


def activation_gradient(
    model: TransformerSpec, elements: int, shard: Shard, before: str = "mlp.up"
) -> Kernel:
    """Backward of `activation`; a gate's two gradients are joined by a copy where they are not fused.

    Args:
        model: The transformer.
        elements: Numbers behind the activation.
        shard: One GPU's part of the micro-batch.
        before: The matrix whose bias is summed along, if that is trained.
    """
    element, gated = shard.element_bytes, int(model.gated_mlp)
    reads, writes, launches = element * (2 + gated), element * (1 + gated), 1
    if gated and not shard.software.fused_activation:
        reads, writes, launches = element * 9, element * 5, 4
    if model.mlp_bias and not shard.software.fused_linear_bias and shard.trains(before):
        reads, launches = reads + element * (1 + gated), launches + 1
    return pointwise(
        "mlp.activation.gradient",
        "activation",
        elements,
        reads=reads,
        writes=writes,
        flops=2 * POINTWISE_FLOPS[model.hidden_act],
        launches=launches,
    )


def rotary(model: TransformerSpec, shard: Shard, name: str, columns: int) -> Kernel | None:
    """Rotary positions of queries and keys: one kernel, or halves turned, two products and a sum each."""
    if model.position_embedding != "rotary":
        return None
    element, fused = shard.element_bytes, shard.software.fused_rotary
    reads, writes, launches = (element, element, 2) if fused else (6 * element, 5 * element, 10)
    return pointwise(
        name,
        "elementwise",
        shard.tokens * columns,
        reads=reads,
        writes=writes,
        flops=6,
        launches=launches,
    )


def cross_entropy(logits: int, shard: Shard) -> Kernel:
    """The loss of `logits` on this GPU, forward.

    Fused, the logits are read once for the maximum and the sum and once for the probabilities. Else a chain
    over fp32 copies: conversion, maximum, shift, exponential, sum, division.
    """
    element = shard.element_bytes
    if shard.software.fused_cross_entropy:
        return pointwise("loss", "loss", logits, reads=2 * element, writes=element, flops=8, launches=2)
    return pointwise("loss", "loss", logits, reads=element + 20, writes=16, flops=8, launches=12)


def cross_entropy_gradient(logits: int, shard: Shard) -> Kernel:
    """Backward of `cross_entropy`: scaled by the gradient, and converted back where it was fp32."""
    element, name = shard.element_bytes, "loss.gradient"
    if shard.software.fused_cross_entropy:
        return pointwise(name, "loss", logits, reads=element, writes=element, flops=1)
    return pointwise(name, "loss", logits, reads=8, writes=4 + element, flops=2, launches=5)


def kept_logits(shard: Shard) -> int:
    """Bytes of a logit itself that stay: none where memory is planned and the loss reads an fp32 copy."""
    software = shard.software
    over = software.allocator == "planned" and not software.fused_cross_entropy
    return 0 if over else shard.element_bytes


def kept_per_logit(shard: Shard) -> int:
    """Bytes that the loss keeps of each logit: the gradient in place of the logits, or fp32 probabilities."""
    return 0 if shard.software.fused_cross_entropy else 4


def add_weight_gradient(
    into: PassBuilder,
    name: str,
    m: int,
    n: int,
    k: int,
    shard: Shard,
    *,
    after: tuple[int, ...] | None = None,
    freed: int = 0,
    kept_tokens: int | None = None,
    batch: int = 1,
    precision: str | None = None,
) -> int:
    """The gradients of `batch` weights [k, n], accumulated by the product itself or by a kernel behind it.

    Put off, it keeps its input (`kept_tokens` of it on this GPU, all m if not given) and the gradient of its
    output. A frozen weight has none; its adapter, if it has one, takes its place. `precision` is that of the
    layers' matrices if not given; their gradients are accumulated in fewer than 16 bits by a kernel behind.
    """
    own = name.removesuffix(".weight_gradient")
    if not shard.trains(own):
        if not lora.reads_input(shard, own):
            into.nodes[-1] = replace(into.nodes[-1], freed_bytes=into.nodes[-1].freed_bytes + freed)
        return lora.add_backward(into, own, m, n, k, shard, batch=batch, freed=freed)
    role, operands = "weight_gradient", shard.operand if precision is None else FORMATS[precision]
    few = shard.matrix_gradient if precision is None else ""
    precision = precision or shard.matrix_precision
    each = operands.number_bytes
    held = sized(batch * ((m if kept_tokens is None else kept_tokens) * k + m * n), each)
    if shard.software.fused_gradient_accumulation and not few:
        kernel = weight_gradient(
            name, m, n, k, precision, shard.gradient_bytes, batch=batch, operand_bytes=each
        )
        kernel = replace(kernel, launches=shard.calls(batch))
        return into.add(kernel, after=after, freed=freed, role=role, held=held)
    element = shard.element_bytes
    written = weight_gradient(
        name, m, n, k, precision, element, batch=batch, accumulates=False, operand_bytes=each
    )
    written = replace(written, launches=shard.calls(batch))
    into.add(written, after=after, freed=freed, role=role, held=held)
    return into.add(accumulation(f"{name}.accumulate", batch * n * k, shard, precision=few), role=role)


def accumulation(name: str, elements: int, shard: Shard, launches: int = 1, *, precision: str = "") -> Kernel:
    """Gradients as a pass leaves them, added to the accumulated ones, in their own precision if given."""
    gradient = FORMATS[precision].number_bytes if precision else shard.gradient_bytes
    return pointwise(
        name,
        "elementwise",
        elements,
        reads=shard.element_bytes + gradient,
        writes=gradient,
        flops=1,
        launches=launches,
    )
