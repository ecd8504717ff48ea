"""Attention of a sequence that is split over GPUs: keys go round, are gathered, or heads are split."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.workload import operators
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.kernels import Collective, Communication, Kernel


@dataclass(frozen=True, slots=True)
class Core:
    """The attention core of one GPU.

    Attributes:
        heads: Query heads.
        kv_heads: Heads of keys and values.
        key_dim: Size of a head of queries and keys.
        value_dim: Size of a head of values.
        causal: Whether a token sees only what stands before it.
        window: Tokens that each token sees, 0 for all.
        biased: Whether scores have a bias of positions, which is read.
        source_length: Tokens of the keys' sequence where that is another one; 0 for the queries' own.
        name: What the operators are called after.
    """

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    causal: bool
    window: int = 0
    biased: bool = False
    source_length: int = 0
    name: str = "attention"

    @property
    def output_width(self) -> int:
        """Columns of the output."""
        return self.heads * self.value_dim

    @property
    def key_value_width(self) -> int:
        """Columns of keys and values together."""
        return self.kv_heads * (self.key_dim + self.value_dim)

    @property
    def query_width(self) -> int:
        """Columns of the queries."""
        return self.heads * self.key_dim

    def key_length(self, shard: Shard) -> int:
        """Tokens of the whole sequence of the keys."""
        return self.source_length or shard.sequence_length

    def key_tokens(self, shard: Shard) -> int:
        """Tokens of the keys that one GPU holds."""
        return shard.micro_batch_size * self.key_length(shard) // shard.context_parallel

    def kept_bytes(self, shard: Shard) -> int:
        """The output and the statistics of its softmax [B]."""
        return shard.tokens * (self.output_width * shard.element_bytes + 4 * self.heads)


def add_core(into: PassBuilder, core: Core, shard: Shard) -> int:
    """Fused attention, forward; with a split sequence also what its GPUs tell one another.

    ``ring``: each GPU holds two chunks of the sequence, one from its beginning and one from its end, so that
    all have the same to do under a causal mask (zigzag); keys and values go round while the ones before are
    worked on. ``all_to_all``: heads are split instead of the sequence for the time of the core (Ulysses).
    ``all_gather``: every GPU gathers all keys and values first.

    Source: Liu et al., Ring Attention, arXiv:2310.01889; Jacobs et al., DeepSpeed-Ulysses, arXiv:2309.14509;
        Llama 3, arXiv:2407.21783, section 3.3.2 (all-gather).
    """
    kept = core.kept_bytes(shard)
    parts, length, keys = shard.context_parallel, shard.sequence_length, core.key_length(shard)
    if parts == 1:
        return into.add(_kernel(core, shard, length, keys), kept=kept, kept_output=kept)
    if shard.context_method == "all_to_all":
        into.add(_exchange(f"{core.name}.heads", _sent(core, shard), shard))
        into.add(_kernel(_fewer_heads(core, parts), shard, length, keys))
        given = _exchange(f"{core.name}.sequence", shard.tokens * core.output_width, shard)
        return into.add(given, kept=kept, kept_output=kept)
    if shard.context_method == "all_gather":
        into.add(_gathered("all_gather", core, shard))
        return into.add(_gathered_kernel(core, shard), kept=kept, kept_output=kept)
    return _add_ring(into, core, shard, kept=kept, freed=0, backward=False)


def add_core_gradient(into: PassBuilder, core: Core, shard: Shard, *, freed: int) -> int:
    """Fused attention, backward; keys, values and their gradients go round, or the exchanges in reverse."""
    parts, length, keys = shard.context_parallel, shard.sequence_length, core.key_length(shard)
    if parts == 1:
        return into.add(_kernel(core, shard, length, keys, backward=True), freed=freed)
    if shard.context_method == "all_to_all":
        into.add(_exchange(f"{core.name}.sequence.gradient", shard.tokens * core.output_width, shard))
        into.add(_kernel(_fewer_heads(core, parts), shard, length, keys, backward=True))
        return into.add(_exchange(f"{core.name}.heads.gradient", _sent(core, shard), shard), freed=freed)
    if shard.context_method == "all_gather":
        into.add(_gathered("all_gather", core, shard))
        into.add(_gathered_kernel(core, shard, backward=True))
        return into.add(_gathered("reduce_scatter", core, shard), freed=freed)
    return _add_ring(into, core, shard, kept=0, freed=freed, backward=True)


def _add_ring(into: PassBuilder, core: Core, shard: Shard, *, kept: int, freed: int, backward: bool) -> int:
    own = shard.sequence_length // shard.context_parallel
    coming_round = core.key_length(shard) // shard.context_parallel
    size = core.key_tokens(shard) * core.key_value_width * shard.element_bytes * (2 if backward else 1)
    name = f"{core.name}.ring.gradient" if backward else f"{core.name}.ring"
    before = (len(into.nodes) - 1,) if into.nodes else ()
    arrived = before
    last = -1
    for number in range(shard.context_parallel):
        coming = arrived
        onwards = number < shard.context_parallel - 1
        if onwards:
            arrived = (into.add(Communication(f"{name}.send", "send", "context", size), after=arrived),)
        # Of the blocks that come round, half the pairs are masked: a chunk of queries, or one of keys.
        keys = coming_round if number == 0 or not core.causal else max(1, own // 2)
        kernel = _kernel(core, shard, own, keys, backward=backward, causal=core.causal and number == 0)
        waits = (*coming, *((last,) if last >= 0 else ()))
        ends = not onwards
        last = into.add(
            kernel,
            after=waits,
            kept=kept if ends else 0,
            kept_output=kept if ends else 0,
            freed=freed if ends else 0,
        )
    return last


def _kernel(
    core: Core,
    shard: Shard,
    queries: int,
    keys: int,
    *,
    backward: bool = False,
    causal: bool | None = None,
) -> Kernel:
    return operators.fused_attention(
        f"{core.name}.core.gradient" if backward else f"{core.name}.core",
        batch=shard.micro_batch_size,
        heads=core.heads,
        kv_heads=core.kv_heads,
        query_length=queries,
        key_length=keys,
        head_dim=(core.key_dim + core.value_dim) // 2,
        causal=core.causal if causal is None else causal,
        precision=shard.precision,
        backward=backward,
        window=core.window,
        bias=core.biased,
    )


def _gathered_kernel(core: Core, shard: Shard, *, backward: bool = False) -> Kernel:
    """A GPU's two chunks against all keys: on average a query sees half of them, or its window."""
    length, keys = shard.sequence_length, core.key_length(shard)
    own = length // shard.context_parallel
    if core.causal and 0 < core.window < length:
        keys = -(-operators.attended_pairs(length, length, causal=True, window=core.window) // length)
    elif core.causal:
        keys = length // 2
    return _kernel(core, shard, own, keys, backward=backward, causal=False)


def _fewer_heads(core: Core, parts: int) -> Core:
    return replace(core, heads=core.heads // parts, kv_heads=max(1, core.kv_heads // parts))


def _sent(core: Core, shard: Shard) -> int:
    """Numbers that each GPU sends for all to have their heads; few heads of keys go to several GPUs."""
    keys = core.key_value_width * max(1, shard.context_parallel // core.kv_heads)
    return shard.tokens * core.query_width + core.key_tokens(shard) * keys


def _exchange(name: str, numbers: int, shard: Shard) -> Communication:
    return Communication(f"{name}.all_to_all", "all_to_all", "context", numbers * shard.element_bytes)


def _gathered(collective: Collective, core: Core, shard: Shard) -> Communication:
    numbers = core.key_tokens(shard) * shard.context_parallel * core.key_value_width
    size = numbers * shard.element_bytes
    return Communication(f"{core.name}.keys.{collective}", collective, "context", size)
