"""What one GPU has to do, without a word about which GPU: kernels and communications."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KernelKind = Literal[
    "matmul",
    "attention",
    "convolution",
    "depthwise",
    "recurrent",
    "norm",
    "activation",
    "elementwise",
    "softmax",
    "embedding",
    "loss",
    "optimizer",
]

Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send"]

Axis = Literal[
    "tensor",
    "pipeline",
    "data",
    "shard",
    "replica",
    "context",
    "expert",
    "expert_tensor",
    "expert_data",
    "expert_shard",
    "expert_replica",
]
"""``data``: all that hold the same dense parameters; ``shard`` and ``replica``: its parts where state is
sharded within groups; ``expert``: those that share experts out; ``expert_tensor``: those that split each of
them; ``expert_data``: those that hold the same, with parts of its own."""


@dataclass(frozen=True, slots=True)
class MatmulShape:
    """`batch` independent products of [m, k] by [k, n]."""

    m: int
    n: int
    k: int
    batch: int = 1


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Fused attention of `batch` sequences: `heads` query heads on `kv_heads` key and value heads.

    `query_length` and `key_length` are tokens; `causal` halves the work of a square problem; a `window` above
    0 leaves each query that many keys, itself the last.
    """

    batch: int
    heads: int
    kv_heads: int
    query_length: int
    key_length: int
    head_dim: int
    causal: bool
    direction: Literal["forward", "backward"] = "forward"
    window: int = 0


@dataclass(frozen=True, slots=True)
class Kernel:
    """One or a few launches of the same kind on one GPU.

    Attributes:
        name: Operator, such as ``attention.qkv``.
        kind: Kind; names the breakdown's cause ``compute.<kind>``.
        flops: Arithmetic [FLOP]: on the matrix units for matmul, convolution and attention, on the vector
            units for the rest. Causal attention counts the lower triangle only.
        read_bytes: Compulsory reads from device memory [B].
        write_bytes: Compulsory writes to device memory [B].
        precision: Precision of the arithmetic, a key of `AcceleratorSpec.peak_flops`.
        shape: Shape of a matmul, convolution (as a matmul) or attention.
        launches: Kernel launches that this stands for; 0 for a part of the one behind it.
        looped: Of these, launches of a loop that compiled code runs inside an operator of the interpreter.
        model_flops: The part of `flops` that counts towards MFU (recomputation does not) [FLOP].
        instructions: What the vector units do, a lane at a time, where addresses and bounds take them longer
            than `flops`.
        steps: Products of `shape` that follow one another, each with a kernel of gates behind it and waiting
            for the last; one operator to whoever launches it.
    """

    name: str
    kind: KernelKind
    flops: int
    read_bytes: int
    write_bytes: int
    precision: str
    shape: MatmulShape | AttentionShape | None = None
    launches: int = 1
    looped: int = 0
    model_flops: int = 0
    instructions: int = 0
    steps: int = 1


@dataclass(frozen=True, slots=True)
class Routed:
    """Tokens on their way to experts that are sent to each domain, and each rank of it, once.

    Attributes:
        num_experts: Experts of the layer, spread evenly over the ranks.
        num_experts_per_tok: Experts that each token visits.
        n_group: Groups of experts.
        topk_group: Groups that a token's experts may be in.
    """

    num_experts: int
    num_experts_per_tok: int
    n_group: int = 1
    topk_group: int = 1


@dataclass(frozen=True, slots=True)
class Communication:
    """A collective that every rank along an axis takes part in.

    Attributes:
        name: Such as ``attention.all_gather``.
        collective: Which collective.
        axis: Along which axis of the plan.
        message_bytes: Full buffer, as nccl-tests prints it: what each rank ends up with in an all-reduce,
            all-gather or broadcast, what each rank starts with in a reduce-scatter or all-to-all [B].
        routed: Where the message of an all-to-all is tokens, one copy for each expert, that travel together;
            None if every copy travels on its own.
    """

    name: str
    collective: Collective
    axis: Axis
    message_bytes: int
    routed: Routed | None = None
