"""A transformer's blocks in the order in which a sample visits them, on the stages of a plan.

The layers of an encoder-decoder are those of the encoder, then those of the decoder. What the decoder reads
of the encoder travels with its own stream from part to part, and so do the gradients of both on their way
back: the parts stay one chain, whatever the schedule.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from simulator.program.plan import Plan
from simulator.program.schedules import Placement
from simulator.specs.distillation import DistillationSpec
from simulator.specs.model import TransformerSpec
from simulator.specs.training import TrainingSpec
from simulator.workload import Block, Shard, embedding_block, head_block, layer_block
from simulator.workload.distillation import comparison_block, taught, teacher_head_block
from simulator.workload.frozen import frozen
from simulator.workload.stacks import encoder_norm_block, front_end_block, position_bias_block

Blocks = tuple[tuple[tuple[Block, ...], ...], ...]
"""Blocks by stage and chunk."""

KEPT_MODELS: Final = 64
"""Models on shards of which blocks are kept."""


@dataclass(frozen=True, slots=True)
class Tie:
    """Parameters of which several stages hold copies, whose gradients they sum.

    Attributes:
        name: Whose they are.
        parameters: How many one GPU holds.
        stages: Stages that hold a copy.
    """

    name: str
    parameters: int
    stages: frozenset[int]


@dataclass(frozen=True, slots=True)
class Layout:
    """A transformer on the stages.

    Attributes:
        blocks: Blocks by stage and chunk; equal ones are one object.
        ties: Parameters that lie on several stages.
    """

    blocks: Blocks
    ties: tuple[Tie, ...]


def lay_out(model: TransformerSpec, plan: Plan, training: TrainingSpec, shard: Shard) -> Layout:
    """The blocks of every chunk of every stage.

    Args:
        model: The transformer.
        plan: The plan.
        training: Lengths of the sequences, and the layers that are frozen.
        shard: One GPU's part of a micro-batch, in the encoder if there is one.
    """
    own = _in_last_stack(model, training, shard)
    return _Layouter(model, plan.placement, plan.layers_per_part, training.frozen_layers, shard, own).run()


def with_teacher(
    student: Layout,
    model: TransformerSpec,
    distillation: DistillationSpec,
    plan: Plan,
    training: TrainingSpec,
    shard: Shard,
) -> Layout:
    """The student's blocks with a teacher's before them in each part, and the comparison behind the last.

    Args:
        student: The student's blocks.
        model: The student.
        distillation: Its teacher.
        plan: The plan.
        training: Lengths of the sequences.
        shard: One GPU's part of a micro-batch.
    """
    teacher, top_k = distillation.teacher, distillation.top_k
    # A teacher reads as it would be used: without dropout, and none of it is adapted.
    first = replace(shard, dropout=False, lora_rank=0, weights="", weights_stay=True)
    last = _in_last_stack(teacher, training, first)
    layers = plan.teacher_layers_per_part
    made = _Layouter(teacher, plan.placement, layers, 0, first, last, top_k=top_k, teaches=True).run()
    known: dict[int, Block] = {}
    compared = comparison_block(model, _in_last_stack(model, training, shard), top_k=top_k)
    whole = []
    for stage, chunks in enumerate(student.blocks):
        joined = []
        for chunk, own in enumerate(chunks):
            shown = []
            for block in made.blocks[stage][chunk]:
                if id(block) not in known:
                    known[id(block)] = block if block.teacher else taught(block)
                shown.append(known[id(block)])
            ends = plan.placement.part(stage, chunk) == plan.placement.depth - 1
            joined.append((*shown, *own, *((compared,) if ends else ())))
        whole.append(tuple(joined))
    return Layout(tuple(whole), student.ties)


def _in_last_stack(model: TransformerSpec, training: TrainingSpec, shard: Shard) -> Shard:
    """The part of a micro-batch in the decoder of a model that has both stacks; else as it is."""
    length = training.decoder_sequence_length
    if model.num_encoder_layers is None or length is None:
        return shard
    return replace(shard, sequence_length=length, source_length=shard.sequence_length)


def tokens_between(model: TransformerSpec, training: TrainingSpec, layers_before: int) -> int:
    """Tokens of one sequence that one part hands to the next, behind so many layers of the model.

    Within the encoder its stream, within the decoder its own and the encoder's output, behind all layers the
    decoder's.
    """
    encoder = model.num_encoder_layers
    if encoder is None or layers_before <= encoder:
        return training.sequence_length
    decoder = training.decoder_sequence_length or 0
    return decoder + (training.sequence_length if layers_before < model.num_hidden_layers else 0)


@dataclass(slots=True)
class _Made:
    """Blocks that were made of one model on one shard, for all plans that lay them out.

    Attributes:
        model: The model.
        blocks: Each kind of block by all that tells it from the others.
        sizes: Parameters of each table that may lie on several stages.
    """

    model: TransformerSpec
    blocks: dict[tuple[object, ...], Block] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


_MADE: OrderedDict[tuple[object, ...], _Made] = OrderedDict()
"""What was made last, by all that blocks are made of."""


def _made(model: TransformerSpec, *others: object) -> _Made:
    """What was made of a model and of what else there is; models hold dicts and are compared, not hashed."""
    key = (model.name, *others)
    found = _MADE.get(key)
    if found is None or (found.model is not model and found.model != model):
        found = _MADE[key] = _Made(model)
    _MADE.move_to_end(key)
    if len(_MADE) > KEPT_MODELS:
        _MADE.popitem(last=False)
    return found


def forget_blocks() -> None:
    """Forgets all that was made; nothing but time depends on it."""
    _MADE.clear()


@dataclass(slots=True)
class _Layouter:
    """Lays a model out; each kind of block is made once."""

    model: TransformerSpec
    placement: Placement
    layers: tuple[int, ...]
    frozen_layers: int
    first: Shard
    own: Shard
    top_k: int | None = None
    teaches: bool = False
    made: _Made = field(init=False)
    alike: bool = field(init=False)
    holders: dict[str, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Finds what was made of the same model before."""
        model = self.model
        self.made = _made(model, self.first, self.own, self.frozen_layers > 0, self.top_k, self.teaches)
        self.alike = not (self.frozen_layers or model.num_encoder_layers)
        self.alike &= model.mixture is None or not model.mixture.first_k_dense_replace

    def run(self) -> Layout:
        placement = self.placement
        whole: list[tuple[tuple[Block, ...], ...]] = []
        for stage in range(placement.stages):
            parts = [placement.part(stage, chunk) for chunk in range(placement.chunks)]
            # A stage's copy of a table belongs to the block that a sample visits first.
            held = {part: self._part(stage, part) for part in sorted(parts)}
            whole.append(tuple(held[part] for part in parts))
        return Layout(tuple(whole), self._ties())

    def _part(self, stage: int, part: int) -> tuple[Block, ...]:
        model, layers = self.model, self.layers
        begin = sum(layers[:part])
        end, split = begin + layers[part], model.num_encoder_layers or 0
        found: list[Block] = []
        if part == 0:
            found.append(self._entrance(stage))
        if begin < split:
            found += [*self._biases("encoder", stage, self.first), *self._layers(begin, min(end, split))]
        if begin < split <= end and model.final_norm:
            found.append(self._made(("norm",), lambda: encoder_norm_block(model, self.first)))
        if split and begin <= split < end:
            found.append(self._embedding(stage, self.own))
        if end > max(begin, split):
            found += [*self._biases("decoder", stage, self.own), *self._layers(max(begin, split), end)]
        if part == self.placement.depth - 1:
            found.append(self._head(stage))
        return tuple(found)

    def _head(self, stage: int) -> Block:
        model, top_k = self.model, self.top_k
        shares = model.tie_word_embeddings and self._holds("embedding", stage)

        def make() -> Block:
            if self.teaches:
                return teacher_head_block(model, self.own, shares_embedding=shares, top_k=top_k)
            return head_block(model, self.own, shares_embedding=shares)

        return self._made(("head", shares), make)

    def _entrance(self, stage: int) -> Block:
        if self.model.num_mel_bins:
            return self._made(("front end",), lambda: front_end_block(self.model, self.first))
        return self._embedding(stage, self.first)

    def _embedding(self, stage: int, shard: Shard) -> Block:
        """An embedding; nothing below it is trained, and it is not where layers are frozen or adapted."""
        shares = self._holds("embedding", stage)
        untrained = bool(self.frozen_layers or shard.lora_rank)
        below = replace(shard, lora_rank=0)

        def make() -> Block:
            block = embedding_block(self.model, below, shares_table=shares)
            self.made.sizes.setdefault("embedding", block.parameters - block.sequential_parameters)
            return frozen(block) if untrained else block

        return self._made(("embedding", shard is self.own, shares), make)

    def _biases(self, stack: str, stage: int, shard: Shard) -> list[Block]:
        """The stack's bias of relative positions, if it has one."""
        if not self.model.relative_attention_num_buckets:
            return []
        name = f"{stack}_position_bias"
        shares = self._holds(name, stage)

        def make() -> Block:
            block = position_bias_block(self.model, shard, shares_table=shares)
            self.made.sizes.setdefault(name, block.parameters)
            return block

        return [self._made((name, shares), make)]

    def _layers(self, begin: int, end: int) -> list[Block]:
        """Layers of one stack in one part."""
        if self.alike:
            return [self._layer(begin, first=True)] * (end - begin)
        return [self._layer(number, first=number == begin) for number in range(begin, end)]

    def _layer(self, number: int, *, first: bool) -> Block:
        model, mixture = self.model, self.model.mixture
        shard = self.first if number < (model.num_encoder_layers or 0) else self.own
        dense = mixture is None or number < mixture.first_k_dense_replace
        first = first and shard.source_length > 0
        untrained = number < self.frozen_layers

        def make() -> Block:
            # Adapters, too, leave nothing to train below the first layer that has them.
            chosen = replace(shard, lora_rank=0) if untrained else shard
            block = layer_block(model, chosen, dense=dense, first=first)
            return frozen(block) if untrained else block

        return self._made(("layer", shard.source_length, dense, first, untrained), make)

    def _made(self, key: tuple[object, ...], make: Callable[[], Block]) -> Block:
        blocks = self.made.blocks
        if key not in blocks:
            blocks[key] = make()
        return blocks[key]

    def _holds(self, table: str, stage: int) -> bool:
        """Whether a stage holds a table already; it does from now on."""
        stages = self.holders.setdefault(table, set())
        held = stage in stages
        stages.add(stage)
        return held

    def _ties(self) -> tuple[Tie, ...]:
        """Tables with copies on several stages; where the model is there twice, replicas sum them anyway."""
        if self.own.lora_rank or self.placement.layout == "two_way":
            return ()
        return tuple(
            Tie(name, self.made.sizes[name], frozenset(stages))
            for name, stages in self.holders.items()
            if len(stages) > 1
        )
