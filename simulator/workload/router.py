"""The choice of experts: weights, balancing loss, and the numbers of tokens that the host has to know."""

from __future__ import annotations

from typing import Final

from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.kernels import Communication, Kernel
from simulator.workload.operators import pointwise

_FLOPS: Final = 12
"""Arithmetic of softmax, top-k and balancing loss for each pair of token and expert."""

_LAUNCHES: Final = 9 + 8
"""Kernels of the choice: casts, softmax, top-k (two), its scatter into weights and map; and of the balancing
loss: another softmax, tokens and probabilities summed by expert, product, sum, scale, hook, log.

Source: ``topk_softmax_with_capacity``, ``switch_load_balancing_loss_func`` and ``MoEAuxLossAutoScaler`` in
    transformer/moe/moe_utils.py of Megatron-Core.
"""

_GRADIENT_LAUNCHES: Final = 4 + 7
"""Their backward passes, and the sum of both gradients."""

_COUNT_LAUNCHES: Final = 10
"""Kernels and copies to the host that count tokens by expert and rank.

Source: ``preprocess`` of MoEAlltoAllTokenDispatcher in transformer/moe/token_dispatcher.py of Megatron-Core.
"""

_COUNT_BYTES: Final = 4


def add_choice(into: PassBuilder, experts: int, shard: Shard) -> None:
    """Weights and balancing loss; behind them, if the host must know, the tokens of each expert.

    The lengths of what is exchanged and multiplied are arguments of the calls that the host makes, so it
    waits for them, unless a capacity fixes them beforehand.

    Source: ``_maybe_dtoh_and_synchronize`` of MoEAlltoAllTokenDispatcher in Megatron-Core.
    """
    into.add(_choice("router.choice", experts, shard, _LAUNCHES))
    if not shard.software.host_counts_tokens or shard.expert_capacity:
        return
    ranks = shard.expert_parallel
    if ranks > 1:
        told = ranks * experts * _COUNT_BYTES
        into.add(Communication("experts.counts.all_gather", "all_gather", "expert", told))
    pairs = shard.residual_tokens * experts
    counts = pointwise(
        "experts.counts", "elementwise", pairs, reads=1, writes=0, flops=1, launches=_COUNT_LAUNCHES
    )
    into.add(counts, read_by_host=True)


def add_choice_gradient(into: PassBuilder, experts: int, shard: Shard) -> None:
    """Backward passes of the choice and of the balancing loss."""
    into.add(_choice("router.choice.gradient", experts, shard, _GRADIENT_LAUNCHES))


def _choice(name: str, experts: int, shard: Shard, launches: int) -> Kernel:
    pairs = shard.residual_tokens * experts
    return pointwise(name, "elementwise", pairs, reads=8, writes=8, flops=_FLOPS, launches=launches)
