"""Templates stamped as often as they are run: the flat arrays of a Program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulator.engine import Capacities, Classes, Lanes, Pools, Program
from simulator.engine.program import I64
from simulator.program.pricing.templates import Template


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
        self.size = base + shape.size
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

    def arrays(self) -> AssembledArrays:
        """All instances as the flat arrays of a Program; what several have in common is made once."""
        self._flush()
        columns = np.concatenate(self._instances, axis=1)
        different, kind = _different(columns[:5])
        sizes, deps = np.array([(each.size, len(each.dep_back)) for each in self.templates], np.int64).T
        lengths = sizes[different[0]]
        count = lengths[kind]
        base = _starts(count)
        source = np.arange(self.size) + np.repeat(_starts(lengths)[kind] - base, count)
        lane, cls, layer, stage, dep_count = np.take(self._table(different, sizes, lengths), source, axis=1)
        step, micro_batch = (np.repeat(column.astype(np.int32), count) for column in columns[5:])
        self._mark_seconds(columns, base, micro_batch, layer)
        dep_ptr, dep = self._dependencies(deps, columns[0], dep_count)
        tags = {"stage": stage, "step": step, "micro_batch": micro_batch, "layer": layer}
        return AssembledArrays(lane=lane, cls=cls, dep_ptr=dep_ptr, dep=dep, tags=tags)

    def _table(self, different: I64, sizes: I64, lengths: I64) -> NDArray[np.int32]:
        """Lane, class, layer, stage and number of dependencies of the activities of different instances."""
        used, *bases = different
        of = np.repeat(np.arange(len(used)), lengths)
        own = np.arange(len(of)) + (_starts(sizes)[used] - _starts(lengths))[of]
        names = "lane", "cls", "layer", "dep_count"
        within = np.take(_flat(self.templates, *names).reshape(len(names), -1), own, axis=1)
        lane, cls, layer, stage = np.take(np.array(bases, np.int32), of, axis=1)
        moved = np.where(within[2] >= 0, within[2] + layer, -1)
        return np.stack((within[0] + lane, within[1] + cls, moved, stage, within[3]))

    def _mark_seconds(
        self, columns: I64, base: I64, micro_batches: NDArray[np.int32], layers: NDArray[np.int32]
    ) -> None:
        """Gives second passes their own micro-batches and layers."""
        for instance, micro_batch, layer in zip(*np.concatenate(self._seconds, axis=1).tolist(), strict=True):
            template = self.templates[columns[0, instance]]
            assert template.second_part is not None
            second = np.flatnonzero(template.second_part)
            within = np.asarray(template.layer)[second]
            micro_batches[base[instance] + second] = micro_batch
            layers[base[instance] + second] = np.where(within >= 0, within + layer, -1)

    def _dependencies(
        self, lengths: I64, used: I64, dep_count: NDArray[np.int32]
    ) -> tuple[I64, NDArray[np.int32]]:
        """Those inside of templates, then the edges, in the order in which they came."""
        count = lengths[used]
        own = np.repeat(_starts(lengths)[used] - _starts(count), count)
        within = np.repeat(np.arange(self.size, dtype=np.int32), dep_count)
        within -= _flat(self.templates, "dep_back")[np.arange(len(own)) + own]
        edges = np.concatenate([np.zeros((2, 0), np.int64), *self._edges], axis=1)
        source, target = edges[:, np.argsort(edges[1], kind="stable")]
        number = np.arange(len(target))
        first = np.ones(len(target), np.bool_)
        first[1:] = target[1:] != target[:-1]
        behind = number - np.maximum.accumulate(np.where(first, number, 0)) + dep_count[target]
        ptr = np.zeros(self.size + 1, np.int64)
        np.cumsum(dep_count + np.bincount(target, minlength=self.size), out=ptr[1:])
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


def _flat(templates: Sequence[Template], *names: str) -> NDArray[np.int32]:
    """Columns of all templates, one name behind the other."""
    return np.frombuffer(b"".join([getattr(each, name) for name in names for each in templates]), np.int32)
