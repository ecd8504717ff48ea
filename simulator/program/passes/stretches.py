"""What a block does in a pass, worked out once for all stages and plans on which it does the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from simulator.program.passes.exchanges import Beside
from simulator.program.planning.recomputation import Mode
from simulator.program.pricing.describe import Describer
from simulator.program.pricing.rows import Row, RowTable
from simulator.program.pricing.steps import Step, part_of
from simulator.program.pricing.templates import LANE, Stretch, TemplateBuilder
from simulator.workload import RECOMPUTED, Block, Communication, Kernel, Node, Shard, transients
from simulator.workload.blocks import BLOCKS_KNOWN

AXIS_LANE = {
    "tensor": LANE["tensor_parallel"],
    "expert_tensor": LANE["tensor_parallel"],
    "context": LANE["context_parallel"],
    "expert": LANE["expert_parallel"],
}
"""Lane of the collectives along an axis; all others go on that of the gradients."""

LAYER_INPUT = "layer.input"
"""Keeper of what full recomputation starts from."""


_PIECES: Final = 2
"""Operators besides for each exchange of a pass that runs beside another: it, and what stands behind it, are
run by hand, each a graph of autograd's of its own.

Source: ``ScheduleNode`` in pipeline_parallel/utils.py and ``TransformerLayerSchedulePlan`` in
    models/common/model_chunk_schedule_plan.py of Megatron-Core.
"""

_PARTS: Final = {"attention": ("attention.",), "router": ("mlp.norm", "router", "experts.counts")}
"""Parts of a layer, and how the names of their operators begin.

Source: ``cuda_graph_scope`` of TransformerConfig in Megatron-Core: ``attn``; ``moe_router`` (with the norm
    before it) and ``moe_preprocess``.
"""

KEPT_SHARDS: Final = 32
"""Shards of which stretches are kept."""
KEPT_STRETCHES: Final = 128
"""Stretches of one shard that are kept at most; some ten kilobytes each."""


@dataclass(frozen=True, slots=True)
class BlockStretch:
    """What a block does in a pass.

    Attributes:
        rows: Its rows, in the order in which they are first needed.
        stretch: Its activities; classes are places among the rows.
    """

    rows: tuple[Row, ...]
    stretch: Stretch


_Known = dict[tuple[object, ...], BlockStretch | None]

_KNOWN: OrderedDict[tuple[object, ...], _Known] = OrderedDict()
"""What was worked out last, by the shard and by how passes run there."""


@dataclass(slots=True)
class Stretches:
    """What blocks do in the passes of one plan.

    Attributes:
        describe: Who meets, and how kernels are launched.
        shard: One GPU's part of a micro-batch.
        known: What was worked out for all plans of such shards, by all else that it depends on.
        meets: Who meets in each block.
    """

    describe: Describer
    shard: Shard
    known: _Known
    meets: dict[Block, tuple[object, ...]] = field(default_factory=dict)

    @staticmethod
    def of(describe: Describer, shard: Shard) -> Stretches:
        """With what was worked out before."""
        software = describe.software
        key = shard, software.cuda_graphs, software.recorded_parts, describe.plan.pairs
        known = _KNOWN.setdefault(key, {})
        _KNOWN.move_to_end(key)
        if len(_KNOWN) > KEPT_SHARDS:
            _KNOWN.popitem(last=False)
        return Stretches(describe, shard, known)

    def get(self, block: Block, what: str, mode: Mode, beside: Beside) -> BlockStretch | None:
        """A block's nodes in one pass; None if there are none.

        Args:
            block: The block.
            what: ``forward``, ``recompute``, ``backward`` or one half of it.
            mode: What its forward pass keeps.
            beside: Memory that comes and goes with it.
        """
        meets = self.meets.get(block)
        if meets is None:
            meets = self.meets[block] = self.describe.meets(block)
        key = block, what, mode, beside, meets
        try:
            return self.known[key]
        except KeyError:
            steps = _steps_of(block, what, mode, self.shard)
            found = _stretch(self.describe, steps, phase_of(what), beside) if steps else None
            if len(self.known) >= KEPT_STRETCHES:
                self.known.clear()
            self.known[key] = found
            return found


def forget_stretches() -> None:
    """Forgets all; nothing but time depends on it."""
    _KNOWN.clear()


def phase_of(what: str) -> str:
    """The phase that a pass belongs to."""
    return "backward" if what.endswith("gradient") else what


@lru_cache(maxsize=4 * BLOCKS_KNOWN)
def bytes_kept(block: Block, mode: Mode, shard: Shard) -> int:
    """Activations that a block's forward pass keeps, by its steps [B]."""
    return sum(step.node.kept_bytes for step in _steps_of(block, "forward", mode, shard))


def _stretch(describe: Describer, steps: Sequence[Step], phase: str, beside: Beside) -> BlockStretch:
    """A block's nodes on their own: the launching thread's, then the device's.

    The thread runs ahead of the device; a block cannot end before all of it is launched. Where the thread
    reads a result, it goes on only when that is there, and the device waits for the first launch behind it,
    and the next exchange for its own; while that lasts, the thread is ahead again.
    """
    into, table, places = TemplateBuilder(), RowTable(), list[int]()
    graph, read = describe.software.cuda_graphs, -1

    def launch(operators: int, looped: int = 0) -> int:
        row = table.add(describe.launching(operators, phase, looped))
        return -1 if graph else into.add(LANE["launch"], row, (read,))

    launched, called, exchange = -1, -1, -1
    for number, step in enumerate(steps):
        node, first, last = step.node, number == 0, number == len(steps) - 1
        waits = () if first else tuple(places[a] for a in node.after)
        if first:
            launched = launch(*_operators(steps, describe))
        elif read >= 0:
            rest, launched = steps[number:], launch(1)
            waits = (*waits, launched)
            exchange = number + _until_exchange(rest)
            near, far = (_operators(part, describe) for part in (steps[number:exchange], rest))
            called = launch(near[0] - 1, near[1]) if sum(near) > 1 else launched
            left = far[0] - near[0], far[1] - near[1]
            launched, read = launch(*left) if sum(left) else called, -1
        if number == exchange - 1:
            waits = (*waits, called)
        if last or node.read_by_host:
            waits = (*waits, launched)
        row = beside.on(_row(describe, step, phase), first=first, last=last)
        places.append(into.add(_lane(node.op), table.add(row), waits))
        read = places[-1] if node.read_by_host and not (graph or last) else -1
    shape = Stretch(
        into.lanes, into.classes, into.dep_count, into.dep_back, places[0], into.last_on_data_parallel
    )
    return BlockStretch(tuple(table.rows), shape)


def _until_exchange(steps: Sequence[Step]) -> int:
    """Steps up to the first exchange among experts, with it; all, if there is none."""
    places = (n for n, step in enumerate(steps, 1) if _exchanges(step.node.op))
    return next(places, len(steps))


def _exchanges(op: Kernel | Communication) -> bool:
    return isinstance(op, Communication) and (op.collective, op.axis) == ("all_to_all", "expert")


def _operators(steps: Sequence[Step], describe: Describer) -> tuple[int, int]:
    """Operators up to the first result that the launching thread reads, and launches in loops inside them.

    What is recorded is one operator.
    """
    operators, looped, part = 0, 0, ""
    for step in steps:
        op, before, part = step.node.op, part, _recorded(step.node.op, describe)
        if part:
            operators += part != before
        elif isinstance(op, Kernel):
            operators, looped = operators + op.launches - op.looped, looped + op.looped
        else:
            operators += 1 + _PIECES * (describe.plan.pairs and _exchanges(op))
        if step.node.read_by_host:
            break
    return operators, looped


def _recorded(op: Kernel | Communication, describe: Describer) -> str:
    """The recorded part of a layer that an operator belongs to, if any."""
    found = next((part for part, begins in _PARTS.items() if op.name.startswith(begins)), "")
    return found if found in describe.software.recorded_parts else ""


def _lane(op: Kernel | Communication) -> int:
    """The lane that an operator runs on."""
    return LANE["compute"] if isinstance(op, Kernel) else AXIS_LANE.get(op.axis, LANE["data_parallel"])


def _row(describe: Describer, step: Step, phase: str) -> Row:
    node, need, keeper = step
    phase = RECOMPUTED if node.role == RECOMPUTED else phase
    take, give = node.kept_bytes + need, node.freed_bytes + need
    if isinstance(node.op, Kernel):
        counted = phase != RECOMPUTED
        return describe.kernel(
            node.op, phase, counted=counted, take=take, give=give, transient=need, keeper=keeper
        )
    row = describe.communication(node.op, phase)
    if take or give:
        row = replace(row, take=take, give=give, transient=need, keeper=keeper)
    return row


def _steps_of(block: Block, what: str, mode: Mode, shard: Shard) -> list[Step]:
    """What a block does in a pass."""
    if what == "forward":
        return _kept(block, mode, shard)
    if what == RECOMPUTED:
        return _steps(block.forward, transients(block, shard).forward)
    return part_of(_steps(block.backward, transients(block, shard).backward), what)


def _steps(nodes: tuple[Node, ...], needs: tuple[int, ...]) -> list[Step]:
    return [Step(node, need) for node, need in zip(nodes, needs, strict=True)]


def _kept(block: Block, mode: Mode, shard: Shard) -> list[Step]:
    """The forward pass with what is kept of it."""
    needs = transients(block, shard)
    if mode == "all":
        return _steps(block.forward, needs.forward)
    steps = _steps(block.forward, needs.dropping)
    dropped = [step._replace(node=replace(step.node, kept_bytes=0)) for step in steps]
    if mode == "input":
        first = dropped[0]
        dropped[0] = Step(replace(first.node, kept_bytes=block.input_bytes), first.need, LAYER_INPUT)
    return dropped
