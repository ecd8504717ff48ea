"""A transformer as blocks: embedding, layer, head; each with its forward and backward pass on one GPU.

Tensor parallelism splits matrices by columns, then by rows (Shoeybi et al., arXiv:1909.08053); sequence
parallelism turns each all-reduce into an all-gather and a reduce-scatter and splits what lies between
(Korthikanti et al., arXiv:2205.05198). Kept activations follow the second paper, operator by operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.specs.model import TransformerSpec
from simulator.workload import chains, latent, lora, moe, operators
from simulator.workload.blocks import Block, PassBuilder, Shard
from simulator.workload.context import Core, add_core, add_core_gradient
from simulator.workload.kernels import Collective, Communication, Kernel
from simulator.workload.matrices import add_input_gradient, add_product
from simulator.workload.unfused import unfused_attention


def layer_block(model: TransformerSpec, shard: Shard, *, dense: bool = True) -> Block:
    """One transformer block: attention and MLP, or routed experts, with their norms and residuals.

    Args:
        model: The transformer.
        shard: One GPU's part of the micro-batch.
        dense: Whether it has an MLP though other blocks have routed experts.
    """
    forward, backward = PassBuilder(), PassBuilder()
    mixture = None if dense else model.mixture
    if model.latent_attention is None:
        _attention_forward(model, shard, forward)
    else:
        latent.add_forward(forward, model, model.latent_attention, shard)
    if mixture is None:
        _mlp_forward(model, shard, forward)
        _mlp_backward(model, shard, backward)
    else:
        moe.add_forward(forward, model, mixture, shard)
        moe.add_backward(backward, model, mixture, shard)
    if model.latent_attention is None:
        _attention_backward(model, shard, backward)
    else:
        latent.add_backward(backward, model, model.latent_attention, shard)
    held = layer_parameters(model, shard, dense=dense)
    return Block(
        name="layer",
        forward=forward.done(),
        backward=backward.done(),
        parameters=held.total,
        input_bytes=shard.residual_tokens * model.hidden_size * shard.element_bytes,
        sequential_parameters=0 if shard.lora_rank else held.replicated,
        expert_parameters=held.expert,
        frozen_parameters=held.frozen,
    )


def embedding_block(model: TransformerSpec, shard: Shard) -> Block:
    """Token (and position) look-up; the table is split by rows of the vocabulary."""
    tokens, width, element = shard.tokens, model.hidden_size, shard.element_bytes
    rows = _vocab_shard(model, shard)
    forward, backward = PassBuilder(), PassBuilder()
    learned = model.position_embedding == "learned"
    forward.add(
        operators.pointwise(
            "embedding",
            "embedding",
            tokens * width,
            reads=element * (2 if learned else 1),
            writes=element,
            flops=1,
        )
    )
    forward.add(_reduce(shard, "embedding", tokens * width * element))
    if shard.dropout:
        size = shard.residual_tokens * width
        drop = operators.pointwise(
            "embedding.dropout", "elementwise", size, reads=element, writes=element + 1, flops=2
        )
        forward.add(drop, kept=size)
        undo = operators.pointwise(
            "embedding.dropout.gradient", "elementwise", size, reads=element + 1, writes=element, flops=2
        )
        backward.add(undo, freed=size)
    if shard.sequence_parallel and not shard.lora_rank:
        backward.add(_tensor(shard, "embedding.gradient", "all_gather", tokens * width * element))
    backward.add(
        None
        if shard.lora_rank
        else operators.pointwise(
            "embedding.gradient",
            "embedding",
            tokens * width,
            reads=element + shard.gradient_bytes,
            writes=shard.gradient_bytes,
            flops=1,
        ),
        role="weight_gradient",
    )
    positions = model.max_position_embeddings * width if learned else 0
    if not shard.software.fused_gradient_accumulation and not shard.lora_rank:
        table = rows * width + positions
        zeroed = operators.pointwise(
            "embedding.gradient.zero", "embedding", table, reads=0, writes=element, flops=0
        )
        backward.add(zeroed, role="weight_gradient")
        accumulated = chains.accumulation("embedding.gradient.accumulate", table, shard)
        backward.add(accumulated, role="weight_gradient")
    return Block(
        name="embedding",
        forward=forward.done(),
        backward=backward.done(),
        parameters=rows * width + positions,
        input_bytes=tokens * 8,
        sequential_parameters=0 if shard.lora_rank else positions,
        frozen_parameters=rows * width + positions if shard.lora_rank else 0,
    )


def head_block(model: TransformerSpec, shard: Shard, *, shares_embedding: bool) -> Block:
    """Final norm, projection to the vocabulary and loss; the vocabulary is split over the GPUs.

    Args:
        model: The transformer.
        shard: One GPU's part of the micro-batch.
        shares_embedding: Whether the projection's matrix is already counted with the embedding on this GPU.
    """
    tokens, width, element = shard.tokens, model.hidden_size, shard.element_bytes
    residual, rows = shard.residual_tokens, _vocab_shard(model, shard)
    forward, backward = PassBuilder(), PassBuilder()
    logits, normed = tokens * rows, residual * width
    encoder = model.family == "encoder"
    if encoder:
        forward.add(
            operators.matmul("head.transform", residual, width, width, shard.precision), kept=normed * element
        )
    forward.add(chains.norm("head.norm", normed, model, shard), kept=2 * normed * element)
    forward.add(_gather(shard, "head", tokens * width * element))
    forward.add(operators.matmul("head", tokens, rows, width, shard.precision), kept=logits * element)
    probabilities = chains.kept_per_logit(shard) * logits
    forward.add(chains.cross_entropy(logits, shard), kept=probabilities)
    forward.add(_tensor(shard, "loss", "all_reduce", 3 * 4 * tokens))
    backward.add(chains.cross_entropy_gradient(logits, shard), freed=probabilities)
    data = backward.add(operators.matmul("head.input_gradient", tokens, width, rows, shard.precision))
    reduction = _scatter(shard, "head.gradient", tokens * width * element)
    reduced = _beside_weight_gradient(
        backward,
        shard,
        reduction,
        ("head.weight_gradient", tokens, rows, width),
        data,
        residual,
        precision=shard.precision,
        freed=logits * element,
    )
    norm_gradient = chains.norm_gradient("head.norm.gradient", normed, model, shard)
    backward.add(norm_gradient, after=(reduced,), freed=2 * normed * element)
    if encoder:
        _dense_backward(backward, "head.transform", residual, width, shard, freed=normed * element)
    norm = width * (2 if model.norm == "layernorm" else 1)
    transform = (width * width + width) * encoder
    held = (0 if shares_embedding else rows * width) + norm + transform
    return Block(
        name="head",
        forward=forward.done(),
        backward=backward.done(),
        parameters=held,
        input_bytes=normed * element,
        sequential_parameters=0 if shard.lora_rank else norm + transform,
        frozen_parameters=held if shard.lora_rank else 0,
        read_parameters=rows * width if shares_embedding else 0,
    )


def _dense_backward(
    into: PassBuilder, name: str, tokens: int, width: int, shard: Shard, *, freed: int
) -> None:
    into.add(operators.matmul(f"{name}.input_gradient", tokens, width, width, shard.precision))
    chains.add_weight_gradient(into, f"{name}.weight_gradient", tokens, width, width, shard, freed=freed)


def _vocab_shard(model: TransformerSpec, shard: Shard) -> int:
    """Rows of the vocabulary on one GPU; frameworks pad the table until it divides."""
    return -(-model.vocab_size // shard.tensor_parallel)


def _attention_forward(model: TransformerSpec, shard: Shard, into: PassBuilder) -> None:
    width, element, tp = model.hidden_size, shard.element_bytes, shard.tensor_parallel
    tokens, residual = shard.tokens, shard.residual_tokens
    query, key_value = _head_widths(model, tp)
    into.add(
        chains.norm("attention.norm", residual * width, model, shard),
        kept=residual * width * (element + shard.operand_bytes),
    )
    into.add(_gather(shard, "attention", tokens * width * element))
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
    into.add(_reduce(shard, "attention", tokens * width * element))
    into.add(
        chains.residual("attention.residual", residual * width, model.attention_output_bias, shard),
        kept=residual * width * shard.dropout,
    )


def _mlp_forward(model: TransformerSpec, shard: Shard, into: PassBuilder) -> None:
    width, element, tp = model.hidden_size, shard.element_bytes, shard.tensor_parallel
    tokens, residual, inner = shard.tokens, shard.residual_tokens, model.intermediate_size // tp
    up = inner * (2 if model.gated_mlp else 1)
    into.add(
        chains.norm("mlp.norm", residual * width, model, shard),
        kept=residual * width * (element + shard.operand_bytes),
    )
    into.add(_gather(shard, "mlp", tokens * width * element))
    add_product(into, "mlp.up", tokens, up, width, shard, kept=tokens * up * element)
    kept = chains.kept_by_activation(tokens * inner, model, shard)
    into.add(chains.activation(model, tokens * inner, shard), kept=kept)
    add_product(into, "mlp.down", tokens, width, inner, shard)
    into.add(_reduce(shard, "mlp", tokens * width * element))
    into.add(
        chains.residual("mlp.residual", residual * width, model.mlp_bias, shard),
        kept=residual * width * shard.dropout,
    )


def _mlp_backward(model: TransformerSpec, shard: Shard, into: PassBuilder) -> None:
    width, element, tp = model.hidden_size, shard.element_bytes, shard.tensor_parallel
    tokens, residual, inner = shard.tokens, shard.residual_tokens, model.intermediate_size // tp
    up = inner * (2 if model.gated_mlp else 1)
    if shard.sequence_parallel:
        into.add(_tensor(shard, "mlp.gradient", "all_gather", tokens * width * element))
    add_input_gradient(into, "mlp.down", tokens, inner, width, shard)
    operand = tokens * inner * shard.operand_bytes
    chains.add_weight_gradient(into, "mlp.down.weight_gradient", tokens, width, inner, shard, freed=operand)
    apart = chains.kept_by_activation(tokens * inner, model, shard) - operand
    into.add(chains.activation_gradient(model, tokens * inner, shard), freed=tokens * up * element + apart)
    _column_backward(model, shard, into, "mlp.up", up, residual)


def _attention_backward(model: TransformerSpec, shard: Shard, into: PassBuilder) -> None:
    width, element, tp = model.hidden_size, shard.element_bytes, shard.tensor_parallel
    tokens, residual = shard.tokens, shard.residual_tokens
    query, key_value = _head_widths(model, tp)
    if shard.sequence_parallel:
        into.add(_tensor(shard, "attention.gradient", "all_gather", tokens * width * element))
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
    _column_backward(model, shard, into, "attention.qkv", columns, residual)


def _column_backward(
    model: TransformerSpec, shard: Shard, into: PassBuilder, name: str, columns: int, residual: int
) -> None:
    """Backward of a column-split matrix, its norm, and where the branch leaves the residual stream."""
    element, tokens, width = shard.element_bytes, shard.tokens, model.hidden_size
    part = name.partition(".")[0]
    before = (len(into.nodes) - 1,)
    again: tuple[int, ...] = ()
    if shard.sequence_parallel:
        gathered = _tensor(shard, f"{part}.input", "all_gather", tokens * width * element)
        again = (into.add(gathered, after=before, role="weight_gradient"),)
    ready = before if shard.software.overlap_tensor_parallel else (*before, *again)
    data = add_input_gradient(into, name, tokens, width, columns, shard, after=ready)
    reduced = _beside_weight_gradient(
        into,
        shard,
        _scatter(shard, f"{part}.gradient", tokens * width * element),
        (f"{name}.weight_gradient", tokens, columns, width),
        data,
        residual,
        again=again,
    )
    into.add(
        chains.norm_gradient(f"{part}.norm.gradient", residual * width, model, shard),
        after=(reduced,),
        freed=residual * width * (element + shard.operand_bytes),
    )
    biased = model.mlp_bias if part == "mlp" else model.attention_output_bias
    into.add(
        chains.residual_gradient(f"{part}.residual.gradient", residual * width, biased, shard),
        freed=residual * width * shard.dropout,
    )
    if not shard.software.fused_gradient_accumulation:
        vectors = width * (2 if model.norm == "layernorm" else 1) + (columns + width) * biased
        launches = 2 if model.norm == "layernorm" else 1
        into.add(chains.accumulation(f"{part}.vectors.accumulate", vectors, shard, launches + 2 * biased))


def _beside_weight_gradient(
    into: PassBuilder,
    shard: Shard,
    reduction: Communication | None,
    weight: tuple[str, int, int, int],
    data: int,
    kept_tokens: int,
    *,
    again: tuple[int, ...] = (),
    freed: int = 0,
    precision: str | None = None,
) -> int:
    """The gradient of a weight, and the reduction of the input's gradient beside it or behind it.

    Returns:
        Index of what the rest of the pass waits for.
    """
    beside = shard.software.overlap_tensor_parallel
    reduced = into.add(reduction, after=(data,)) if beside else data
    last = chains.add_weight_gradient(
        into,
        *weight,
        shard,
        after=(data, *again),
        freed=freed,
        kept_tokens=kept_tokens,
        precision=precision,
    )
    return reduced if beside or reduction is None else into.add(reduction, after=(last,))


def _head_widths(model: TransformerSpec, tp: int) -> tuple[int, int]:
    """Width of the queries and of keys and values together on one GPU; few key heads are replicated."""
    key_heads = max(1, model.num_key_value_heads // tp)
    return model.num_attention_heads // tp * model.head_dim, 2 * key_heads * model.head_dim


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """What one GPU holds of a layer.

    Attributes:
        total: All parameters, adapters included.
        replicated: Those that every tensor-parallel GPU holds.
        expert: Those of routed experts.
        frozen: Those that are not trained.
    """

    total: int
    replicated: int
    expert: int
    frozen: int


def layer_parameters(model: TransformerSpec, shard: Shard, *, dense: bool = True) -> LayerParameters:
    """Parameters of one layer on one GPU."""
    tp, width = shard.tensor_parallel, model.hidden_size
    query, key_value = _head_widths(model, tp)
    inner = model.intermediate_size // tp
    up = inner * (2 if model.gated_mlp else 1)
    vectors = model.norms_per_layer * width * (2 if model.norm == "layernorm" else 1)
    vectors += width * model.attention_output_bias + width * model.mlp_bias
    vectors += 2 * model.head_dim * model.qk_norm
    shapes = {
        "attention.qkv": (width, query + key_value),
        "attention.output": (query, width),
        "mlp.up": (width, up),
        "mlp.down": (inner, width),
    }
    matrices = (query + key_value) * model.attention_bias + up * model.mlp_bias
    expert = 0
    if model.latent_attention is not None:
        split, whole = latent.parameters(model, model.latent_attention, shard)
        matrices, vectors = matrices + split, vectors + whole
        shapes = {name: shape for name, shape in shapes.items() if name.startswith("mlp")}
    if model.mixture is not None and not dense:
        expert = moe.expert_parameters(model, model.mixture, shard)
        shared, router = moe.other_parameters(model, model.mixture, shard)
        matrices, vectors = matrices + shared, vectors + router
        shapes = {name: shape for name, shape in shapes.items() if name.startswith("attention")}
    matrices += sum(rows * columns for rows, columns in shapes.values())
    whole = matrices + vectors + expert
    adapters = lora.parameters(shapes, shard)
    return LayerParameters(whole + adapters, vectors, expert, whole if shard.lora_rank else 0)


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


def _tensor(shard: Shard, name: str, collective: Collective, message_bytes: int) -> Communication | None:
    if shard.tensor_parallel == 1:
        return None
    return Communication(f"{name}.{collective}", collective, "tensor", message_bytes)


def _gather(shard: Shard, name: str, message_bytes: int) -> Communication | None:
    """What a column-split matrix needs before it: the whole sequence, if that is split."""
    return _tensor(shard, name, "all_gather", message_bytes) if shard.sequence_parallel else None


def _reduce(shard: Shard, name: str, message_bytes: int) -> Communication | None:
    """What a row-split matrix needs after it: the sum over the GPUs."""
    return _tensor(shard, name, "reduce_scatter" if shard.sequence_parallel else "all_reduce", message_bytes)


def _scatter(shard: Shard, name: str, message_bytes: int) -> Communication | None:
    """The backward of `_gather`, or of the copy that stands in its place."""
    return _reduce(shard, name, message_bytes)
