"""Update rules: what they keep of each parameter, their arithmetic, what they need beyond one parameter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from simulator.workload.blocks import Block
from simulator.workload.kernels import Kernel, MatmulShape
from simulator.workload.operators import matmul
from simulator.workload.precision import sized

Moment = Literal["first", "second"]

NEWTON_SCHULZ_STEPS = 5
"""Iterations that make a matrix orthogonal. Source: Jordan et al., Muon, 2024."""


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """What an optimizer keeps and does for each parameter.

    Attributes:
        moments: Numbers kept, each in a precision of its own: a mean of gradients, and one of their squares.
        flops: Arithmetic of an update.
        state_bytes: Bytes of each number kept where the rule itself says it.
        norms: Whether it takes the norm of each tensor and of its update.
        orthogonal: Whether it makes the updates of matrices orthogonal.
        source: Who published it.
    """

    moments: tuple[Moment, ...]
    flops: int
    state_bytes: int | None = None
    norms: bool = False
    orthogonal: bool = False
    source: str = ""


OPTIMIZERS: Final[dict[str, UpdateRule]] = {
    "sgd": UpdateRule((), 2, source="Robbins & Monro, 1951"),
    "momentum": UpdateRule(("first",), 4, source="Polyak, 1964"),
    "nesterov": UpdateRule(("first",), 6, source="Nesterov, 1983; Sutskever et al., ICML 2013"),
    "adagrad": UpdateRule(("second",), 7, source="Duchi et al., JMLR 12, 2011"),
    "rmsprop": UpdateRule(("second",), 8, source="Tieleman & Hinton, 2012"),
    "adam": UpdateRule(("first", "second"), 12, source="Kingma & Ba, arXiv:1412.6980"),
    "adamw": UpdateRule(("first", "second"), 14, source="Loshchilov & Hutter, arXiv:1711.05101"),
    # A scale for every 2,048 numbers (0.2 %) is left out.
    "adam_8bit": UpdateRule(
        ("first", "second"), 24, state_bytes=1, source="Dettmers et al., arXiv:2110.02861"
    ),
    # Means of rows and columns stand in for a number a parameter; they are left out (below 0.1 %).
    "adafactor": UpdateRule((), 14, norms=True, source="Shazeer & Stern, arXiv:1804.04235"),
    "lamb": UpdateRule(("first", "second"), 18, norms=True, source="You et al., arXiv:1904.00962"),
    "lion": UpdateRule(("first",), 8, source="Chen et al., arXiv:2302.06675"),
    "muon": UpdateRule(("first",), 6, orthogonal=True, source="Jordan et al., Muon, 2024; arXiv:2502.16982"),
}
"""By name. Muon keeps one number of what lies in the layers' matrices, and two (AdamW) of all else."""


def norm_kernel(optimizer: str, parameters: int, state_bytes: float) -> Kernel | None:
    """Norms of tensors and of their updates, where the rule takes them: both are read once more."""
    if not OPTIMIZERS[optimizer].norms:
        return None
    return Kernel(
        "optimizer.tensor_norms",
        "optimizer",
        4 * parameters,
        sized(parameters, state_bytes + 4),
        parameters * 4,
        "fp32",
        launches=2,
    )


def orthogonal_kernels(
    blocks: Iterable[Block], dense: tuple[int, int], expert: tuple[int, int]
) -> tuple[Kernel, ...]:
    """Newton-Schulz iterations of the layers' matrices, each done by one GPU of those that share them out.

    For a matrix [n, m] with n <= m a step is X X' (2 n n m), its square (2 n n n) and a product with X
    (2 n n m).

    Args:
        blocks: Blocks of one GPU.
        dense: GPUs that each matrix is split over, and GPUs that share out the update; whole matrices are
            worked on by turns.
        expert: The same of routed experts.

    Source: Liu et al., Muon is Scalable for LLM Training, arXiv:2502.16982.
    """
    counts: dict[tuple[int, int, int], int] = {}
    for block in blocks:
        if block.name != "layer":
            continue
        for node in block.backward:
            operation = node.op
            if node.role == "weight_gradient" and isinstance(operation, Kernel):
                shape = operation.shape
                if isinstance(shape, MatmulShape):
                    split, share = expert if operation.name.startswith("experts") else dense
                    key = *_whole(operation.name, shape, split), split * share
                    counts[key] = counts.get(key, 0) + shape.batch
    kernels: list[Kernel] = []
    # Turns are taken matrix by matrix: among those that split them, and among those that share the update.
    for (one, other, turns), count in sorted(counts.items()):
        n, m = min(one, other), max(one, other)
        # Matrices are given out whole; whoever has most of them is waited for.
        batch = NEWTON_SCHULZ_STEPS * -(-count // turns)
        for name, columns, inner in (("gram", n, m), ("square", n, n), ("product", m, n)):
            kernels.append(
                matmul(f"optimizer.muon.{name}", n, columns, inner, "bf16", batch=batch, counts=False)
            )
    return tuple(kernels)


def _whole(name: str, shape: MatmulShape, split: int) -> tuple[int, int]:
    """Rows and columns of a matrix that is split by rows (output and down projections) or by columns."""
    rows = ".output" in name or ".down" in name
    whole = ".lora_b" if rows else ".lora_a"
    split = 1 if name.startswith("router") or whole in name else split
    if rows:
        return shape.m * split, shape.n
    return shape.m, shape.n * split
