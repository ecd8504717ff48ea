"""What stands before and behind a transformer's layers: the embedding; norm, projection and loss."""

from __future__ import annotations

from dataclasses import replace

from simulator.specs.model import TransformerSpec
from simulator.workload import chains, operators
from simulator.workload.blocks import Block, PassBuilder, Shard
from simulator.workload.columns import beside_weight_gradient, gather, reduce, scatter, tensor
from simulator.workload.weights import add_weight, kept_weight


def embedding_block(model: TransformerSpec, shard: Shard, *, shares_table: bool = False) -> Block:
    """Token (and position) look-up; the table is split by rows of the vocabulary.

    Args:
        model: The transformer.
        shard: One GPU's part of the micro-batch.
        shares_table: Whether the table is already counted with another embedding on this GPU.
    """
    tokens, width, element = shard.tokens, model.hidden_size, shard.element_bytes
    rows = vocab_shard(model, shard)
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
    forward.add(reduce(shard, "embedding", tokens * width * element))
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
    trained = shard.trains("embedding")
    if shard.sequence_parallel and trained:
        backward.add(tensor(shard, "embedding.gradient", "all_gather", tokens * width * element))
    backward.add(
        operators.pointwise(
            "embedding.gradient",
            "embedding",
            tokens * width,
            reads=element + shard.gradient_bytes,
            writes=shard.gradient_bytes,
            flops=1,
        )
        if trained
        else None,
        role="weight_gradient",
    )
    positions = model.max_position_embeddings * width if learned else 0
    if not shard.software.fused_gradient_accumulation and trained:
        table = rows * width + positions
        zeroed = operators.pointwise(
            "embedding.gradient.zero", "embedding", table, reads=0, writes=element, flops=0
        )
        backward.add(zeroed, role="weight_gradient")
        accumulated = chains.accumulation("embedding.gradient.accumulate", table, shard)
        backward.add(accumulated, role="weight_gradient")
    held = positions + (0 if shares_table else rows * width)
    return Block(
        name="embedding",
        forward=forward.done(),
        backward=backward.done(),
        parameters=held,
        input_bytes=tokens * 8,
        sequential_parameters=positions if trained else 0,
        frozen_parameters=0 if trained else held,
        read_parameters=rows * width if shares_table else 0,
    )


def head_block(model: TransformerSpec, shard: Shard, *, shares_embedding: bool) -> Block:
    """Final norm, projection to the vocabulary and loss; the vocabulary is split over the GPUs.

    A matrix that is the embedding's, too, is trained if that is. Where an encoder predicts some of its
    positions only, these are gathered first, and their gradients put back among zeros at the end.

    Args:
        model: The transformer.
        shard: One GPU's part of the micro-batch.
        shares_embedding: Whether the projection's matrix is already counted with the embedding on this GPU.
    """
    width, element, rows = model.hidden_size, shard.element_bytes, vocab_shard(model, shard)
    tokens, residual = shard.predicted(shard.tokens), shard.predicted(shard.residual_tokens)
    forward, backward = PassBuilder(), PassBuilder()
    logits, normed, own = tokens * rows, residual * width, 0
    encoder = model.family == "encoder"
    shard = _named(model, shard)
    reads, some = shard.trains("head"), residual < shard.residual_tokens
    if some:
        forward.add(
            operators.pointwise("head.gather", "elementwise", normed, reads=element, writes=element, flops=0)
        )
    if encoder:
        kept = normed * element * shard.trains("head.transform")
        forward.add(operators.matmul("head.transform", residual, width, width, shard.precision), kept=kept)
    if model.final_norm:
        own = normed * chains.kept_by_norm(model, shard, "head.norm")
        norm = chains.norm("head.norm", normed, model, shard)
        forward.add(norm, kept=own + reads * normed * element, kept_input=own)
    forward.add(gather(shard, "head", tokens * width * element))
    kept = chains.kept_logits(shard) * logits + (0 if model.final_norm else reads * normed * element)
    table = rows * width
    made = add_weight(forward, "head", table, shard, matrix=False)
    forward.add(operators.matmul("head", tokens, rows, width, shard.precision), after=made or None, kept=kept)
    probabilities = chains.kept_per_logit(shard) * logits
    forward.add(chains.cross_entropy(logits, shard), kept=probabilities)
    forward.add(tensor(shard, "loss", "all_reduce", 3 * 4 * tokens))
    backward.add(chains.cross_entropy_gradient(logits, shard), freed=probabilities)
    made = add_weight(backward, "head", table, shard, backward=True, matrix=False)
    data = backward.add(
        operators.matmul("head.input_gradient", tokens, width, rows, shard.precision),
        after=made or None,
        freed=kept_weight(table, shard, matrix=False),
    )
    reduction = scatter(shard, "head.gradient", tokens * width * element)
    reduced = beside_weight_gradient(
        backward,
        shard,
        reduction,
        ("head.weight_gradient", tokens, rows, width),
        data,
        residual,
        precision=shard.precision,
        freed=kept,
        overlaps=model.final_norm,
    )
    if model.final_norm:
        norm_gradient = chains.norm_gradient("head.norm.gradient", normed, model, shard)
        backward.add(norm_gradient, after=(reduced,), freed=own + reads * normed * element)
    if encoder:
        freed = normed * element * shard.trains("head.transform")
        _dense_backward(backward, "head.transform", residual, width, shard, freed=freed)
    if some:
        zeroed = shard.residual_tokens * width
        put_back = operators.pointwise(
            "head.gather.gradient", "elementwise", zeroed, reads=0, writes=element, flops=0, launches=2
        )
        backward.add(put_back)
    whole = {"head.norm": chains.norm_parameters(model) * model.final_norm}
    whole["head.transform"] = (width * width + width) * encoder
    table = 0 if shares_embedding else rows * width
    held = table + sum(whole.values())
    trained = sum(size for name, size in whole.items() if shard.trains(name))
    return Block(
        name="head",
        forward=forward.done(),
        backward=backward.done(),
        parameters=held,
        input_bytes=shard.residual_tokens * width * element,
        sequential_parameters=trained,
        frozen_parameters=held - trained - table * reads,
        read_parameters=rows * width if shares_embedding else 0,
    )


def _named(model: TransformerSpec, shard: Shard) -> Shard:
    """The shard with the head's matrix frozen if it is the embedding's, and that is."""
    if not model.tie_word_embeddings:
        return shard
    frozen = shard.frozen - {"head"}
    return replace(shard, frozen=frozen | {"head"} if "embedding" in frozen else frozen)


def _dense_backward(
    into: PassBuilder, name: str, tokens: int, width: int, shard: Shard, *, freed: int
) -> None:
    into.add(operators.matmul(f"{name}.input_gradient", tokens, width, width, shard.precision))
    chains.add_weight_gradient(into, f"{name}.weight_gradient", tokens, width, width, shard, freed=freed)


def vocab_shard(model: TransformerSpec, shard: Shard) -> int:
    """Rows of the vocabulary on one GPU; frameworks pad the table until it divides."""
    return -(-model.vocab_size // shard.tensor_parallel)
