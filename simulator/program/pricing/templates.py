"""Templates: one pass as small arrays with local indices, stamped once for each time it is run."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

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

_DATA_PARALLEL = LANE["data_parallel"]


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
    """A pass; all indices are local, and columns are of 32 bits.

    Attributes:
        lane: Lane of each activity, relative to the stage unless `absolute`, shape [n].
        cls: Class of each activity, relative to the table, shape [n].
        layer: Layer relative to the chunk's first, -1 for none, shape [n].
        dep_count: Dependencies of each activity, shape [n].
        dep_back: How far before an activity each of its dependencies stands, in order of activity.
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

    lane: array[int]
    cls: array[int]
    layer: array[int]
    dep_count: array[int]
    dep_back: array[int]
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
    """Activities that follow one another in a pass, as often as a block stands in it; columns are of 32 bits.

    Attributes:
        lanes: Lane of each activity.
        classes: Class of each.
        dep_count: Dependencies of each inside.
        dep_back: How far before an activity each of its dependencies stands.
        first: The activity that waits for what comes before; those ahead of it are the launching thread's and
            wait for nothing.
        last_on_data_parallel: The last activity on that lane, -1 for none.
    """

    lanes: array[int]
    classes: array[int]
    dep_count: array[int]
    dep_back: array[int]
    first: int
    last_on_data_parallel: int = -1

    def of(self, classes: Sequence[int]) -> Stretch:
        """The same activities in other classes, given by those that they have."""
        own = array("i", [classes[cls] for cls in self.classes])
        return Stretch(self.lanes, own, self.dep_count, self.dep_back, self.first, self.last_on_data_parallel)


@dataclass(slots=True)
class TemplateBuilder:
    """Collects the activities of one pass; dependencies that lane order implies are left out."""

    lanes: array[int] = field(default_factory=partial(array, "i"))
    classes: array[int] = field(default_factory=partial(array, "i"))
    layers: array[int] = field(default_factory=partial(array, "i"))
    dep_count: array[int] = field(default_factory=partial(array, "i"))
    dep_back: array[int] = field(default_factory=partial(array, "i"))
    heads: list[tuple[int, int]] = field(default_factory=list)
    tails: list[int] = field(default_factory=list)
    fills: list[int] = field(default_factory=list)
    drains: list[int] = field(default_factory=list)
    entry: int | None = None
    exit: int | None = None
    last_on_data_parallel: int = -1
    transfers: Transfers = NO_TRANSFERS

    def add(self, lane: int, cls: int, after: Iterable[int] = (), layer: int = -1) -> int:
        """Appends an activity and returns its local index."""
        place = len(self.lanes)
        outside = {a for a in after if a >= 0 and self.lanes[a] != lane}
        if outside:
            self.dep_back.extend([place - a for a in sorted(outside)])
        self.dep_count.append(len(outside))
        self.lanes.append(lane)
        self.classes.append(cls)
        self.layers.append(layer)
        if lane == _DATA_PARALLEL:
            self.last_on_data_parallel = place
        return place

    def add_stretch(self, stretch: Stretch, after: Iterable[int], layer: int) -> int:
        """Appends a stretch whose first activity waits for `after`; returns the index of its last."""
        lanes = self.lanes
        base = len(lanes)
        first = base + stretch.first
        lanes.extend(stretch.lanes)
        self.classes.extend(stretch.classes)
        self.layers.extend(array("i", (layer,)) * len(stretch.lanes))
        self.dep_count.extend(stretch.dep_count)
        lane = lanes[first]
        outside = [a for a in after if a >= 0 and lanes[a] != lane]
        if outside:
            outside = sorted(set(outside)) if len(outside) > 1 else outside
            self.dep_count[first] += len(outside)
            self.dep_back.extend([first - a for a in outside])
        self.dep_back.extend(stretch.dep_back)
        if self.entry is None:
            self.entry = first
        if stretch.last_on_data_parallel >= 0:
            self.last_on_data_parallel = base + stretch.last_on_data_parallel
        return len(lanes) - 1

    def build(self) -> Template:
        """The finished template; from its first activity to its last unless `entry`, `exit` say otherwise."""
        return Template(
            self.lanes,
            self.classes,
            self.layers,
            self.dep_count,
            self.dep_back,
            self.entry or 0,
            len(self.lanes) - 1 if self.exit is None else self.exit,
            tuple(self.heads),
            tuple(self.tails),
            tuple(self.fills),
            tuple(self.drains),
            self.last_on_data_parallel,
            transfers=self.transfers,
        )
