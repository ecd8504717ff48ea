"""Templates: one pass as small arrays with local indices, stamped once for each time it is run."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.engine import Capacities, Classes, Lanes, Pools, Program
from simulator.engine.program import I64

LANES: tuple[tuple[str, str], ...] = (
    ("compute", "compute"),
    ("tensor_parallel", "communication"),
    ("data_parallel", "communication"),
    ("context_parallel", "communication"),
    ("expert_parallel", "communication"),
    ("send_forward", "communication"),
    ("send_backward", "communication"),
    ("copy", "copy"),
    ("launch", "host"),
    ("offload_to_host", "copy"),
    ("offload_to_gpu", "copy"),
    ("host_update", "host"),
    ("drive_read", "storage"),
    ("drive_write", "storage"),
)
"""Name and kind of the lanes (streams) of every stage's representative."""

LANE = {name: index for index, (name, _) in enumerate(LANES)}
"""Local index of a lane by name."""


@dataclass(frozen=True, slots=True)
class Transfers:
    """What a pass copies out of the GPU and back into it; all indices are local.

    Attributes:
        stored: Places of the part's blocks whose activations leave, and the end of each way out.
        fetched: Places whose activations come back, and the beginning of each way.
        heads: Turns of this pass, and beginnings of fetches, that nothing inside lets begin.
        turns: Ends of the last but one and of the last block: when the next pass's first two fetches begin.
        gradients: The last that gradients which leave wait for, -1 for none.
    """

    stored: tuple[tuple[int, int], ...] = ()
    fetched: tuple[tuple[int, int], ...] = ()
    heads: tuple[tuple[int, int], ...] = ()
    turns: tuple[int, int] = (-1, -1)
    gradients: int = -1

    def at(self, place: NDArray[np.int64]) -> Transfers:
        """The same with indices at their places in a larger template."""

        def moved(pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
            return tuple((key, int(place[index])) for key, index in pairs)

        ends = [int(place[index]) if index >= 0 else -1 for index in (*self.turns, self.gradients)]
        return Transfers(
            moved(self.stored), moved(self.fetched), moved(self.heads), (ends[0], ends[1]), ends[2]
        )

    def beside(self, other: Transfers) -> Transfers:
        """Those of two passes side by side; the second goes on where the next pass begins."""
        return Transfers(
            self.stored + other.stored,
            self.fetched + other.fetched,
            self.heads + other.heads,
            other.turns,
            max(self.gradients, other.gradients),
        )


NO_TRANSFERS = Transfers()


@dataclass(frozen=True, slots=True)
class Template:
    """A pass; all indices are local.

    Attributes:
        lane: Lane of each activity, relative to the stage unless `absolute`, shape [n].
        cls: Class of each activity, relative to the table, shape [n].
        layer: Layer relative to the chunk's first, -1 for none, shape [n].
        dep_count: Dependencies of each activity, shape [n].
        dep: Dependencies, local, in order of activity.
        entry: The activity that waits for what comes from outside.
        exit: The activity that what comes after waits for.
        heads: Gathers that nothing inside lets begin, with their place in the queue; each follows one of the
            `tails` of the pass before.
        tails: Activities behind which parameters are let go that the next pass's gathers replace.
        fills: Activities that begin to fill a bucket of gradients of which only a share will stay.
        drains: Reductions behind which the buckets are free again, in the same order.
        last_on_data_parallel: The last activity on that lane, -1 for none.
        second_part: Where two passes are one template, the activities of the second, shape [n].
        second_entry: The activity of the second that waits for what comes from outside.
        second_exit: The activity of the second that what comes after waits for.
        transfers: What is copied out of the GPU and into it.
    """

    lane: NDArray[np.int32]
    cls: NDArray[np.int32]
    layer: NDArray[np.int32]
    dep_count: NDArray[np.int64]
    dep: NDArray[np.int32]
    entry: int
    exit: int
    heads: tuple[tuple[int, int], ...] = ()
    tails: tuple[int, ...] = ()
    fills: tuple[int, ...] = ()
    drains: tuple[int, ...] = ()
    last_on_data_parallel: int = -1
    second_part: NDArray[np.bool_] | None = None
    second_entry: int = -1
    second_exit: int = -1
    transfers: Transfers = NO_TRANSFERS

    @property
    def size(self) -> int:
        """Activities."""
        return len(self.lane)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Activities that follow one another in a pass, as often as a block stands in it; indices are their own.

    Attributes:
        lanes: Lane of each activity, 32-bit.
        classes: Class of each, 32-bit.
        waiting: Those with dependencies inside, and the dependencies.
        first: The activity that waits for what comes before; those ahead of it are the launching thread's.
    """

    lanes: array[int]
    classes: array[int]
    waiting: tuple[tuple[int, tuple[int, ...]], ...]
    first: int


@dataclass(slots=True)
class TemplateBuilder:
    """Collects the activities of one pass; dependencies that lane order implies are left out."""

    lanes: array[int] = field(default_factory=partial(array, "i"))
    classes: array[int] = field(default_factory=partial(array, "i"))
    layers: array[int] = field(default_factory=partial(array, "i"))
    waits: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Dependencies of the activities that have any."""
    heads: list[tuple[int, int]] = field(default_factory=list)
    tails: list[int] = field(default_factory=list)
    fills: list[int] = field(default_factory=list)
    drains: list[int] = field(default_factory=list)
    entry: int | None = None
    exit: int | None = None
    transfers: Transfers = NO_TRANSFERS

    def add(self, lane: int, cls: int, after: Iterable[int] = (), layer: int = -1) -> int:
        """Appends an activity and returns its local index."""
        self.lanes.append(lane)
        self.classes.append(cls)
        self.layers.append(layer)
        place = len(self.lanes) - 1
        outside = {a for a in after if a >= 0 and self.lanes[a] != lane}
        if outside:
            self.waits[place] = tuple(sorted(outside))
        return place

    def add_stretch(self, stretch: Stretch, after: Iterable[int], layer: int) -> int:
        """Appends a stretch whose first activity waits for `after`; returns the index of its last."""
        base = len(self.lanes)
        first = base + stretch.first
        self.lanes += stretch.lanes
        self.classes += stretch.classes
        self.layers += array("i", (layer,)) * len(stretch.lanes)
        for place, deps in stretch.waiting:
            self.waits[base + place] = tuple([base + d for d in deps])
        lane = self.lanes[first]
        outside = {a for a in after if a >= 0 and self.lanes[a] != lane}
        if outside:
            self.waits[first] = tuple(sorted(outside.union(self.waits.get(first, ()))))
        if self.entry is None:
            self.entry = first
        return len(self.lanes) - 1

    def build(self) -> Template:
        """The finished template; from its first activity to its last unless `entry`, `exit` say otherwise."""
        lanes = np.array(self.lanes)
        waits = sorted(self.waits.items())
        count = np.zeros(len(lanes), np.int64)
        count[[place for place, _ in waits]] = [len(deps) for _, deps in waits]
        on_data_parallel = np.flatnonzero(lanes == LANE["data_parallel"])
        return Template(
            lanes,
            np.array(self.classes),
            np.array(self.layers),
            count,
            np.array([d for _, deps in waits for d in deps], np.int32),
            self.entry or 0,
            len(self.lanes) - 1 if self.exit is None else self.exit,
            tuple(self.heads),
            tuple(self.tails),
            tuple(self.fills),
            tuple(self.drains),
            int(on_data_parallel[-1]) if on_data_parallel.size else -1,
            transfers=self.transfers,
        )


@dataclass(slots=True)
class Assembly:
    """Instances of templates in the order of their activities' ids, and the edges between them."""

    templates: list[Template] = field(default_factory=list)
    size: int = 0
    _count: int = 0
    _instances: list[I64] = field(default_factory=list)
    _single: list[tuple[int, ...]] = field(default_factory=list)
    _seconds: list[I64] = field(default_factory=list)
    _edges: list[I64] = field(default_factory=list)
    _edge: list[tuple[int, int]] = field(default_factory=list)

    def register(self, template: Template) -> int:
        """Makes a template known."""
        self.templates.append(template)
        return len(self.templates) - 1

    def add(
        self,
        template: int,
        *,
        lane_base: int,
        class_base: int,
        stage: int,
        step: int,
        micro_batch: int = -1,
        after: Iterable[int] = (),
    ) -> int:
        """Stamps a template; its entry waits for the activities `after`. Returns the first activity's id."""
        shape = self.templates[template]
        base = self.size
        self._single.append((template, lane_base, class_base, 0, stage, step, micro_batch))
        self.size = base + shape.lane.size
        entry = base + shape.entry
        self._edge.extend((source, entry) for source in after if source >= 0)
        return base

    def extend(self, size: int, instances: I64, seconds: I64, edges: I64) -> int:
        """Stamps many templates one behind the other; returns the first activity's id.

        Args:
            size: Activities of them all.
            instances: Template; bases of lane, class and layer; stage, step and micro-batch, shape [7, n].
            seconds: Of those that are two passes: place among them, micro-batch and base of the layer of the
                second pass, shape [3, pairs].
            edges: Activities, and those that wait for them, shape [2, edges].
        """
        self._flush()
        base = self.size
        self._seconds.append(seconds + np.array([[self._count], [0], [0]]))
        self._instances.append(instances)
        self._count += instances.shape[1]
        self._edges.append(edges)
        self.size += size
        return base

    def wait(self, activity: int, source: int) -> None:
        """Makes an activity wait for an earlier one."""
        self._edge.append((source, activity))

    def _flush(self) -> None:
        """Makes columns of what was added one by one."""
        if self._single:
            self._instances.append(np.array(self._single, np.int64).T)
            self._count += len(self._single)
        if self._edge:
            self._edges.append(np.array(self._edge, np.int64).T)
        self._single, self._edge = [], []

    def _lengths(self, of: str) -> I64:
        return np.array([len(getattr(each, of)) for each in self.templates], np.int64)

    def arrays(self) -> AssembledArrays:
        """All instances as the flat arrays of a Program; what several have in common is made once."""
        self._flush()
        columns = np.concatenate(self._instances, axis=1)
        step, micro_batch = columns[5:].astype(np.int32)
        different, kind = _different(columns[:5])
        lengths = self._lengths("lane")[different[0]]
        count = lengths[kind]
        base = _starts(count)
        source = np.arange(self.size) + np.repeat(_starts(lengths)[kind] - base, count)
        lane, cls, layer, stage, dep_count = (column[source] for column in self._table(different, lengths))
        micro_batches = np.repeat(micro_batch, count)
        self._mark_seconds(columns, base, micro_batches, layer)
        dep_ptr, dep = self._dependencies(columns[0], base, dep_count)
        tags = {"stage": stage, "step": np.repeat(step, count), "micro_batch": micro_batches, "layer": layer}
        return AssembledArrays(lane=lane, cls=cls, dep_ptr=dep_ptr, dep=dep, tags=tags)

    def _table(self, different: I64, lengths: I64) -> NDArray[np.int32]:
        """Lane, class, layer, stage and number of dependencies of the activities of different instances."""
        used, *bases = different
        of = np.repeat(np.arange(len(used)), lengths)
        own = np.arange(len(of)) + (_starts(self._lengths("lane"))[used] - _starts(lengths))[of]
        lane, cls, layer, stage = (each[of] for each in bases)
        within = _flat(self.templates, "layer")[own]
        return np.stack(
            (
                _flat(self.templates, "lane")[own] + lane,
                _flat(self.templates, "cls")[own] + cls,
                np.where(within >= 0, within + layer, -1),
                stage,
                _flat(self.templates, "dep_count")[own],
            )
        ).astype(np.int32)

    def _mark_seconds(
        self, columns: I64, base: I64, micro_batches: NDArray[np.int32], layers: NDArray[np.int32]
    ) -> None:
        """Gives second passes their own micro-batches and layers."""
        for instance, micro_batch, layer in zip(*np.concatenate(self._seconds, axis=1).tolist(), strict=True):
            template = self.templates[columns[0, instance]]
            assert template.second_part is not None
            second = np.flatnonzero(template.second_part)
            within = template.layer[second]
            micro_batches[base[instance] + second] = micro_batch
            layers[base[instance] + second] = np.where(within >= 0, within + layer, -1)

    def _dependencies(
        self, used: I64, base: I64, dep_count: NDArray[np.int32]
    ) -> tuple[I64, NDArray[np.int32]]:
        """Those inside of templates, then the edges, in the order in which they came."""
        lengths = self._lengths("dep")
        count = lengths[used]
        own = np.repeat(_starts(lengths)[used] - _starts(count), count)
        within = _flat(self.templates, "dep")[np.arange(len(own)) + own]
        within += np.repeat(base.astype(np.int32), count)
        edges = np.concatenate([np.zeros((2, 0), np.int64), *self._edges], axis=1)
        source, target = edges[:, np.argsort(edges[1], kind="stable")]
        number = np.arange(len(target))
        first = np.ones(len(target), np.bool_)
        first[1:] = target[1:] != target[:-1]
        behind = number - np.maximum.accumulate(np.where(first, number, 0)) + dep_count[target]
        ptr = np.zeros(self.size + 1, np.int64)
        ptr[1:] = dep_count
        np.add.at(ptr, target + 1, 1)
        np.cumsum(ptr, out=ptr)
        dep, inside = np.empty(int(ptr[-1]), np.int32), np.ones(int(ptr[-1]), np.bool_)
        at = ptr[target] + behind
        inside[at] = False
        dep[inside], dep[at] = within, source
        return ptr, dep


@dataclass(frozen=True, slots=True)
class AssembledArrays:
    """The activities of a Program, without what they draw on."""

    lane: NDArray[np.int32]
    cls: NDArray[np.int32]
    dep_ptr: NDArray[np.int64]
    dep: NDArray[np.int32]
    tags: dict[str, NDArray[np.int32]]

    def program(
        self, capacities: Capacities, lanes: Lanes, pools: Pools, classes: Classes, job: str
    ) -> Program:
        """The Program over the given capacities, lanes, pools and classes."""
        return Program(
            capacities=capacities,
            lanes=lanes,
            pools=pools,
            classes=classes,
            lane=self.lane,
            cls=self.cls,
            dep_ptr=self.dep_ptr,
            dep=self.dep,
            tags=self.tags,
            job=job,
        )


def _different(columns: I64) -> tuple[I64, I64]:
    """Different columns, and which of them each is."""
    lowest = columns.min(axis=1)
    code = np.zeros(columns.shape[1], np.int64)
    for row, low in zip(columns, lowest.tolist(), strict=True):
        code = code * (int(row.max()) - low + 1) + (row - low)
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    return columns[:, first], which


def _starts(counts: I64) -> I64:
    return np.cumsum(counts) - counts


def _flat(templates: Sequence[Template], name: str) -> NDArray[Any]:
    return np.concatenate([getattr(template, name) for template in templates])
