"""Attention of a decoder's layer to the encoder's output: queries of one sequence, keys of the other.

Every layer projects the encoder's output, which all share, to keys and values of its own; the gradients
that come back through those projections are added up, layer by layer, until the decoder's first layer hands
their sum to the encoder.

Source: Vaswani et al., arXiv:1706.03762, section 3.2.3; Raffel et al., T5, arXiv:1910.10683.
"""

from __future__ import annotations

from simulator.specs.model import TransformerSpec
from simulator.workload import chains, operators
from simulator.workload.attention import (
    add_norm,
    add_scores,
    add_scores_gradient,
    casts_output,
    head_widths,
)
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.columns import (
    add_column_gradient,
    beside_weight_gradient,
    gather,
    reduce,
    scatter,
    tensor,
)
from simulator.workload.context import Core
from simulator.workload.lora import reads_input
from simulator.workload.matrices import add_input_gradient, add_product

_NAME = "cross_attention"
_QUERY, _KEYS, _OUTPUT = f"{_NAME}.query", f"{_NAME}.key_value", f"{_NAME}.output"


def source_bytes(model: TransformerSpec, shard: Shard) -> int:
    """Bytes of the encoder's output on one GPU, and of its gradient."""
    return shard.residual_source_tokens * model.hidden_size * shard.element_bytes


def add_forward(into: PassBuilder, model: TransformerSpec, shard: Shard, *, first: bool) -> None:
    """Norm, queries; keys and values of the encoder's output; core, output, residual.

    Args:
        into: Takes the nodes.
        model: The transformer.
        shard: One GPU's part of the micro-batch, in the decoder.
        first: Whether this is the first layer here that reads the encoder's output, and keeps it for all.
    """
    width, element = model.hidden_size, shard.element_bytes
    tokens, residual, source = shard.tokens, shard.residual_tokens, shard.source_tokens
    query, key_value = head_widths(model, shard.tensor_parallel)
    add_norm(into, model, shard, _NAME, _QUERY)
    into.add(gather(shard, _NAME, tokens * width * element))
    kept, made_by = tokens * query * element, f"layernorm:{_NAME}"
    add_product(into, _QUERY, tokens, query, width, shard, kept=kept, made_by=made_by)
    into.add(chains.linear_bias(_QUERY, tokens * query, model.attention_bias, shard))
    into.add(gather(shard, f"{_NAME}.source", source * width * element))
    kept = source * key_value * element + _kept_of_source(model, shard, first=first)
    add_product(into, _KEYS, source, key_value, width, shard, kept=kept)
    into.add(chains.linear_bias(_KEYS, source * key_value, model.attention_bias, shard))
    add_scores(into, _core(model, shard), shard)
    kept_operand = reads_input(shard, _OUTPUT)
    add_product(into, _OUTPUT, tokens, width, query, shard, kept_operand=kept_operand)
    into.add(reduce(shard, _NAME, tokens * width * element))
    into.add(
        chains.residual(f"{_NAME}.residual", residual * width, model.attention_output_bias, shard),
        kept=residual * width * shard.dropout,
    )


def add_backward(into: PassBuilder, model: TransformerSpec, shard: Shard, *, first: bool) -> None:
    """The same backwards; the gradient of the encoder's output is added to that of the layers behind."""
    width, element = model.hidden_size, shard.element_bytes
    tokens, source = shard.tokens, shard.source_tokens
    query, key_value = head_widths(model, shard.tensor_parallel)
    into.needs(f"layernorm:{_NAME}")
    if shard.sequence_parallel:
        into.add(tensor(shard, f"{_NAME}.gradient", "all_gather", tokens * width * element))
    add_input_gradient(into, _OUTPUT, tokens, query, width, shard)
    operand = shard.operand_bytes(tokens * query) if casts_output(shard, _NAME) else 0
    chains.add_weight_gradient(into, f"{_OUTPUT}.weight_gradient", tokens, width, query, shard, freed=operand)
    held = (tokens * query + source * key_value) * element
    add_scores_gradient(into, _core(model, shard), shard, freed=held)
    _source_gradient(into, model, shard, first=first)
    into.add(chains.bias_gradient(_QUERY, tokens * query, model.attention_bias, shard))
    add_column_gradient(into, model, shard, _QUERY, query, shard.residual_tokens)


def shapes(model: TransformerSpec, tp: int) -> dict[str, tuple[int, int]]:
    """Rows and columns of one GPU's matrices, by name."""
    width = model.hidden_size
    query, key_value = head_widths(model, tp)
    return {_QUERY: (width, query), _KEYS: (width, key_value), _OUTPUT: (query, width)}


def norms(model: TransformerSpec) -> int:
    """Parameters of the norms that come with it: one, or two where sub-layers are normed before and after."""
    return max(1, model.norms_per_layer // 2) * chains.norm_parameters(model)


def _source_gradient(into: PassBuilder, model: TransformerSpec, shard: Shard, *, first: bool) -> None:
    """Backward of the projection to keys and values, and its part of the gradient of the encoder's output."""
    width, element, source = model.hidden_size, shard.element_bytes, shard.source_tokens
    _, key_value = head_widths(model, shard.tensor_parallel)
    into.add(chains.bias_gradient(_KEYS, source * key_value, model.attention_bias, shard))
    before = (len(into.nodes) - 1,)
    again: tuple[int, ...] = ()
    if shard.sequence_parallel and reads_input(shard, _KEYS):
        gathered = tensor(shard, f"{_NAME}.source.input", "all_gather", source * width * element)
        again = (into.add(gathered, after=before, role="weight_gradient"),)
    if shard.source_frozen:
        kept = shard.residual_source_tokens if first or shard.casts else 0
        name, freed = f"{_KEYS}.weight_gradient", _kept_of_source(model, shard, first=first)
        after = (*before, *again)
        chains.add_weight_gradient(
            into, name, source, key_value, width, shard, after=after, freed=freed, kept_tokens=kept
        )
        return
    ready = before if shard.software.overlap_tensor_parallel else (*before, *again)
    data = add_input_gradient(into, _KEYS, source, width, key_value, shard, after=ready)
    reduced = beside_weight_gradient(
        into,
        shard,
        scatter(shard, f"{_NAME}.source.gradient", source * width * element),
        (f"{_KEYS}.weight_gradient", source, key_value, width),
        data,
        shard.residual_source_tokens if first or shard.casts else 0,
        again=again,
        freed=_kept_of_source(model, shard, first=first),
    )
    elements = shard.residual_source_tokens * width
    summed = operators.pointwise(
        f"{_NAME}.source.accumulate", "elementwise", elements, reads=2 * element, writes=element, flops=1
    )
    into.add(summed, after=(reduced,))


def _kept_of_source(model: TransformerSpec, shard: Shard, *, first: bool) -> int:
    """The encoder's output, kept once, and each layer's own cast of it where operands are cast [B]."""
    elements = shard.residual_source_tokens * model.hidden_size
    return first * source_bytes(model, shard) + (
        shard.operand_bytes(elements) if shard.casts and reads_input(shard, _KEYS) else 0
    )


def _core(model: TransformerSpec, shard: Shard) -> Core:
    tp, size = shard.tensor_parallel, model.head_dim
    key_heads = max(1, model.num_key_value_heads // tp)
    heads = model.num_attention_heads // tp
    return Core(heads, key_heads, size, size, causal=False, source_length=shard.source_length, name=_NAME)
