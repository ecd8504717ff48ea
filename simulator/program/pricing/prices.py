"""Prices: what activities draw on capacities, and for how long they wait, with the figures of a cluster.

A `Work` describes what a class of activities does and holds no figure of any hardware. A `PriceList` has the
works of all classes of a Program; it prices each of them once and lays the prices out as columns of the
classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil
from typing import Any, ClassVar, Final, NamedTuple, Protocol

import numpy as np

from simulator.engine.program import I32, I64
from simulator.specs.calibration import Calibration
from simulator.specs.hardware import NodeGroupSpec, StorageSpec
from simulator.specs.software import SoftwareSpec
from simulator.units import PICOSECONDS

Pairs = tuple[tuple[int, int], ...]
"""Capacity and amount, or capacity and rate."""


class Price(NamedTuple):
    """What a work costs: delay [ps], what it draws on which capacities, and the rates that it holds."""

    delay: int = 0
    demands: Pairs = ()
    holds: Pairs = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """All that prices depend on.

    Attributes:
        group: The nodes: accelerator, links, host.
        storage: The storage, if any.
        calibration: Constants of the cost models.
        software: How kernels are launched.
        drives: Drives in every node, if there are any.
        chips: Accelerators that wait for one another.
    """

    group: NodeGroupSpec
    storage: StorageSpec | None
    calibration: Calibration
    software: SoftwareSpec
    drives: StorageSpec | None = None
    chips: int = 1


class Work(Protocol):
    """What a class of activities does, described so that it can be priced on any hardware; hashable.

    Capacities in its price are slots of the stage's own GPU, and what stands behind the slots goes by its id;
    `absolute` works name all capacities by their ids.
    """

    absolute: ClassVar[bool]

    @staticmethod
    def depends_on(figures: Figures) -> tuple[object, ...]:
        """The figures that prices of this kind of work depend on; while they are equal, prices are kept."""

    def price(self, figures: Figures) -> Price:
        """The price with these figures."""


def whole(amount: float) -> int:
    """An amount as the engine wants it: a positive integer, rounded up."""
    return max(1, ceil(amount))


def picoseconds(seconds: float) -> int:
    """Seconds as integer picoseconds, rounded up."""
    return ceil(seconds * PICOSECONDS)


class PricedColumns(NamedTuple):
    """Columns of `Classes` that hold prices."""

    delay: I64
    demand_ptr: I32
    demand_capacity: I32
    demand_amount: I64
    hold_ptr: I32
    hold_capacity: I32
    hold_amount: I64


class _Pairs(NamedTuple):
    """Capacities and amounts of several works, one behind the other."""

    length: I64
    capacity: I64
    amount: I64

    @staticmethod
    def of(rows: Sequence[Pairs]) -> _Pairs:
        flat = np.fromiter(chain.from_iterable(chain.from_iterable(rows)), np.int64).reshape(-1, 2)
        return _Pairs(np.array([len(row) for row in rows], np.int64), flat[:, 0], flat[:, 1])


class _Spread:
    """Pairs of works as compressed rows of classes; where they go is worked out anew only if that changes."""

    def __init__(self, work: I32, offset: I64, relative: I64, slots: int, same: I32) -> None:
        self._work, self._offset, self._relative, self._slots = work, offset, relative, slots
        self._same = same
        self._form: tuple[bytes, bytes] | None = None
        self._laid_out: tuple[I32, I32, I64]

    def columns(self, pairs: _Pairs) -> tuple[I32, I32, I64]:
        """Row pointers, capacities and amounts."""
        form = pairs.length.tobytes(), pairs.capacity.tobytes()
        if form != self._form:
            self._laid_out = self._lay_out(pairs)
            self._form = form
        ptr, capacity, source = self._laid_out
        return ptr, capacity, pairs.amount[source]

    def _lay_out(self, pairs: _Pairs) -> tuple[I32, I32, I64]:
        count = pairs.length[self._work]
        ptr = np.zeros(len(count) + 1, np.int64)
        np.cumsum(count, out=ptr[1:])
        first = np.cumsum(pairs.length) - pairs.length
        source = np.arange(ptr[-1]) + np.repeat(first[self._work] - ptr[:-1], count)
        moves = (pairs.capacity < self._slots) * np.repeat(self._relative, pairs.length)
        capacity = pairs.capacity[source] + moves[source] * np.repeat(self._offset, count)
        laid_out = ptr.astype(np.int32), self._same[capacity], source
        for array in laid_out:
            array.flags.writeable = False
        return laid_out


KEPT_PRICES: Final = 20_000
"""Prices of one kind of work that are kept at most."""


class _Known:
    """Prices of one kind of work at the figures `key`; found by work only once somebody asks again.

    Scenarios of a sweep differ in figures, and each would fill a table that nobody looks into.
    """

    __slots__ = ("_by_work", "_first", "key")

    def __init__(self, key: tuple[object, ...], works: Sequence[Work | None], figures: Figures) -> None:
        self.key = key
        self._first = works, [_price(work, figures) for work in works]
        self._by_work: dict[Work | None, Price] | None = None

    def first(self) -> list[Price]:
        """Those that it began with."""
        return self._first[1]

    def of(self, works: Sequence[Work | None], figures: Figures) -> list[Price]:
        """Prices of further works."""
        known = self._by_work
        if known is None:
            known = self._by_work = dict(zip(*self._first, strict=True))
        found = []
        for work in works:
            price = known.get(work)
            if price is None:
                price = known[work] = _price(work, figures)
            found.append(price)
        return found

    def __len__(self) -> int:
        return len(self._by_work or self._first[0])


_PRICES: dict[type[Any], _Known] = {}
"""The last prices of each kind of work, and the figures that they depend on; Programs share works."""


def _price(work: Work | None, figures: Figures) -> Price:
    return Price() if work is None else work.price(figures)


def _prices(works: Sequence[Work | None], key: tuple[object, ...], figures: Figures) -> list[Price]:
    """Prices of works of one kind, each there once, whose figures are `key`."""
    kind = type(works[0])
    known = _PRICES.get(kind)
    if known is None or known.key != key or len(known) > KEPT_PRICES:
        known = _PRICES[kind] = _Known(key, works, figures)
        return known.first()
    return known.of(works, figures)


def forget_prices() -> None:
    """Forgets all that are kept; nothing but time depends on it."""
    _PRICES.clear()


class PriceList:
    """The works of all classes of a Program, and the prices last worked out for each kind of work.

    Args:
        works: What classes do, None for what takes no time.
        work: Place among them of each class.
        stages: Stage of each class, -1 for none.
        slots: Slots of one stage's GPU.
        same: For each capacity the one that is drawn on for it.
    """

    def __init__(self, works: Sequence[Work | None], work: I64, stages: I32, slots: int, same: I32) -> None:
        kinds: dict[type[Any], dict[Work | None, int]] = {type(None): {None: 0}}
        places = []
        for each in works:
            known = kinds.setdefault(type(each), {})
            places.append((type(each), known.setdefault(each, len(known))))
        self._kinds = [list(known) for known in kinds.values()]
        first, base = 0, {}
        for kind, known in kinds.items():
            base[kind] = first
            first += len(known)
        number = [base[kind] + place for kind, place in places]
        relative = [each is not None and not each.absolute for kind in self._kinds for each in kind]
        self._work = np.array(number, np.int32)[work]
        offset = slots * np.maximum(stages, 0).astype(np.int64)
        ways = np.array(relative, np.int64)
        self._demands = _Spread(self._work, offset, ways, slots, same)
        self._holds = _Spread(self._work, offset, ways, slots, same)
        self._kept: list[tuple[tuple[object, ...], list[Price]] | None] = [None] * len(self._kinds)

    def columns(self, figures: Figures) -> PricedColumns:
        """The prices of all classes."""
        prices = chain.from_iterable(self._priced(place, figures) for place in range(len(self._kinds)))
        delays, demands, holds = zip(*prices, strict=True)
        return PricedColumns(
            np.array(delays, np.int64)[self._work],
            *self._demands.columns(_Pairs.of(demands)),
            *self._holds.columns(_Pairs.of(holds)),
        )

    def _priced(self, place: int, figures: Figures) -> list[Price]:
        """Prices of all works of one kind; as they were if all that they depend on is."""
        works, kept = self._kinds[place], self._kept[place]
        key = () if works[0] is None else works[0].depends_on(figures)
        if kept is not None and kept[0] == key:
            return kept[1]
        prices = _prices(works, key, figures)
        self._kept[place] = key, prices
        return prices
