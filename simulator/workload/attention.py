"""Self-attention of a layer with its norm, its projections and where it meets the residual stream."""

from __future__ import annotations

from simulator.specs.model import TransformerSpec
from simulator.workload import chains, operators
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.columns import add_column_gradient, add_gather, add_reduce, casts_to_gather
from simulator.workload.context import Core, add_core, add_core_gradient
from simulator.workload.lora import reads_input
from simulator.workload.matrices import add_input_gradient, add_product
from simulator.workload.unfused import add_unfused, add_unfused_gradient


def add_forward(into: PassBuilder, model: TransformerSpec, shard: Shard) -> None:
    """Norm, projections, core, output, residual."""
    width, element, tp = model.hidden_size, shard.element_bytes, shard.tensor_parallel
    tokens, residual = shard.tokens, shard.residual_tokens
    query, key_value = head_widths(model, tp)
    add_norm(into, model, shard, "attention", "attention.qkv")
    add_gather(into, shard, "attention", width, made_by="layernorm:attention")
    kept_heads = tokens * (query + key_value) * element
    ready = casts_to_gather(shard)
    add_product(
        into,
        "attention.qkv",
        tokens,
        query + key_value,
        width,
        shard,
        kept=kept_heads,
        ready=ready,
        made_by="layernorm:attention",
    )
    into.add(chains.linear_bias("attention.qkv", tokens * (query + key_value), model.attention_bias, shard))
    normed = query + key_value // 2
    if model.qk_norm:
        into.add(
            chains.norm("attention.query_key_norm", tokens * normed, model, shard),
            kept=tokens * normed * element,
        )
    into.add(chains.rotary(model, shard, "attention.rotary", normed))
    add_scores(into, _core(model, shard), shard)
    add_product(
        into,
        "attention.output",
        tokens,
        width,
        query,
        shard,
        kept_operand=reads_input(shard, "attention.output"),
    )
    add_reduce(into, shard, "attention", tokens * width * element)
    into.add(
        chains.residual("attention.residual", residual * width, model.attention_output_bias, shard),
        kept=residual * width * shard.dropout,
    )


def add_backward(into: PassBuilder, model: TransformerSpec, shard: Shard) -> None:
    """The same backwards."""
    width, element, tp = model.hidden_size, shard.element_bytes, shard.tensor_parallel
    tokens, residual = shard.tokens, shard.residual_tokens
    query, key_value = head_widths(model, tp)
    into.needs("layernorm:attention")
    add_gather(into, shard, "attention.gradient", width)
    add_input_gradient(into, "attention.output", tokens, query, width, shard, ready=casts_to_gather(shard))
    operand = shard.operand_bytes(tokens * query) if casts_output(shard) else 0
    chains.add_weight_gradient(
        into, "attention.output.weight_gradient", tokens, width, query, shard, freed=operand
    )
    columns = query + key_value
    add_scores_gradient(into, _core(model, shard), shard, freed=tokens * columns * element)
    normed = query + key_value // 2
    into.add(chains.rotary(model, shard, "attention.rotary.gradient", normed))
    if model.qk_norm:
        into.add(
            chains.norm_gradient("attention.query_key_norm.gradient", tokens * normed, model, shard),
            freed=tokens * normed * element,
        )
    into.add(chains.bias_gradient("attention.qkv", tokens * columns, model.attention_bias, shard))
    add_column_gradient(into, model, shard, "attention.qkv", columns, residual)


def casts_output(shard: Shard, part: str = "attention") -> bool:
    """Whether a cast of the core's output is kept for the gradient of the projection behind it."""
    return shard.casts and reads_input(shard, f"{part}.output")


def add_norm(into: PassBuilder, model: TransformerSpec, shard: Shard, part: str, *readers: str) -> None:
    """The norm before a part of the layer; keeps the residual stream, and its output as readers need it."""
    elements = shard.residual_tokens * model.hidden_size
    stream = elements * chains.kept_by_norm(model, shard, f"{part}.norm")
    with into.of(f"layernorm:{part}"):
        into.add(
            chains.norm(f"{part}.norm", elements, model, shard),
            kept=stream + reads_input(shard, *readers) * shard.operand_bytes(elements),
            kept_input=stream,
        )


def add_scores(into: PassBuilder, core: Core, shard: Shard) -> None:
    """The core of attention, fused or not."""
    with into.of(f"core_attention:{core.name}"):
        if shard.attention == "fused":
            add_core(into, core, shard)
        else:
            add_unfused(into, core, shard)


def add_scores_gradient(into: PassBuilder, core: Core, shard: Shard, *, freed: int) -> None:
    """Its backward pass, which releases queries, keys and values: `freed` bytes.

    The gradient of a bias of positions is added to what the layers behind have left.
    """
    into.needs(f"core_attention:{core.name}")
    if shard.attention == "fused":
        add_core_gradient(into, core, shard, freed=freed + core.kept_bytes(shard))
    else:
        add_unfused_gradient(into, core, shard, freed=freed)
    if core.biased and shard.trains("position_bias"):
        element = shard.element_bytes
        scores = core.heads * shard.sequence_length**2 // shard.context_parallel
        name = f"{core.name}.bias.accumulate"
        into.add(operators.pointwise(name, "elementwise", scores, reads=2 * element, writes=element, flops=1))


def head_widths(model: TransformerSpec, tp: int) -> tuple[int, int]:
    """Width of the queries and of keys and values together on one GPU; few key heads are replicated."""
    key_heads = max(1, model.num_key_value_heads // tp)
    return model.num_attention_heads // tp * model.head_dim, 2 * key_heads * model.head_dim


def position_bias_bytes(model: TransformerSpec, shard: Shard) -> int:
    """Bytes of the biases that relative positions add to the scores of every layer on one GPU."""
    if not model.relative_attention_num_buckets:
        return 0
    heads = model.num_attention_heads // shard.tensor_parallel
    return heads * shard.sequence_length**2 // shard.context_parallel * shard.element_bytes


def _core(model: TransformerSpec, shard: Shard) -> Core:
    tp, size = shard.tensor_parallel, model.head_dim
    key_heads = max(1, model.num_key_value_heads // tp)
    return Core(
        model.num_attention_heads // tp,
        key_heads,
        size,
        size,
        causal=model.family == "decoder" or shard.source_length > 0,
        window=model.sliding_window or 0,
        biased=model.relative_attention_num_buckets > 0,
    )
