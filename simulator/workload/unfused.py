"""Attention with the scores in memory: products, softmax and dropout as kernels of their own."""

from __future__ import annotations

from dataclasses import replace

from simulator.workload.blocks import BYTES_PER_ELEMENT
from simulator.workload.kernels import Kernel
from simulator.workload.operators import SOFTMAX_FLOPS, matmul, pointwise


def unfused_attention(
    *,
    batch: int,
    heads: int,
    length: int,
    head_dim: int,
    causal: bool,
    precision: str,
    dropout: bool,
    fused_softmax: bool = True,
) -> tuple[tuple[Kernel, ...], tuple[Kernel, ...]]:
    """Forward and backward kernels in order.

    Scores are computed in full even when causal; only the lower triangle counts towards the model. Scale,
    mask and softmax are one kernel or three; dropout is another, and keeps a mask of one byte a score. The
    heads' outputs are copied side by side before the projection, and the three gradients behind it.
    """
    element = BYTES_PER_ELEMENT[precision]
    groups = batch * heads
    scores = groups * length * length
    context = groups * length * head_dim

    def product(name: str, n: int, k: int) -> Kernel:
        whole = matmul(name, length, n, k, precision, batch=groups)
        useful = whole.flops * (length + 1) // (2 * length) if causal else whole.flops
        return replace(whole, model_flops=useful)

    forward = [
        product("attention.scores", length, head_dim),
        _softmax(scores, element, causal=causal, fused=fused_softmax),
        product("attention.values", head_dim, length),
        pointwise("attention.values.copy", "elementwise", context, reads=element, writes=element, flops=0),
    ]
    backward = [
        product("attention.values.weights_gradient", length, head_dim),
        product("attention.values.gradient", head_dim, length),
        _softmax_gradient(scores, element, causal=causal, fused=fused_softmax),
        product("attention.scores.query_gradient", head_dim, length),
        product("attention.scores.key_gradient", head_dim, length),
        pointwise("attention.qkv.copy", "elementwise", 3 * context, reads=element, writes=element, flops=0),
    ]
    if dropout:
        drop = pointwise(
            "attention.dropout", "elementwise", scores, reads=element, writes=element + 1, flops=2
        )
        undo = pointwise(
            "attention.dropout.gradient", "elementwise", scores, reads=element + 1, writes=element, flops=2
        )
        forward.insert(2, drop)
        backward.insert(2, undo)
    return tuple(forward), tuple(backward)


def _softmax(scores: int, element: int, *, causal: bool, fused: bool) -> Kernel:
    """Fused and causal, the upper triangle is not read, only set to zero."""
    if fused:
        kernel = pointwise(
            "attention.softmax", "softmax", scores, reads=element, writes=element, flops=SOFTMAX_FLOPS
        )
        return replace(kernel, read_bytes=kernel.read_bytes // 2) if causal else kernel
    return pointwise(
        "attention.softmax",
        "softmax",
        scores,
        reads=3 * element + 1,
        writes=3 * element,
        flops=SOFTMAX_FLOPS + 2,
        launches=3,
    )


def _softmax_gradient(scores: int, element: int, *, causal: bool, fused: bool) -> Kernel:
    name = "attention.softmax.gradient"
    if fused:
        kernel = pointwise(name, "softmax", scores, reads=2 * element, writes=element, flops=4)
        return replace(kernel, read_bytes=kernel.read_bytes // 2) if causal else kernel
    return pointwise(name, "softmax", scores, reads=4 * element + 1, writes=3 * element, flops=6, launches=3)
