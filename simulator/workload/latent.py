"""Multi-head latent attention: queries, keys and values through narrow latent vectors.

The projections down to the latent vectors are held by every tensor-parallel GPU, those up from them are split
by heads. Keys and values are written out for training.

Source: DeepSeek-V2, arXiv:2405.04434, section 2.1.
"""

from __future__ import annotations

from simulator.specs.model import LatentAttentionSpec, TransformerSpec
from simulator.workload import chains, operators
from simulator.workload.attention import add_norm, add_scores, add_scores_gradient, casts_output
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.context import Core
from simulator.workload.kernels import Collective, Communication, Kernel
from simulator.workload.lora import reads_input
from simulator.workload.matrices import add_input_gradient, add_product, count_part


def _readers(latent: LatentAttentionSpec) -> tuple[str, ...]:
    """Matrices that read the normed residual stream."""
    return ("attention.down",) if latent.q_lora_rank else ("attention.down", "attention.query_up")


_UP = ("attention.query_up", "attention.key_value_up")


def _core(model: TransformerSpec, latent: LatentAttentionSpec, shard: Shard) -> Core:
    heads = model.num_attention_heads // shard.tensor_parallel
    key = latent.qk_nope_head_dim + latent.qk_rope_head_dim
    window = model.sliding_window or 0
    return Core(heads, heads, key, latent.v_head_dim, model.family == "decoder", window)


def _down(latent: LatentAttentionSpec) -> int:
    """Columns of the projections down: latent query, latent key and value, rotary key."""
    return latent.q_lora_rank + latent.kv_lora_rank + latent.qk_rope_head_dim


def _kv_up(latent: LatentAttentionSpec, core: Core) -> int:
    """Columns of the projection from the latent vector to keys and values."""
    return core.heads * (latent.qk_nope_head_dim + latent.v_head_dim)


def add_forward(into: PassBuilder, model: TransformerSpec, latent: LatentAttentionSpec, shard: Shard) -> None:
    """Norm, projections down and up, rotary part, core, output, residual."""
    width, element, tokens = model.hidden_size, shard.element_bytes, shard.tokens
    residual, first = shard.residual_tokens * width, len(into.nodes)
    core, down = _core(model, latent, shard), _down(latent)
    add_norm(into, model, shard, "attention", *_readers(latent))
    into.add(_tensor("attention", "all_gather", tokens * width * element) if _gathers(shard) else None)
    size, made_by = tokens * down * element, "layernorm:attention"
    add_product(into, "attention.down", tokens, down, width, shard, kept=size, made_by=made_by)
    with into.of("mla_up_projection"):
        _add_up(into, model, latent, core, shard)
    add_scores(into, core, shard)
    add_product(
        into,
        "attention.output",
        tokens,
        width,
        core.output_width,
        shard,
        kept_operand=reads_input(shard, "attention.output"),
    )
    into.add(_summed(shard, "attention", tokens * width * element))
    into.add(
        chains.residual("attention.residual", residual, model.attention_output_bias, shard),
        kept=residual * shard.dropout,
    )
    count_part(into, "attention.down", 1, shard.tensor_parallel, first=first)


def _add_up(
    into: PassBuilder, model: TransformerSpec, latent: LatentAttentionSpec, core: Core, shard: Shard
) -> None:
    """Norm of the latent vectors, projections up from them, rotary part."""
    tokens, element = shard.tokens, shard.element_bytes
    ranks = latent.q_lora_rank + latent.kv_lora_rank
    into.add(
        chains.norm("attention.latent_norm", tokens * ranks, model, shard),
        kept=reads_input(shard, *_UP) * shard.operand_bytes(tokens * ranks),
    )
    rows = latent.q_lora_rank or model.hidden_size
    size = tokens * core.query_width * element
    add_product(into, "attention.query_up", tokens, core.query_width, rows, shard, kept=size)
    size = tokens * core.key_value_width * element
    columns = _kv_up(latent, core)
    add_product(into, "attention.key_value_up", tokens, columns, latent.kv_lora_rank, shard, kept=size)
    into.add(_rotary("attention.rotary", latent, core, shard))


def add_backward(
    into: PassBuilder, model: TransformerSpec, latent: LatentAttentionSpec, shard: Shard
) -> None:
    """The same backwards."""
    width, element, tokens = model.hidden_size, shard.element_bytes, shard.tokens
    residual, first = shard.residual_tokens * width, len(into.nodes)
    core, down = _core(model, latent, shard), _down(latent)
    into.needs("layernorm:attention")
    if _gathers(shard):
        into.add(_tensor("attention.gradient", "all_gather", tokens * width * element))
    add_input_gradient(into, "attention.output", tokens, core.output_width, width, shard)
    operand = shard.operand_bytes(tokens * core.output_width) if casts_output(shard) else 0
    _weights(into, shard, "attention.output", width, core.output_width, freed=operand)
    into.needs("mla_up_projection")
    add_scores_gradient(into, core, shard, freed=tokens * (core.query_width + core.key_value_width) * element)
    into.add(_rotary("attention.rotary.gradient", latent, core, shard))
    ranks, rows = latent.q_lora_rank + latent.kv_lora_rank, latent.q_lora_rank or width
    columns = _kv_up(latent, core)
    add_input_gradient(into, "attention.key_value_up", tokens, latent.kv_lora_rank, columns, shard)
    _weights(into, shard, "attention.key_value_up", columns, latent.kv_lora_rank)
    add_input_gradient(into, "attention.query_up", tokens, rows, core.query_width, shard)
    freed = reads_input(shard, *_UP) * shard.operand_bytes(tokens * ranks)
    _weights(into, shard, "attention.query_up", core.query_width, rows, freed=freed)
    into.add(
        chains.norm_gradient("attention.latent_norm.gradient", tokens * ranks, model, shard),
        freed=tokens * down * element,
    )
    data = add_input_gradient(into, "attention.down", tokens, width, down, shard)
    reduced = into.add(_summed(shard, "attention.gradient", tokens * width * element), after=(data,))
    _weights(into, shard, "attention.down", down, width, after=(data,))
    into.add(
        chains.norm_gradient("attention.norm.gradient", residual, model, shard),
        after=(reduced,),
        freed=residual * chains.kept_by_norm(model, shard, "attention.norm")
        + reads_input(shard, *_readers(latent)) * shard.operand_bytes(residual),
    )
    biased = model.attention_output_bias and shard.trains("attention.output")
    into.add(
        chains.residual_gradient("attention.residual.gradient", residual, biased, shard),
        freed=residual * shard.dropout,
    )
    count_part(into, "attention.down", 1, shard.tensor_parallel, first=first)


def shapes(model: TransformerSpec, latent: LatentAttentionSpec, shard: Shard) -> dict[str, tuple[int, int]]:
    """Rows and columns of one GPU's matrices, by name."""
    core, width = _core(model, latent, shard), model.hidden_size
    return {
        "attention.down": (width, _down(latent)),
        "attention.query_up": (latent.q_lora_rank or width, core.query_width),
        "attention.key_value_up": (latent.kv_lora_rank, _kv_up(latent, core)),
        "attention.output": (core.output_width, width),
    }


def _weights(
    into: PassBuilder,
    shard: Shard,
    name: str,
    columns: int,
    rows: int,
    *,
    after: tuple[int, ...] | None = None,
    freed: int = 0,
) -> None:
    chains.add_weight_gradient(
        into, f"{name}.weight_gradient", shard.tokens, columns, rows, shard, after=after, freed=freed
    )


def _rotary(name: str, latent: LatentAttentionSpec, core: Core, shard: Shard) -> Kernel:
    """Rotary part of queries and key, and both put together with the rest."""
    element = shard.element_bytes
    columns = core.query_width + core.heads * core.key_dim + latent.qk_rope_head_dim
    return operators.pointwise(
        name, "elementwise", shard.tokens * columns, reads=element, writes=element, flops=6, launches=2
    )


def _gathers(shard: Shard) -> bool:
    return shard.sequence_parallel


def _tensor(name: str, collective: Collective, size: int) -> Communication:
    return Communication(f"{name}.{collective}", collective, "tensor", size)


def _summed(shard: Shard, name: str, size: int) -> Communication | None:
    if shard.tensor_parallel == 1:
        return None
    return _tensor(name, "reduce_scatter" if shard.sequence_parallel else "all_reduce", size)
