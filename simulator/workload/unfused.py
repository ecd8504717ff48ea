"""Attention with the scores in memory: products, softmax and dropout as kernels of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.context import Core
from simulator.workload.kernels import Kernel
from simulator.workload.operators import SOFTMAX_FLOPS, attended_pairs, matmul, pointwise

_WIDE: Final = 4
"""Bytes of a score in fp32."""


def add_unfused(into: PassBuilder, core: Core, shard: Shard) -> None:
    """The forward pass of the core.

    Scores are computed in full even when causal or within a window; only those that are attended to count
    towards the model. A bias of positions is added by a kernel of its own. Scale, mask and softmax are one
    kernel or three, or four in fp32 where the one does not take so many (`_style`); dropout is another,
    and keeps a mask of one byte a score. The heads' outputs are copied side by side before the projection.
    """
    element, name = shard.element_bytes, core.name
    queries, keys, size = shard.sequence_length, _keys(core, shard), core.key_dim
    scores, context = _scores(core, shard), shard.tokens * core.output_width
    if shard.software.transposed_heads:
        heads = _operands(core, shard)
        into.add(_pointwise(f"{name}.qkv.transpose", heads, reads=element, writes=element, flops=0))
    into.add(_product(f"{name}.scores", keys, size, core, shard))
    if core.biased:
        into.add(_pointwise(f"{name}.bias", scores, reads=element, writes=element, flops=1))
    style = _style(core, shard)
    softmax = _softmax(name, scores, element, causal=core.causal, style=style)
    into.add(softmax, kept=scores * (element + _WIDE * (style == "fp32")))
    if shard.dropout:
        drop = _pointwise(f"{name}.dropout", scores, reads=element, writes=element + 1, flops=2)
        into.add(drop, kept=(element + 1) * scores)
    into.add(_product(f"{name}.values", core.value_dim, keys, core, shard, rows=queries))
    copied = _pointwise(f"{name}.values.copy", context, reads=element, writes=element, flops=0)
    into.add(copied, kept=context * element, kept_output=context * element)


def add_unfused_gradient(into: PassBuilder, core: Core, shard: Shard, *, freed: int) -> None:
    """The backward pass of the core; the three gradients are copied behind it.

    Args:
        into: Takes the nodes.
        core: The core.
        shard: One GPU's part of the micro-batch.
        freed: Queries, keys and values, which the end of it releases [B].
    """
    element, name = shard.element_bytes, core.name
    queries, keys, size = shard.sequence_length, _keys(core, shard), core.key_dim
    scores, context = _scores(core, shard), shard.tokens * core.output_width
    if shard.software.transposed_heads:
        turned = f"{name}.values.transpose"
        into.add(_pointwise(turned, context, reads=element, writes=element, flops=0))
    into.add(_product(f"{name}.values.weights_gradient", keys, core.value_dim, core, shard))
    given = _product(f"{name}.values.gradient", core.value_dim, queries, core, shard, rows=keys)
    into.add(given, freed=context * element)
    if shard.dropout:
        undo = _pointwise(f"{name}.dropout.gradient", scores, reads=element + 1, writes=element, flops=2)
        into.add(undo, freed=(element + 1) * scores)
    style = _style(core, shard)
    softmax = _softmax_gradient(name, scores, element, causal=core.causal, style=style)
    into.add(softmax, freed=scores * (element + _WIDE * (style == "fp32")))
    if core.biased and shard.trains("position_bias"):
        into.add(_pointwise(f"{name}.bias.gradient", scores, reads=element, writes=0, flops=1))
    into.add(_product(f"{name}.scores.query_gradient", size, keys, core, shard))
    into.add(_product(f"{name}.scores.key_gradient", size, queries, core, shard, rows=keys))
    copied = _pointwise(f"{name}.qkv.copy", _operands(core, shard), reads=element, writes=element, flops=0)
    into.add(copied, freed=freed)


def _operands(core: Core, shard: Shard) -> int:
    """Numbers in queries, keys and values, each head of queries with keys of its own."""
    sizes = core.key_dim + core.value_dim
    return shard.tokens * core.query_width + shard.micro_batch_size * core.heads * _keys(core, shard) * sizes


def _keys(core: Core, shard: Shard) -> int:
    return core.source_length or shard.sequence_length


def _scores(core: Core, shard: Shard) -> int:
    return shard.micro_batch_size * core.heads * shard.sequence_length * _keys(core, shard)


def _product(name: str, n: int, k: int, core: Core, shard: Shard, *, rows: int = 0) -> Kernel:
    """A product of each head and sequence, [queries or `rows`, k] x [k, n]."""
    queries, keys = shard.sequence_length, _keys(core, shard)
    batch = shard.micro_batch_size * core.heads
    whole = matmul(name, rows or queries, n, k, shard.precision, batch=batch)
    pairs = attended_pairs(queries, keys, causal=core.causal, window=core.window)
    return replace(whole, model_flops=whole.flops * pairs // (queries * keys))


def _pointwise(name: str, elements: int, *, reads: int, writes: int, flops: int) -> Kernel:
    return pointwise(name, "elementwise", elements, reads=reads, writes=writes, flops=flops)


def _style(core: Core, shard: Shard) -> Literal["fused", "separate", "fp32"]:
    """How scores become weights: by one kernel, by one for each step, or in fp32 where the one does not fit.

    Source: ``FusedScaleMaskSoftmax`` of Megatron-LM (megatron/model/fused_softmax.py): the kernel takes up to
        so many keys, and multiples of four matrices of scores; else ``forward_torch_softmax``.
    """
    software, matrices = shard.software, shard.micro_batch_size * core.heads
    if not software.fused_softmax:
        return "separate"
    most = software.fused_softmax_keys
    fits = matrices % software.fused_softmax_multiple == 0 and (most is None or _keys(core, shard) <= most)
    return "fused" if fits else "fp32"


def _softmax(name: str, scores: int, element: int, *, causal: bool, style: str) -> Kernel:
    """Fused and causal, the upper triangle is not read, only set to zero."""
    name = f"{name}.softmax"
    if style == "fp32":
        # To fp32, mask, softmax, and back.
        reads, writes = element + 3 * _WIDE + 1, 3 * _WIDE + element
        flops = SOFTMAX_FLOPS + 1
        return pointwise(name, "softmax", scores, reads=reads, writes=writes, flops=flops, launches=4)
    if style == "fused":
        kernel = pointwise(name, "softmax", scores, reads=element, writes=element, flops=SOFTMAX_FLOPS)
        return replace(kernel, read_bytes=kernel.read_bytes // 2) if causal else kernel
    flops, reads, writes = SOFTMAX_FLOPS + 2, 3 * element + 1, 3 * element
    return pointwise(name, "softmax", scores, reads=reads, writes=writes, flops=flops, launches=3)


def _softmax_gradient(name: str, scores: int, element: int, *, causal: bool, style: str) -> Kernel:
    name = f"{name}.softmax.gradient"
    if style == "fp32":
        reads, writes = element + 4 * _WIDE + 1, 3 * _WIDE + element
        return pointwise(name, "softmax", scores, reads=reads, writes=writes, flops=5, launches=4)
    if style == "fused":
        kernel = pointwise(name, "softmax", scores, reads=2 * element, writes=element, flops=4)
        return replace(kernel, read_bytes=kernel.read_bytes // 2) if causal else kernel
    return pointwise(name, "softmax", scores, reads=4 * element + 1, writes=3 * element, flops=6, launches=3)
