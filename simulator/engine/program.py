"""A Program: the whole of one simulation as flat arrays, without a word of machine learning.

**Activities** stand in ascending id on **lanes**; a lane runs them one at a time, in order of id.
An activity may start when the one before it on its lane has ended, everything it depends on has
ended, and the blocking pools that it takes from hold enough. It then waits out its class's
*delay*, after which it draws its class's *demands* on **capacities** until its work is done. From
start to end it keeps its *holds* (a step change of a capacity's rate) and its pool *takes*; its
*gives* are paid back at the end.

What many activities share is a **class**: delay, weight, demands, holds, pool deltas and label.
All demands, holds, weights and pool deltas are integers.

Dependencies and lane order both run from lower to higher id, so a Program is acyclic by
construction unless a dependency points upward; `validate` refuses what is malformed, and a
Program that can never end (a pool that blocks for ever) is a `DeadlockError` of the player.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
_T = TypeVar("_T")
_D = TypeVar("_D", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Capacities:
    """What activities draw on.

    Attributes:
        names: Unique name of each, such as ``stage0.gpu.tensor``.
        kinds: Kind of each, such as ``tensor``, ``memory_bandwidth``, ``scale_up``; reports group by it.
        owners: What each belongs to, such as ``stage0.gpu``; reports group by it.
        rates: Units (FLOP, bytes, operations) per second, shape [C], int64, positive.
        units: Unit of an amount: ``FLOP``, ``B``, ``op`` or ``ms`` (of a CPU core).
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    owners: tuple[str, ...]
    rates: I64
    units: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lanes:
    """Queues that run one activity at a time.

    Attributes:
        names: Unique name of each, such as ``stage0.gpu.compute``.
        kinds: Kind of each: ``compute``, ``communication``, ``storage``, ``host``, ...
        owners: What each belongs to, as in `Capacities.owners`.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    owners: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pools:
    """Amounts that activities take and give back.

    Attributes:
        names: Unique name of each, such as ``stage0.gpu.memory``.
        owners: As in `Capacities.owners`.
        limits: Size, shape [P], int64.
        initial: Amount taken before the first activity, shape [P], int64.
        blocking: Whether a take waits for room (True) or may overdraw (False), shape [P], bool.
    """

    names: tuple[str, ...]
    owners: tuple[str, ...]
    limits: I64
    initial: I64
    blocking: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Label:
    """What a class of activities is, in the words of whoever built the Program.

    Attributes:
        name: Such as ``attention.qkv``.
        cause: Key of the breakdown, such as ``compute.matmul`` or ``communication.all_reduce``.
        phase: Such as ``forward``, ``backward``, ``optimizer``, ``data``.
    """

    name: str
    cause: str
    phase: str = ""


@dataclass(frozen=True, slots=True)
class Classes:
    """What activities demand; K classes, the lists in compressed rows (``x_ptr[k]:x_ptr[k+1]``).

    Attributes:
        labels: Label of each class.
        delay: Picoseconds between start and first demand, shape [K], int64, >= 0.
        weight: Weight in max-min sharing, shape [K], int64, >= 1.
        demand_ptr: Shape [K+1], int32.
        demand_capacity: Capacity of each demand, int32; at most once per class.
        demand_amount: Units of that capacity, int64, >= 1.
        hold_ptr: Shape [K+1], int32.
        hold_capacity: Capacity whose rate is reduced from start to end, int32.
        hold_amount: Units per second taken off the rate, int64, >= 1.
        pool_ptr: Shape [K+1], int32.
        pool_id: Pool of each delta, int32; at most once per class.
        pool_take: Units taken at the start, int64, >= 0.
        pool_give: Units given back at the end, int64, >= 0.
    """

    labels: tuple[Label, ...]
    delay: I64
    weight: I64
    demand_ptr: I32
    demand_capacity: I32
    demand_amount: I64
    hold_ptr: I32
    hold_capacity: I32
    hold_amount: I64
    pool_ptr: I32
    pool_id: I32
    pool_take: I64
    pool_give: I64


class Structure:
    """What several Programs have in common, and what was worked out from that alone.

    Programs that differ only in figures (rates, delays, amounts, holds, limits of pools) may hold the very
    same arrays of activities, dependencies, tags, labels and pool deltas; they have one Structure then, and
    `once` works out things that follow from these arrays for all of them. A Program made of any other array
    has a Structure of its own.
    """

    __slots__ = ("__weakref__", "_known", "_latest", "_parts")

    def __init__(self, parts: tuple[object, ...] = ()) -> None:
        self._parts = parts
        self._known: dict[Hashable, Any] = {}
        self._latest: dict[Hashable, tuple[tuple[NDArray[Any], ...], Any]] = {}

    def consists_of(self, parts: tuple[object, ...]) -> bool:
        """Whether these are its parts, object for object."""
        mine = self._parts
        return len(mine) == len(parts) and all(map(is_, mine, parts))

    def once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` returns, worked out once for all Programs of this structure.

        Args:
            key: Names it; the function that makes it, say.
            make: Reads nothing but what these Programs share, and nobody changes what it returns.
        """
        try:
            found: _T = self._known[key]
        except KeyError:
            found = self._known[key] = make()
        return found

    def latest(self, key: Hashable, arrays: tuple[NDArray[Any], ...], make: Callable[[], _T]) -> _T:
        """As `once`, of these arrays besides, which not all Programs of this structure have in common.

        Args:
            key: As in `once`.
            arrays: What was made is taken again while they are the same objects that nobody can write into.
            make: As in `once`; it may read these arrays, too.
        """
        known = self._latest.get(key)
        if known is not None and all(map(is_, known[0], arrays)):
            found: _T = known[1]
            return found
        made = make()
        if not any(array.flags.writeable for array in arrays):
            self._latest[key] = arrays, made
        return made


@dataclass(frozen=True, slots=True)
class Program:
    """N activities over capacities, lanes, pools and classes.

    Attributes:
        capacities: What is drawn on.
        lanes: Queues.
        pools: Amounts taken and given back.
        classes: What activities demand.
        lane: Lane of each activity, shape [N], int32.
        cls: Class of each activity, shape [N], int32.
        dep_ptr: Shape [N+1], int64.
        dep: Activities that must have ended before (each lower than the activity itself), int32.
        tags: Further integer labels of each activity, shape [N] each, such as ``micro_batch``, ``layer``,
            ``step``, ``stage``; the engine carries them and never reads them.
        job: Name of the job that the activities belong to.
        structure: That of another Program with the same arrays, if any: all but `capacities.rates`, `pools`
            and the delays, weights, demands and holds of classes. With any other array it is replaced by one
            of its own.
    """

    capacities: Capacities
    lanes: Lanes
    pools: Pools
    classes: Classes
    lane: I32
    cls: I32
    dep_ptr: I64
    dep: I32
    tags: dict[str, I32] = field(default_factory=dict)
    job: str = "job"
    structure: Structure = field(default_factory=Structure, compare=False, repr=False)

    def __post_init__(self) -> None:
        """A structure that a changed copy has inherited would be wrong."""
        parts = self._shared()
        if not self.structure.consists_of(parts):
            object.__setattr__(self, "structure", Structure(parts))

    def _shared(self) -> tuple[object, ...]:
        classes, capacities = self.classes, self.capacities
        return (
            self.lane,
            self.cls,
            self.dep_ptr,
            self.dep,
            self.tags,
            self.lanes,
            classes.labels,
            classes.pool_ptr,
            classes.pool_id,
            classes.pool_take,
            classes.pool_give,
            capacities.names,
            capacities.kinds,
            capacities.owners,
        )

    @property
    def num_activities(self) -> int:
        """Number of activities N."""
        return int(self.lane.shape[0])


def read_only(array: NDArray[_D]) -> NDArray[_D]:
    """A view that nobody can write through.

    To compiled code an array that can be written is of another type, for which everything is compiled and
    loaded once more; so it gets the arrays of every Program like this.
    """
    view = array.view()
    view.flags.writeable = False
    return view


def concatenate(parts: Sequence[Program]) -> Program:
    """One Program of several over the same capacities, lanes and pools.

    Args:
        parts: The first is whole; each further one is a fragment whose dependencies use the numbers
            that the activities have in the whole. Tags that a part lacks are -1 there.
    """
    tags = sorted({name for part in parts for name in part.tags})
    return Program(
        parts[0].capacities,
        parts[0].lanes,
        parts[0].pools,
        _concatenate_classes([part.classes for part in parts]),
        np.concatenate([part.lane for part in parts]),
        np.concatenate(_shifted([part.cls for part in parts], [len(part.classes.labels) for part in parts])),
        _stacked([part.dep_ptr for part in parts]),
        np.concatenate([part.dep for part in parts]),
        {
            name: np.concatenate(
                [part.tags.get(name, np.full(part.num_activities, -1, np.int32)) for part in parts]
            )
            for name in tags
        },
        parts[0].job,
    )


def _concatenate_classes(parts: Sequence[Classes]) -> Classes:
    return Classes(
        labels=tuple(label for part in parts for label in part.labels),
        delay=np.concatenate([part.delay for part in parts]),
        weight=np.concatenate([part.weight for part in parts]),
        demand_ptr=_stacked([part.demand_ptr for part in parts]),
        demand_capacity=np.concatenate([part.demand_capacity for part in parts]),
        demand_amount=np.concatenate([part.demand_amount for part in parts]),
        hold_ptr=_stacked([part.hold_ptr for part in parts]),
        hold_capacity=np.concatenate([part.hold_capacity for part in parts]),
        hold_amount=np.concatenate([part.hold_amount for part in parts]),
        pool_ptr=_stacked([part.pool_ptr for part in parts]),
        pool_id=np.concatenate([part.pool_id for part in parts]),
        pool_take=np.concatenate([part.pool_take for part in parts]),
        pool_give=np.concatenate([part.pool_give for part in parts]),
    )


def _shifted(arrays: Sequence[I32], lengths: Sequence[int]) -> list[I32]:
    """Each array raised by the lengths before it."""
    firsts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    return [array + array.dtype.type(first) for array, first in zip(arrays, firsts, strict=True)]


def _stacked(pointers: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Row pointers of rows that stand behind one another."""
    lengths = [np.diff(pointer) for pointer in pointers]
    return np.concatenate(([0], np.cumsum(np.concatenate(lengths)))).astype(pointers[0].dtype)
