"""Self-attention of a layer with its norm, its projections and where it meets the residual stream."""

from __future__ import annotations

from simulator.specs.model import TransformerSpec
from simulator.workload import chains
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.columns import add_column_gradient, gather, reduce, tensor
from simulator.workload.context import Core, add_core, add_core_gradient
from simulator.workload.kernels import Kernel
from simulator.workload.matrices import add_input_gradient, add_product
from simulator.workload.unfused import unfused_attention


def add_forward(into: PassBuilder, model: TransformerSpec, shard: Shard) -> None:
    """Norm, projections, core, output, residual."""
    width, element, tp = model.hidden_size, shard.element_bytes, shard.tensor_parallel
    tokens, residual = shard.tokens, shard.residual_tokens
    query, key_value = head_widths(model, tp)
    into.add(
        chains.norm("attention.norm", residual * width, model, shard),
        kept=residual * width * (element + shard.operand_bytes),
    )
    into.add(gather(shard, "attention", tokens * width * element))
    kept_heads = tokens * (query + key_value) * element
    add_product(into, "attention.qkv", tokens, query + key_value, width, shard, kept=kept_heads)
    into.add(chains.linear_bias("attention.qkv", tokens * (query + key_value), model.attention_bias, shard))
    into.add(chains.rotary(model, shard, "attention.rotary", query + key_value // 2))
    scores = shard.micro_batch_size * (model.num_attention_heads // tp) * shard.sequence_length**2
    if shard.attention == "fused":
        add_core(into, _core(model, shard), shard)
    else:
        forward, _ = _unfused(model, shard)
        dropped = ((element + 1) * scores,) if shard.dropout else ()
        kept = (0, scores * element, *dropped, 0, tokens * query * element)
        for kernel, bytes_kept in zip(forward, kept, strict=True):
            into.add(kernel, kept=bytes_kept, role="core" if kernel is not forward[-1] else "core_output")
    add_product(into, "attention.output", tokens, width, query, shard, kept_operand=True)
    into.add(reduce(shard, "attention", tokens * width * element))
    into.add(
        chains.residual("attention.residual", residual * width, model.attention_output_bias, shard),
        kept=residual * width * shard.dropout,
    )


def add_backward(into: PassBuilder, model: TransformerSpec, shard: Shard) -> None:
    """The same backwards."""
    width, element, tp = model.hidden_size, shard.element_bytes, shard.tensor_parallel
    tokens, residual = shard.tokens, shard.residual_tokens
    query, key_value = head_widths(model, tp)
    if shard.sequence_parallel:
        into.add(tensor(shard, "attention.gradient", "all_gather", tokens * width * element))
    add_input_gradient(into, "attention.output", tokens, query, width, shard)
    operand = tokens * query * shard.operand_bytes if shard.casts else 0
    chains.add_weight_gradient(
        into, "attention.output.weight_gradient", tokens, width, query, shard, freed=operand
    )
    qkv = tokens * (query + key_value) * element
    scores = shard.micro_batch_size * (model.num_attention_heads // tp) * shard.sequence_length**2
    if shard.attention == "fused":
        core = _core(model, shard)
        add_core_gradient(into, core, shard, freed=qkv + core.kept_bytes(shard))
    else:
        _, backward = _unfused(model, shard)
        dropped = ((element + 1) * scores,) if shard.dropout else ()
        freed = (0, tokens * query * element, *dropped, scores * element, 0, 0, qkv)
        for kernel, bytes_freed in zip(backward, freed, strict=True):
            into.add(kernel, freed=bytes_freed)
    into.add(chains.rotary(model, shard, "attention.rotary.gradient", query + key_value // 2))
    columns = query + key_value
    into.add(chains.bias_gradient("attention.qkv", tokens * columns, model.attention_bias, shard))
    add_column_gradient(into, model, shard, "attention.qkv", columns, residual)


def head_widths(model: TransformerSpec, tp: int) -> tuple[int, int]:
    """Width of the queries and of keys and values together on one GPU; few key heads are replicated."""
    key_heads = max(1, model.num_key_value_heads // tp)
    return model.num_attention_heads // tp * model.head_dim, 2 * key_heads * model.head_dim


def _core(model: TransformerSpec, shard: Shard) -> Core:
    tp, size = shard.tensor_parallel, model.head_dim
    key_heads = max(1, model.num_key_value_heads // tp)
    return Core(model.num_attention_heads // tp, key_heads, size, size, model.family == "decoder")


def _unfused(model: TransformerSpec, shard: Shard) -> tuple[tuple[Kernel, ...], tuple[Kernel, ...]]:
    return unfused_attention(
        batch=shard.micro_batch_size,
        heads=model.num_attention_heads // shard.tensor_parallel,
        length=shard.sequence_length,
        head_dim=model.head_dim,
        causal=model.family == "decoder",
        precision=shard.precision,
        dropout=shard.dropout,
        fused_softmax=shard.software.fused_softmax,
    )
