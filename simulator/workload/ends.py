"""What stands before and behind a transformer's layers: the embedding; norm, projection and loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.specs.model import TransformerSpec
from simulator.workload import chains, operators
from simulator.workload.blocks import Block, Node, PassBuilder, Shard
from simulator.workload.columns import beside_weight_gradient, gather, reduce, scatter, tensor
from simulator.workload.operators import pointwise
from simulator.workload.weights import add_weight, kept_weight


def embedding_block(model: TransformerSpec, shard: Shard, *, shares_table: bool = False) -> Block:
    """Token (and position) look-up; the table is split by rows of the vocabulary.

    Args:
        model: The transformer.
        shard: One GPU's part of the micro-batch.
        shares_table: Whether the table is already counted with another embedding on this GPU.
    """
    tokens, width = shard.tokens, model.hidden_size
    table = vocab_shard(model, shard) * width
    learned = model.position_embedding == "learned"
    positions = model.max_position_embeddings * width if learned else 0
    trained = shard.trains("embedding")
    held = positions + (0 if shares_table else table)
    return Block(
        name="embedding",
        forward=_looked_up(tokens * width, shard, learned=learned, masked=shard.residual_tokens * width),
        backward=_embedding_gradient(tokens * width, table + positions, shard, shard.residual_tokens * width),
        parameters=held,
        input_bytes=tokens * 8,
        sequential_parameters=positions if trained else 0,
        frozen_parameters=0 if trained else held,
        read_parameters=table if shares_table else 0,
    )


def _looked_up(elements: int, shard: Shard, *, learned: bool, masked: int) -> tuple[Node, ...]:
    """Rows, and learned positions, summed over those that share out the vocabulary; `masked` dropped out."""
    element, into = shard.element_bytes, PassBuilder()
    reads = element * (2 if learned else 1)
    into.add(pointwise("embedding", "embedding", elements, reads=reads, writes=element, flops=1))
    into.add(reduce(shard, "embedding", elements * element))
    if shard.dropout:
        name = "embedding.dropout"
        drop = pointwise(name, "elementwise", masked, reads=element, writes=element + 1, flops=2)
        into.add(drop, kept=masked)
    return into.done()


def _embedding_gradient(elements: int, table: int, shard: Shard, masked: int) -> tuple[Node, ...]:
    """Gradients added to the rows that were looked up; elsewhere the whole `table` is zeroed and added."""
    element, gradient, into = shard.element_bytes, shard.gradient_bytes, PassBuilder()
    name, role = "embedding.gradient", "weight_gradient"
    if shard.dropout:
        undone = "embedding.dropout.gradient"
        undo = pointwise(undone, "elementwise", masked, reads=element + 1, writes=element, flops=2)
        into.add(undo, freed=masked)
    if not shard.trains("embedding"):
        return into.done()
    if shard.sequence_parallel:
        into.add(tensor(shard, name, "all_gather", elements * element))
    reads = element + gradient
    into.add(pointwise(name, "embedding", elements, reads=reads, writes=gradient, flops=1), role=role)
    if not shard.software.fused_gradient_accumulation:
        zeroed = pointwise(f"{name}.zero", "embedding", table, reads=0, writes=element, flops=0)
        into.add(zeroed, role=role)
        into.add(chains.accumulation(f"{name}.accumulate", table, shard), role=role)
    return into.done()


def head_block(model: TransformerSpec, shard: Shard, *, shares_embedding: bool) -> Block:
    """Final norm, projection to the vocabulary and loss; the vocabulary is split over the GPUs.

    A matrix that is the embedding's, too, is trained if that is. Where an encoder predicts some of its
    positions only, these are gathered first, and their gradients put back among zeros at the end.

    Args:
        model: The transformer.
        shard: One GPU's part of the micro-batch.
        shares_embedding: Whether the projection's matrix is already counted with the embedding on this GPU.
    """
    head = _Head(model, _named(model, shard))
    width, shard = model.hidden_size, head.shard
    whole = {"head.norm": chains.norm_parameters(model) * model.final_norm}
    whole["head.transform"] = (width * width + width) * head.transforms
    table = 0 if shares_embedding else head.table
    held = table + sum(whole.values())
    trained = sum(size for name, size in whole.items() if shard.trains(name))
    return Block(
        name="head",
        forward=_head_forward(head),
        backward=_head_backward(head),
        parameters=held,
        input_bytes=shard.residual_tokens * width * shard.element_bytes,
        sequential_parameters=trained,
        frozen_parameters=held - trained - table * head.reads,
        read_parameters=head.table if shares_embedding else 0,
    )


@dataclass(frozen=True, slots=True)
class _Head:
    """The head on one GPU.

    Attributes:
        model: The transformer.
        shard: One GPU's part of the micro-batch.
    """

    model: TransformerSpec
    shard: Shard

    @property
    def transforms(self) -> bool:
        """Whether a dense layer stands before the projection: an encoder's."""
        return self.model.family == "encoder"

    @property
    def tokens(self) -> int:
        """Positions that are predicted."""
        return self.shard.predicted(self.shard.tokens)

    @property
    def residual(self) -> int:
        """Of them, those of the residual stream that this GPU holds."""
        return self.shard.predicted(self.shard.residual_tokens)

    @property
    def gathers(self) -> bool:
        """Whether some positions only are predicted."""
        return self.residual < self.shard.residual_tokens

    @property
    def normed(self) -> int:
        """Numbers of the stream at these positions."""
        return self.residual * self.model.hidden_size

    @property
    def rows(self) -> int:
        """Rows of the vocabulary."""
        return vocab_shard(self.model, self.shard)

    @property
    def table(self) -> int:
        """Numbers of the projection's matrix."""
        return self.rows * self.model.hidden_size

    @property
    def logits(self) -> int:
        """Numbers that the projection gives."""
        return self.tokens * self.rows

    @property
    def reads(self) -> bool:
        """Whether the gradient of the matrix needs its input."""
        return self.shard.trains("head")

    @property
    def kept_by_norm(self) -> int:
        """What the norm keeps for itself [B]."""
        own = self.normed * chains.kept_by_norm(self.model, self.shard, "head.norm")
        return own if self.model.final_norm else 0

    @property
    def kept_input(self) -> int:
        """What the projection reads, where its gradient needs that [B]."""
        return self.reads * self.normed * self.shard.element_bytes

    @property
    def kept_logits(self) -> int:
        """What the projection keeps: logits, and its input where no norm before it does [B]."""
        own = chains.kept_logits(self.shard) * self.logits
        return own + (0 if self.model.final_norm else self.kept_input)

    @property
    def kept_probabilities(self) -> int:
        """What the loss keeps [B]."""
        return chains.kept_per_logit(self.shard) * self.logits

    @property
    def kept_by_transform(self) -> int:
        """What the dense layer keeps [B]."""
        return self.normed * self.shard.element_bytes * self.shard.trains("head.transform")


def _head_forward(head: _Head) -> tuple[Node, ...]:
    model, shard, into = head.model, head.shard, PassBuilder()
    width, element, normed, precision = model.hidden_size, shard.element_bytes, head.normed, shard.precision
    if head.gathers:
        into.add(pointwise("head.gather", "elementwise", normed, reads=element, writes=element, flops=0))
    if head.transforms:
        dense = operators.matmul("head.transform", head.residual, width, width, precision)
        into.add(dense, kept=head.kept_by_transform)
    if model.final_norm:
        own = head.kept_by_norm
        norm = chains.norm("head.norm", normed, model, shard)
        into.add(norm, kept=own + head.kept_input, kept_input=own)
    into.add(gather(shard, "head", head.tokens * width * element))
    made = add_weight(into, "head", head.table, shard, matrix=False)
    product = operators.matmul("head", head.tokens, head.rows, width, precision)
    into.add(product, after=made or None, kept=head.kept_logits)
    into.add(chains.cross_entropy(head.logits, shard), kept=head.kept_probabilities)
    into.add(tensor(shard, "loss", "all_reduce", 3 * 4 * head.tokens))
    return into.done()


def _head_backward(head: _Head) -> tuple[Node, ...]:
    model, shard, into = head.model, head.shard, PassBuilder()
    width, element, tokens, precision = model.hidden_size, shard.element_bytes, head.tokens, shard.precision
    into.add(chains.cross_entropy_gradient(head.logits, shard), freed=head.kept_probabilities)
    made = add_weight(into, "head", head.table, shard, backward=True, matrix=False)
    data = into.add(
        operators.matmul("head.input_gradient", tokens, width, head.rows, precision),
        after=made or None,
        freed=kept_weight(head.table, shard, matrix=False),
    )
    reduced = beside_weight_gradient(
        into,
        shard,
        scatter(shard, "head.gradient", tokens * width * element),
        ("head.weight_gradient", tokens, head.rows, width),
        data,
        head.residual,
        precision=precision,
        freed=head.kept_logits,
        overlaps=model.final_norm,
    )
    if model.final_norm:
        gradient = chains.norm_gradient("head.norm.gradient", head.normed, model, shard)
        into.add(gradient, after=(reduced,), freed=head.kept_by_norm + head.kept_input)
    if head.transforms:
        _dense_backward(into, "head.transform", head.residual, width, shard, freed=head.kept_by_transform)
    if head.gathers:
        name, zeroed = "head.gather.gradient", shard.residual_tokens * width
        into.add(pointwise(name, "elementwise", zeroed, reads=0, writes=element, flops=0, launches=2))
    return into.done()


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
