"""The experts' part of a micro-batch on one GPU: how many tokens, and how they travel."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

from simulator.specs.model import MixtureSpec, TransformerSpec
from simulator.workload import operators
from simulator.workload.blocks import Shard
from simulator.workload.kernels import Collective, Communication, Kernel, Routed
from simulator.workload.matrices import transpose
from simulator.workload.precision import FORMATS, RECIPES, sized

_MAP_LAUNCHES: Final = 3
"""Kernels that turn the choice of experts into places of copies.

Source: ``make_row_id_map`` in common/triton/permutation.py of Transformer Engine.
"""

_CHUNK_LAUNCHES: Final = 1
"""The same for what arrives rank by rank (``make_chunk_sort_map``)."""


@dataclass(frozen=True, slots=True)
class Routing:
    """The experts' part of one micro-batch on one GPU.

    Attributes:
        model: The transformer.
        mixture: Its experts.
        shard: The GPU's part.
    """

    model: TransformerSpec
    mixture: MixtureSpec
    shard: Shard

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.model.hidden_size

    @property
    def sent(self) -> int:
        """Copies of tokens that this GPU sends out."""
        return self.shard.residual_tokens * self.mixture.num_experts_per_tok

    @property
    def exchanged(self) -> int:
        """Slots that travel: what the capacity allows, or what the busiest GPU gets."""
        return ceil(self.sent * self.shard.expert_load)

    @property
    def experts(self) -> int:
        """Experts on this GPU."""
        return self.mixture.num_experts // self.shard.expert_parallel

    @property
    def per_expert(self) -> int:
        """Tokens that each of them works on."""
        return ceil(self.exchanged * self.shard.expert_tensor_parallel / self.experts)

    @property
    def worked(self) -> int:
        """Tokens that all of them work on."""
        return self.per_expert * self.experts

    @property
    def needed(self) -> int:
        """Of them, those that the model asks for: no empty slots, nor what the busiest GPU has too many."""
        return min(self.worked, self.sent * self.shard.expert_tensor_parallel)

    @property
    def inner(self) -> int:
        """Width of an expert on this GPU."""
        return self.mixture.moe_intermediate_size // self.shard.expert_tensor_parallel

    @property
    def up(self) -> int:
        """Columns of its first matrix."""
        return self.inner * (2 if self.model.gated_mlp else 1)

    @property
    def shared_inner(self) -> int:
        """Width of the shared experts on this GPU."""
        whole = self.mixture.num_shared_experts * self.mixture.moe_intermediate_size
        return whole // self.shard.tensor_parallel

    @property
    def shared_up(self) -> int:
        """Columns of the shared experts' first matrix."""
        return self.shared_inner * (2 if self.model.gated_mlp else 1)

    @property
    def dispatched(self) -> str:
        """Precision in which tokens, and gradients of what experts made of them, travel to these."""
        return self._travels(self.shard.dispatch)

    @property
    def combined(self) -> str:
        """Precision in which they travel back."""
        return self._travels(self.shard.combine)

    def _travels(self, asked: str) -> str:
        return asked if asked and self.shard.expert_parallel > 1 else self.shard.precision

    @property
    def arrives_cast(self) -> bool:
        """Whether what arrives is an operand of the experts' products; adapters need it as it was."""
        return self.shard.casts and self.dispatched == self.shard.recipe and not self.shard.lora_rank

    def cast(self, name: str, numbers: int, precision: str) -> Kernel | None:
        """Numbers of the passes in the precision in which they will travel; None where it is the same."""
        if FORMATS[precision].bits == FORMATS[self.shard.precision].bits:
            return None
        reads = RECIPES[precision].reads * self.shard.element_bytes
        writes = FORMATS[precision].number_bytes
        return operators.pointwise(
            f"{name}.cast", "elementwise", numbers, reads=reads, writes=writes, flops=2
        )

    def arrived(self, name: str, *, gradient: bool = False) -> Kernel | None:
        """What has travelled, as the experts' products need it; None where it is that.

        An operand that was cast by rows is copied by columns for the weights' gradient; a gradient's copy is
        left to its product.
        """
        numbers, came = self.worked * self.width, FORMATS[self.dispatched]
        if self.arrives_cast:
            return None if gradient else transpose(name, numbers, self.shard, self.experts)
        if came.bits == FORMATS[self.shard.precision].bits:
            return None
        element, read = self.shard.element_bytes, came.number_bytes
        name = f"{name}.cast_back"
        return operators.pointwise(name, "elementwise", numbers, reads=read, writes=element, flops=1)

    def exchange(self, name: str, precision: str) -> Communication | None:
        """All-to-all among those that share out the experts."""
        size = sized(self.exchanged * self.width, FORMATS[precision].number_bytes)
        if self.shard.expert_parallel == 1:
            return None
        return Communication(f"{name}.all_to_all", "all_to_all", "expert", size, self.routed)

    @property
    def routed(self) -> Routed | None:
        """How copies of a token travel together, if they do."""
        mixture = self.mixture
        if self.shard.software.expert_dispatch == "all_to_all":
            return None
        return Routed(mixture.num_experts, mixture.num_experts_per_tok, mixture.n_group, mixture.topk_group)

    def inside(self, name: str, collective: Collective) -> Communication | None:
        """What those that split each expert exchange: what has arrived is gathered, outputs are summed."""
        came = self.dispatched if collective == "all_gather" else self.shard.precision
        size = sized(self.worked * self.width, FORMATS[came].number_bytes)
        if self.shard.expert_tensor_parallel == 1:
            return None
        return Communication(f"{name}.{collective}", collective, "expert_tensor", size)

    @property
    def sorts(self) -> bool:
        """Whether what arrives rank by rank is put into the order of several experts by a kernel of its own.

        Source: Megatron-Core, ``sort_chunks_by_idxs`` in MoEAlltoAllTokenDispatcher; dispatchers that send a
        token to a node once write it where its experts read it.
        """
        return self.shard.expert_parallel > 1 and self.experts > 1 and self.routed is None

    @property
    def pads(self) -> bool:
        """Whether kernels of their own pad what each expert takes, and cut it off what it made."""
        shard = self.shard
        narrow = shard.casts and not self.arrives_cast
        return narrow and shard.software.padded_experts and not shard.expert_capacity and self.routed is None

    def padded(self, name: str) -> Kernel:
        """Tokens of each expert copied to as many rows as its products take, or back."""
        element = self.shard.element_bytes
        size = self.worked * self.width
        return operators.pointwise(name, "elementwise", size, reads=element, writes=element, flops=0)

    def moved(self, name: str, precision: str, *, backward: bool = False) -> Kernel:
        """Copies of tokens put into the order of their experts, or back."""
        element, launches = FORMATS[precision].number_bytes, 1 + _CHUNK_LAUNCHES * (not backward)
        size = self.sent * self.width
        return operators.pointwise(
            name, "elementwise", size, reads=element, writes=element, flops=1, launches=launches
        )

    def copied(self, name: str, precision: str, *, backward: bool = False) -> Kernel:
        """Tokens, or their gradients, written once for each of their experts, in the order of these.

        Copies that travel on their own are made where the tokens are, which are read once; else they are
        made of what arrived, nearly one for each.
        """
        element = FORMATS[precision].number_bytes
        reads = element / self.mixture.num_experts_per_tok if self.routed is None else element
        size, launches = self.sent * self.width, 1 + _MAP_LAUNCHES * (not backward)
        return operators.pointwise(
            name, "elementwise", size, reads=reads, writes=element, flops=1, launches=launches
        )
