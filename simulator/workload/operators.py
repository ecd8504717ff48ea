"""Operators: what one matrix product, norm, activation or loss costs, forward and backward, on one GPU.

Arithmetic counts a multiply-add as two FLOP. Traffic is compulsory: every input read once, every output
written once, unless a docstring says otherwise.
"""

from __future__ import annotations

from simulator.workload.blocks import BYTES_PER_ELEMENT
from simulator.workload.kernels import AttentionShape, Kernel, KernelKind, MatmulShape
from simulator.workload.precision import sized

NORM_FLOPS = 8
"""Arithmetic of a norm per element: mean, variance, scale, shift."""
POINTWISE_FLOPS = {"gelu": 10, "silu": 6, "tanh": 6, "sigmoid": 5, "relu": 1, "squared_relu": 2, "none": 1}
"""Arithmetic of an activation function per element."""
SOFTMAX_FLOPS = 5
"""Arithmetic of a softmax per element: maximum, subtract, exponential, sum, divide."""


def matmul(
    name: str,
    m: int,
    n: int,
    k: int,
    precision: str,
    *,
    batch: int = 1,
    operand_bytes: float | None = None,
    out_bytes: int | None = None,
    counts: bool = True,
) -> Kernel:
    """`batch` products [m, k] x [k, n]: 2 m n k FLOP each; operands are of `precision` if not said."""
    element = BYTES_PER_ELEMENT[precision]
    flops = 2 * batch * m * n * k
    written = batch * m * n * (element if out_bytes is None else out_bytes)
    return Kernel(
        name=name,
        kind="matmul",
        flops=flops,
        read_bytes=sized(batch * (m * k + k * n), operand_bytes or element),
        write_bytes=written,
        precision=precision,
        shape=MatmulShape(m, n, k, batch),
        model_flops=flops if counts else 0,
    )


def weight_gradient(
    name: str,
    m: int,
    n: int,
    k: int,
    precision: str,
    gradient_bytes: int,
    *,
    batch: int = 1,
    accumulates: bool = True,
    operand_bytes: float | None = None,
) -> Kernel:
    """Gradient [k, n] of a weight: [k, m] x [m, n], added to the accumulated gradient in place or written."""
    element = operand_bytes or BYTES_PER_ELEMENT[precision]
    flops = 2 * batch * m * n * k
    return Kernel(
        name=name,
        kind="matmul",
        flops=flops,
        read_bytes=sized(batch * m * (n + k), element) + batch * k * n * gradient_bytes * accumulates,
        write_bytes=batch * k * n * gradient_bytes,
        precision=precision,
        shape=MatmulShape(k, n, m, batch),
        model_flops=flops,
    )


def pointwise(
    name: str,
    kind: KernelKind,
    elements: int,
    *,
    reads: float,
    writes: float,
    flops: int,
    launches: int = 1,
) -> Kernel:
    """A memory-bound kernel over `elements`: bytes read, bytes written and FLOP are per element."""
    return Kernel(
        name=name,
        kind=kind,
        flops=elements * flops,
        read_bytes=sized(elements, reads),
        write_bytes=sized(elements, writes),
        precision="fp32",
        launches=launches,
    )


def attended_pairs(query_length: int, key_length: int, *, causal: bool, window: int = 0) -> int:
    """Pairs of a query and a key that it attends to.

    All of them; if causal those with no later key: s (s + 1) / 2 of a square problem, and with a window w < s
    no more than w a query: w (w + 1) / 2 + (s - w) w.
    """
    pairs = query_length * key_length
    if not causal:
        return pairs
    if window and window < min(query_length, key_length):
        return window * (window + 1) // 2 + (query_length - window) * window
    return pairs - (query_length * (query_length - 1)) // 2 if key_length >= query_length else pairs // 2


def fused_attention(
    name: str,
    *,
    batch: int,
    heads: int,
    kv_heads: int,
    query_length: int,
    key_length: int,
    head_dim: int,
    causal: bool,
    precision: str,
    backward: bool = False,
    window: int = 0,
    bias: bool = False,
) -> Kernel:
    """FlashAttention: scores stay on the chip.

    Forward 4 b a s^2 d FLOP, half of it when causal; backward 2.5 times the forward (five products, one of
    them the scores again, of which four count towards the model). A bias of positions is read for each head
    and pair, and its gradient, summed over the batch, is written.

    Source: Dao et al., FlashAttention-2, arXiv:2307.08691.
    """
    element = BYTES_PER_ELEMENT[precision]
    pairs = attended_pairs(query_length, key_length, causal=causal, window=window)
    products = 10 if backward else 4
    flops = products * batch * heads * pairs * head_dim
    query = batch * heads * query_length * head_dim * element
    key_value = 2 * batch * kv_heads * key_length * head_dim * element
    statistics = 4 * batch * heads * query_length
    biases = heads * query_length * key_length * element * bias
    read = query + key_value + biases + (2 * query + statistics if backward else 0)
    written = (query + key_value + biases) if backward else (query + statistics)
    return Kernel(
        name=name,
        kind="attention",
        flops=flops,
        read_bytes=read,
        write_bytes=written,
        precision=precision,
        shape=AttentionShape(
            batch,
            heads,
            kv_heads,
            query_length,
            key_length,
            head_dim,
            causal,
            "backward" if backward else "forward",
            window,
        ),
        model_flops=8 * batch * heads * pairs * head_dim if backward else flops,
    )
