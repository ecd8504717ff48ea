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

from simulator.program.planning.plan import Plan
from simulator.program.schedules.schedule import Placement
from simulator.specs.distillation import DistillationSpec
from simulator.specs.model import TransformerSpec
from simulator.specs.training import TrainingSpec
from simulator.workload import Block, Shard, embedding_block, head_block, layer_block, lora
from simulator.workload.ahead import ahead_block
from simulator.workload.distillation import comparison_block, taught, teacher_head_block
from simulator.workload.frozen import SOURCE, frozen, lowest
from simulator.workload.names import frozen_names, layer_name, layer_operators, stack_of
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
    untrained = frozen_names(model, training)
    return _Layouter(model, plan.placement, plan.layers_per_part, untrained, shard, own).run()


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
    none = frozenset[str]()
    made = _Layouter(teacher, plan.placement, layers, none, first, last, top_k=top_k, teaches=True).run()
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


@dataclass(frozen=True, slots=True)
class _Flows:
    """How far gradients have to flow down.

    Attributes:
        trained: Of each layer, operators that are trained, or whose adapters are.
        layers: Whether anything in its stack below a layer is trained.
        source: Whether anything in the encoder is.
        head: Whether anything below the head is.
    """

    trained: tuple[frozenset[str], ...] = ()
    layers: tuple[bool, ...] = ()
    source: bool = True
    head: bool = True


def _flows(model: TransformerSpec, frozen: frozenset[str], shard: Shard) -> _Flows:
    """How far gradients flow where some parameters, or all but adapters, are frozen."""

    def trains(*names: str) -> bool:
        return not shard.lora_rank and any(name not in frozen for name in names)

    encoder = model.num_encoder_layers or 0
    layers, trained = list[bool](), list[frozenset[str]]()
    source = flows = False
    for number in range(model.num_hidden_layers):
        stack, name = stack_of(model, number), layer_name(model, number)
        if number in (0, encoder):
            entrance = "encoder.front_end" if model.num_mel_bins and stack != "decoder." else "embedding"
            biases = (f"{stack}position_bias",) * (model.relative_attention_num_buckets > 0)
            source = flows or (number > 0 and trains(*("encoder.norm",) * model.final_norm))
            flows = trains(entrance, *biases)
        operators = layer_operators(model, number)
        left = [operator for operator in operators if f"{name}.{operator}" not in frozen]
        if shard.lora_rank:
            left = [operator for operator in left if lora.adapters(operator, 1, shard)]
        layers.append(flows)
        trained.append(frozenset(left))
        flows = flows or bool(left)
    return _Flows(tuple(trained), tuple(layers), source, flows or source)


@dataclass(slots=True)
class _Layouter:
    """Lays a model out; each kind of block is made once."""

    model: TransformerSpec
    placement: Placement
    layers: tuple[int, ...]
    frozen: frozenset[str]
    first: Shard
    own: Shard
    top_k: int | None = None
    teaches: bool = False
    made: _Made = field(init=False)
    alike: bool = field(init=False)
    whole: bool = field(init=False)
    flows: _Flows = field(init=False)
    holders: dict[str, set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Finds what was made of the same model before."""
        model = self.model
        self.made = _made(model, self.first, self.own, self.frozen, self.top_k, self.teaches)
        self.whole = not (self.frozen or self.own.lora_rank)
        self.alike = self.whole and not model.num_encoder_layers
        self.flows = _Flows() if self.whole else _flows(model, self.frozen, self.own)
        self.alike &= model.mixture is None or len(set(map(model.has_experts, range(sum(self.layers))))) == 1

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
            found += self._stack("encoder", stage, self.first, begin, min(end, split))
        if begin < split <= end and model.final_norm:
            found.append(self._encoder_norm())
        if split and begin <= split < end:
            found.append(self._embedding(stage, self.own))
        if end > max(begin, split):
            found += self._stack("decoder", stage, self.own, max(begin, split), end)
        if part == self.placement.depth - 1:
            found.append(self._head(stage))
            found += self._ahead(stage, end - 1)
        return tuple(found)

    def _ahead(self, stage: int, last: int) -> list[Block]:
        """Modules that look ahead, each with a layer as the last; the head's matrix is there."""
        found: list[Block] = []
        for _ in range(self.model.num_nextn_predict_layers):
            projection = self._made(("ahead",), lambda: ahead_block(self.model, self.own))
            head = self._made(
                ("ahead head",), lambda: head_block(self.model, self.own, shares_embedding=True)
            )
            layer = self._layer(last, first=False)
            found += [self._embedding(stage, self.own), projection, layer, head]
        return found

    def _head(self, stage: int) -> Block:
        model, top_k = self.model, self.top_k
        shares = model.tie_word_embeddings and self._holds("embedding", stage)

        def make() -> Block:
            if self.teaches:
                return teacher_head_block(model, self.own, shares_embedding=shares, top_k=top_k)
            own = self.own
            if self.frozen:
                named = {"head.projection": "head", "embedding": "embedding"}
                fixed = (named.get(n, n) for n in self.frozen if n in named or n.startswith("head."))
                own = replace(own, frozen=frozenset(fixed))
            block = head_block(model, own, shares_embedding=shares)
            names = frozenset({"head.transform", "head.norm", "head"})
            return block if self.flows.head else lowest(block, names - own.frozen)

        return self._made(("head", shares), make)

    def _encoder_norm(self) -> Block:
        trained = self._trains("encoder.norm")

        def make() -> Block:
            shard = replace(self.first, frozen=frozenset() if trained else frozenset({"encoder_norm"}))
            block = encoder_norm_block(self.model, shard)
            return block if trained or self.flows.source else frozen(block)

        return self._made(("norm",), make)

    def _trains(self, name: str) -> bool:
        return not self.own.lora_rank and name not in self.frozen

    def _entrance(self, stage: int) -> Block:
        if not self.model.num_mel_bins:
            return self._embedding(stage, self.first)

        def make() -> Block:
            block = front_end_block(self.model, replace(self.first, lora_rank=0))
            return block if self._trains("encoder.front_end") else frozen(block)

        return self._made(("front end",), make)

    def _embedding(self, stage: int, shard: Shard) -> Block:
        """An embedding; nothing below it is trained."""
        shares = self._holds("embedding", stage)
        below = replace(shard, lora_rank=0)

        def make() -> Block:
            block = embedding_block(self.model, below, shares_table=shares)
            self.made.sizes.setdefault("embedding", block.parameters - block.sequential_parameters)
            return block if self._trains("embedding") else frozen(block)

        return self._made(("embedding", shard is self.own, shares), make)

    def _stack(self, stack: str, stage: int, shard: Shard, begin: int, end: int) -> list[Block]:
        """Layers of one stack in one part, and its bias of relative positions, if it has one."""
        layers = self._layers(begin, end)
        if not self.model.relative_attention_num_buckets:
            return layers
        name, trained = f"{stack}_position_bias", self._trains(f"{stack}.position_bias")
        shares, read = self._holds(name, stage), any(layer.backward for layer in layers)

        def make() -> Block:
            own = shard if trained else replace(shard, frozen=frozenset({"position_bias"}))
            block = position_bias_block(self.model, own, shares_table=shares)
            self.made.sizes.setdefault(name, block.parameters)
            return block if read else frozen(block)

        return [self._made((name, shares, read), make), *layers]

    def _layers(self, begin: int, end: int) -> list[Block]:
        """Layers of one stack in one part."""
        if self.alike:
            return [self._layer(begin, first=True)] * (end - begin)
        return [self._layer(number, first=number == begin) for number in range(begin, end)]

    def _layer(self, number: int, *, first: bool) -> Block:
        model = self.model
        shard = self.first if number < (model.num_encoder_layers or 0) else self.own
        dense = not model.has_experts(number)
        first = first and shard.source_length > 0
        if self.whole:
            return self._made(
                ("layer", shard.source_length, dense, first),
                lambda: layer_block(model, shard, dense=dense, first=first),
            )
        trained = self.flows.trained[number]
        flows, biased = self.flows.layers[number], self._trains(f"{stack_of(model, number)}position_bias")
        source = self.flows.source and shard.source_length > 0

        def make() -> Block:
            # A layer without adapters is as others whose parameters are frozen.
            untrained = frozenset(layer_operators(model, number)) - trained
            fixed = untrained if biased else untrained | {"position_bias"}
            own = replace(shard, frozen=fixed, source_frozen=not source)
            block = layer_block(
                model, own if trained else replace(own, lora_rank=0), dense=dense, first=first
            )
            if flows:
                return block
            ends = trained | {SOURCE} if source else trained
            return lowest(block, ends) if ends else frozen(block)

        key = ("layer", shard.source_length, dense, first, trained, flows, source, biased)
        return self._made(key, make)

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
            if len(stages) > 1 and self._trains(name.replace("_position_bias", ".position_bias"))
        )
