"""One step's visits as arrays: which templates are stamped in which order, and what waits for what.

What all visits of one kind have in common is looked up once; ids and edges of all visits follow from sums and
look-ups over whole columns. Ids are relative to the step's first activity.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple

import numpy as np

from simulator.engine.program import I64
from simulator.program.drafting.progress import StageSoFar
from simulator.program.pricing.assembly import Assembly
from simulator.program.pricing.templates import LANES, NO_TRANSFERS
from simulator.program.schedules.order import FORWARD, Flags, Visits


class PassKind(NamedTuple):
    """What all visits of one kind of pass through a chunk of a stage have in common."""

    template: int
    """Template of the pass."""
    class_base: int
    """First class of the stage."""
    layer_base: int
    """First layer of the chunk."""
    on_communication: bool
    """Whether it enters on another lane than the compute lane."""
    waits: bool
    """Whether it waits for what comes from elsewhere: other passes, or samples."""
    send: int
    """Template of the send of what it puts out, a single activity; -1 where that stays."""
    send_class: int
    """First class of that send."""


class Load(NamedTuple):
    """How micro-batches are loaded."""

    template: int
    """Template of the way of one."""
    class_base: int
    """First class of it."""


@dataclass(frozen=True, slots=True)
class Course:
    """One step's visits; ids are relative, shape [n] each column.

    Attributes:
        size: Activities.
        instances: Columns of `Assembly.extend`, with a step of 0.
        seconds: Instances that are two passes; micro-batch and first layer of the second, shape [3, pairs].
        edges: Activities, and those that wait for them, shape [2, edges]; -2 - stage is the activity behind
            which that stage begins the step.
        loads: First activities of the ways of micro-batches.
        ends: By stage, the last pass, reduction and way out of gradients, -1 for none, shape [stages][3].
    """

    size: int
    instances: I64
    seconds: I64
    edges: I64
    loads: I64
    ends: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the course of a step depends on beside the order of visits.

    Attributes:
        assembly: Holds the templates.
        look_up: Stage, kind, chunk, whether gradients are complete, where the output goes -> what such visits
            have in common.
        pair: Stage and two templates -> template of both side by side.
        load: How micro-batches are loaded, None without data.
        stages: Stages.
        blocking: Whether a stage waits for what it sends.
        in_flight: Buckets of gradients that may be filled or reduced at a time.
    """

    assembly: Assembly
    look_up: Callable[[int, int, int, bool, int], PassKind]
    pair: Callable[[int, int, int], int]
    load: Load | None
    stages: int
    blocking: bool
    in_flight: int


def course_of(order: Visits, rules: Rules) -> Course:
    """The visits of a step, laid out."""
    return _Course(order, rules).finished()


class _Course:
    """A course in the making.

    A group is a visit, or two side by side; its `lead` is the first. What a group loads stands before its
    pass, what it sends behind that.
    """

    def __init__(self, order: Visits, rules: Rules) -> None:
        self.order, self.rules = order, rules
        self.kinds = _kinds(order, rules)
        self.second = np.zeros(len(order), np.bool_)
        self.second[1:] = order.paired[:-1]
        self.lead = np.flatnonzero(~self.second)
        self.group = np.cumsum(~self.second) - 1
        self.pairs = np.flatnonzero(order.paired[self.lead])
        self.template = self._templates()
        columns = np.array([_numbers(template) for template in rules.assembly.templates], np.int64).T
        self.columns = dict(zip(_NUMBERS, columns, strict=True))
        self.stage = order.stage[self.lead]
        waits, source = self.kinds["waits"] != 0, order.source
        self.loads = waits & (source < 0) & (order.kind == FORWARD) & (rules.load is not None)
        self.sends = self.kinds["send"] >= 0
        self._place()
        self._exits(waits)

    def _templates(self) -> I64:
        """Template of every group."""
        template = self.kinds["template"][self.lead]
        for group in self.pairs.tolist():
            lead = int(self.lead[group])
            both = self.kinds["template"][lead : lead + 2].tolist()
            template[group] = self.rules.pair(int(self.order.stage[lead]), *both)
        return template

    def _place(self) -> None:
        """Instances and first activities of loads and sends by visit, and of passes by group."""
        loads, sends, group = self.loads, self.sends, self.group
        loaded, sent = (np.bincount(group[which], minlength=len(self.lead)) for which in (loads, sends))
        count = 1 + loaded + sent
        first = np.cumsum(count) - count
        self.load_at = first[group] + _of_lead(self.second, loads)
        self.pass_at = first + loaded
        self.send_at = self.pass_at[group] + 1 + _of_lead(self.second, sends)
        template = np.empty(int(count.sum()), np.int64)
        template[self.pass_at] = self.template
        template[self.send_at[sends]] = self.kinds["send"][sends]
        if self.rules.load is not None:
            template[self.load_at[loads]] = self.rules.load.template
        self.instance = template
        sizes = self.columns["size"][template]
        self.base = np.cumsum(sizes) - sizes
        self.size = int(sizes.sum())

    def _exits(self, waits: Flags) -> None:
        """What each visit puts out and needs, and what the next group on the stage may have to wait for."""
        passes, source = self.base[self.pass_at], self.order.source
        self.entry = passes + self.columns["entry"][self.template]
        exits = passes + self.columns["exit"][self.template]
        self.done = exits[self.group]
        second = self.group[self.second]
        self.done[self.second] = passes[second] + self.columns["second_exit"][self.template[second]]
        exits[second] = np.maximum(exits[second], self.done[self.second])
        self.compute = exits
        sent = self.base[np.where(self.sends, self.send_at, 0)]
        self.out = np.where(self.sends, sent, self.done)
        load = self.rules.load
        copied = self.rules.assembly.templates[load.template].exit if load is not None else 0
        loaded = self.base[np.where(self.loads, self.load_at, 0)] + copied
        self.needs = np.where(self.loads, loaded, np.where(waits & (source >= 0), self.out[source], -1))

    def finished(self) -> Course:
        """The whole."""
        loads = self.base[self.load_at[self.loads]]
        seconds = np.zeros((3, 0), np.int64)
        if len(self.pairs):
            behind = self.lead[self.pairs] + 1
            columns = self.order.micro_batch[behind], self.kinds["layer_base"][behind]
            seconds = np.stack((self.pass_at[self.pairs], *columns))
        so_far = [StageSoFar([-2 - stage], self.rules.in_flight) for stage in range(self.rules.stages)]
        beside = list(self._beside(so_far))
        edges = np.concatenate([*self._edges(), np.array(beside, np.int64).reshape(-1, 2).T], axis=1)
        compute, reduced = (np.full(self.rules.stages, -1) for _ in range(2))
        compute[self.stage] = self.compute
        last = self.columns["last_on_data_parallel"][self.template]
        reducing = last >= 0
        reduced[self.stage[reducing]] = (self.base[self.pass_at] + last)[reducing]
        gone = (each.gone for each in so_far)
        ends = tuple(zip(compute.tolist(), reduced.tolist(), gone, strict=True))
        return Course(self.size, self._instances(), seconds, edges, loads, ends)

    def _instances(self) -> I64:
        """Template, bases of lane, class and layer, stage, step and micro-batch of each instance."""
        order, kinds, lead = self.order, self.kinds, self.lead
        found = np.zeros((7, len(self.instance)), np.int64)
        found[0] = self.instance
        found[2:, self.pass_at] = (
            kinds["class_base"][lead],
            kinds["layer_base"][lead],
            self.stage,
            np.zeros_like(lead),
            order.micro_batch[lead],
        )
        sends, loads = self.send_at[self.sends], self.load_at[self.loads]
        found[2, sends], found[4, sends] = kinds["send_class"][self.sends], order.stage[self.sends]
        found[6, sends], found[6, loads] = order.micro_batch[self.sends], order.micro_batch[self.loads]
        found[1] = found[4] * len(LANES)
        if self.rules.load is not None:
            found[1, loads], found[2, loads], found[4, loads] = 0, self.rules.load.class_base, -1
        return found

    def _edges(self) -> Iterator[I64]:
        """Who waits for whom, beyond the order of lanes, by visits; the order is that of dependencies."""
        stage, group = self.stage, self.group
        by_stage = np.argsort(stage, kind="stable")
        begins = np.ones(len(by_stage), np.bool_)
        begins[1:] = stage[by_stage[1:]] != stage[by_stage[:-1]]
        on_lane = self.kinds["on_communication"][self.lead] != 0
        on_lane[self.pairs] = True
        before = np.empty_like(stage)
        before[by_stage[1:]] = self.compute[by_stage[:-1]]
        before[~on_lane] = -1
        firsts = by_stage[begins]
        before[firsts] = -2 - stage[firsts]
        entries = self.entry[group]
        behind = group[self.second]
        inside = self.columns["second_entry"][self.template[behind]]
        entries[self.second] = self.base[self.pass_at[behind]] + inside
        yield _edges(before[group], entries)
        if self.rules.blocking:
            yield _edges(self._blocked(by_stage, begins)[group], entries)
        yield _edges(self.needs, entries)
        yield _edges(self.done[self.sends], self.out[self.sends])

    def _blocked(self, by_stage: I64, begins: Flags) -> I64:
        """The last send of a stage before each group, -1 for none."""
        last = np.full(len(by_stage), -1)
        last[self.group[self.sends]] = self.out[self.sends]
        found = np.full(len(by_stage), -1)
        for groups in np.split(by_stage, np.flatnonzero(begins)[1:]):
            found[groups[1:]] = np.maximum.accumulate(last[groups])[:-1]
        return found

    def _beside(self, so_far: list[StageSoFar]) -> Iterator[tuple[int, int]]:
        """Edges for parameters that are gathered, gradients that share buckets, and what leaves the GPU."""
        templates = self.rules.assembly.templates
        used = [templates[template] for template in set(self.template.tolist())]
        if not any(each.heads or each.tails or each.fills or each.drains for each in used) and all(
            each.transfers == NO_TRANSFERS for each in used
        ):
            return
        stored: dict[tuple[int, int, int, int], int] = {}
        columns = self.order.stage, self.order.chunk, self.order.micro_batch
        visits = list(zip(*(column.tolist() for column in columns), strict=True))
        leads, bases = self.lead.tolist(), self.base[self.pass_at].tolist()
        for lead, base, template in zip(leads, bases, self.template.tolist(), strict=True):
            shape, forward = templates[template], visits[lead]
            backward = visits[lead + 1] if shape.second_part is not None else forward
            yield from so_far[forward[0]].ran(shape, base)
            for place, node in shape.transfers.stored:
                stored[(*forward, place)] = base + node
            for place, node in shape.transfers.fetched:
                yield stored[(*backward, place)], base + node


_NUMBERS: Final = "size", "entry", "exit", "second_entry", "second_exit", "last_on_data_parallel"
_numbers = attrgetter(*_NUMBERS)
"""What is asked of every template."""


def _kinds(order: Visits, rules: Rules) -> dict[str, I64]:
    """Columns of `PassKind` for every visit; each kind is looked up once, in the order of first visits."""
    chunks = int(order.chunk.max()) + 1
    code = ((order.stage * 4 + order.kind) * chunks + order.chunk) * 2 + order.completes
    first = np.full(int(code.max()) + 1, -1)
    first[code[::-1]] = np.arange(len(order))[::-1]
    visits = np.sort(first[first >= 0])
    columns = order.stage, order.kind, order.chunk, order.completes, order.sends_to
    keys = zip(*(column[visits].tolist() for column in columns), strict=True)
    found = [rules.look_up(*key) for key in keys]
    number = np.empty(len(first), np.int64)
    number[code[visits]] = np.arange(len(visits))
    of = number[code]
    numbers = np.fromiter(itertools.chain.from_iterable(found), np.int64)
    table = numbers.reshape(len(found), -1).T[:, of]
    return dict(zip(PassKind._fields, table, strict=True))


def _of_lead(second: Flags, which: Flags) -> I64:
    """1 where a visit's lead is among `which`."""
    found = np.zeros(len(which), np.int64)
    found[1:] = second[1:] & which[:-1]
    return found


def _edges(source: I64, target: I64) -> I64:
    """Edges, without those from nobody."""
    known = source != -1
    return np.stack((source[known], target[known]))
