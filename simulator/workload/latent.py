"""Multi-head latent attention: queries, keys and values through narrow latent vectors.

The projections down to the latent vectors are held by every tensor-parallel GPU, those up from them are split
by heads. Keys and values are written out for training.

Source: DeepSeek-V2, arXiv:2405.04434, section 2.1; Megatron-Core, ``MLASelfAttention``
(megatron/core/transformer/multi_latent_attention.py), for what tensor-parallel GPUs exchange.
"""

from __future__ import annotations

from simulator.specs.model import LatentAttentionSpec, TransformerSpec
from simulator.workload import chains, operators
from simulator.workload.attention import add_norm, add_scores, add_scores_gradient, casts_output
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.columns import (
    add_gather,
    add_reduce,
    add_split_gradient,
    casts_to_gather,
    gather,
    reduce,
)
from simulator.workload.context import Core
from simulator.workload.kernels import Kernel
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
    own, first = shard.residual_tokens, len(into.nodes)
    core, down = _core(model, latent, shard), _down(latent)
    add_norm(into, model, shard, "attention", *_readers(latent))
    size, made_by = own * down * element, "layernorm:attention"
    add_product(into, "attention.down", own, down, width, shard, kept=size, made_by=made_by)
    with into.of("mla_up_projection"):
        _add_up(into, model, latent, core, shard)
    add_scores(into, core, shard)
    kept_operand = reads_input(shard, "attention.output")
    add_product(into, "attention.output", tokens, width, core.output_width, shard, kept_operand=kept_operand)
    add_reduce(into, shard, "attention", tokens * width * element)
    into.add(
        chains.residual("attention.residual", own * width, model.attention_output_bias, shard),
        kept=own * width * shard.dropout,
    )
    _count_down(into, shard, first)


def _add_up(
    into: PassBuilder, model: TransformerSpec, latent: LatentAttentionSpec, core: Core, shard: Shard
) -> None:
    """Norm of the latent vectors, projections up from them, rotary part.

    Of a split sequence every GPU projects its part down; what is gathered are the latent vectors.
    """
    tokens, element, own = shard.tokens, shard.element_bytes, shard.residual_tokens
    ranks, ready = latent.q_lora_rank + latent.kv_lora_rank, casts_to_gather(shard)
    into.add(
        chains.norm("attention.latent_norm", own * ranks, model, shard),
        kept=reads_input(shard, *_UP) * shard.operand_bytes(own * ranks),
    )
    products = (
        ("attention.query_up", latent.q_lora_rank or model.hidden_size, core.query_width, core.query_width),
        ("attention.key_value_up", latent.kv_lora_rank, _kv_up(latent, core), core.key_value_width),
    )
    for name, rows, columns, kept in products:
        add_gather(into, shard, name, rows)
        add_product(into, name, tokens, columns, rows, shard, kept=tokens * kept * element, ready=ready)
    into.add(gather(shard, "attention.rotary_key", tokens * latent.qk_rope_head_dim * element))
    into.add(_rotary("attention.rotary", latent, core, shard))


def add_backward(
    into: PassBuilder, model: TransformerSpec, latent: LatentAttentionSpec, shard: Shard
) -> None:
    """The same backwards; gradients of the latent vectors are summed over those that share out the heads."""
    width, element, tokens = model.hidden_size, shard.element_bytes, shard.tokens
    own, first = shard.residual_tokens, len(into.nodes)
    core, down = _core(model, latent, shard), _down(latent)
    into.needs("layernorm:attention")
    add_gather(into, shard, "attention.gradient", width)
    ready = casts_to_gather(shard)
    add_input_gradient(into, "attention.output", tokens, core.output_width, width, shard, ready=ready)
    operand = shard.operand_bytes(tokens * core.output_width) if casts_output(shard) else 0
    weight = ("attention.output.weight_gradient", tokens, width, core.output_width)
    chains.add_weight_gradient(into, *weight, shard, freed=operand)
    into.needs("mla_up_projection")
    add_scores_gradient(into, core, shard, freed=tokens * (core.query_width + core.key_value_width) * element)
    into.add(_rotary("attention.rotary.gradient", latent, core, shard))
    turned = len(into.nodes) - 1
    summed = _up_gradients(into, model, latent, core, shard)
    key = reduce(shard, "attention.rotary_key.gradient", tokens * latent.qk_rope_head_dim * element)
    if key is not None:
        summed = (*summed, into.add(key, after=(turned,)))
    ranks = latent.q_lora_rank + latent.kv_lora_rank
    into.add(
        chains.norm_gradient("attention.latent_norm.gradient", own * ranks, model, shard),
        after=summed,
        freed=own * down * element,
    )
    data = add_input_gradient(into, "attention.down", own, width, down, shard)
    chains.add_weight_gradient(into, "attention.down.weight_gradient", own, down, width, shard, after=(data,))
    into.add(
        chains.norm_gradient("attention.norm.gradient", own * width, model, shard),
        after=(data,),
        freed=own * width * chains.kept_by_norm(model, shard, "attention.norm")
        + reads_input(shard, *_readers(latent)) * shard.operand_bytes(own * width),
    )
    biased = model.attention_output_bias and shard.trains("attention.output")
    into.add(
        chains.residual_gradient("attention.residual.gradient", own * width, biased, shard),
        freed=own * width * shard.dropout,
    )
    _count_down(into, shard, first)


def _up_gradients(
    into: PassBuilder, model: TransformerSpec, latent: LatentAttentionSpec, core: Core, shard: Shard
) -> tuple[int, ...]:
    """Backward of the projections up; what ends the gradients of the latent vectors."""
    ranks = latent.q_lora_rank + latent.kv_lora_rank
    freed = reads_input(shard, *_UP) * shard.operand_bytes(shard.residual_tokens * ranks)
    name, columns = "attention.key_value_up", _kv_up(latent, core)
    keys = add_split_gradient(into, shard, name, latent.kv_lora_rank, columns, about=name)
    name, rows = "attention.query_up", latent.q_lora_rank or model.hidden_size
    queries = add_split_gradient(into, shard, name, rows, core.query_width, about=name, freed=freed)
    return keys, queries


def _count_down(into: PassBuilder, shard: Shard, first: int) -> None:
    """Of projections down that all GPUs compute of the whole sequence, one counts."""
    alike = 1 if shard.sequence_parallel else shard.tensor_parallel
    count_part(into, "attention.down", 1, alike, first=first)


def shapes(model: TransformerSpec, latent: LatentAttentionSpec, shard: Shard) -> dict[str, tuple[int, int]]:
    """Rows and columns of one GPU's matrices, by name."""
    core, width = _core(model, latent, shard), model.hidden_size
    return {
        "attention.down": (width, _down(latent)),
        "attention.query_up": (latent.q_lora_rank or width, core.query_width),
        "attention.key_value_up": (latent.kv_lora_rank, _kv_up(latent, core)),
        "attention.output": (core.output_width, width),
    }


def _rotary(name: str, latent: LatentAttentionSpec, core: Core, shard: Shard) -> Kernel:
    """Rotary part of queries and key, and both put together with the rest."""
    element = shard.element_bytes
    columns = core.query_width + core.heads * core.key_dim + latent.qk_rope_head_dim
    return operators.pointwise(
        name, "elementwise", shard.tokens * columns, reads=element, writes=element, flops=6, launches=2
    )
