"""Classes in the making: what activities do, with memory and facts but without prices, for every stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulator.engine import Classes, Label
from simulator.engine.program import I32, I64
from simulator.program.pricing.prices import PricedColumns, Work

T = TypeVar("T")


@dataclass(slots=True)  # frozen would take three times as long to make
class Row:
    """One class without its price: what its activities do, take and give; never changed.

    Attributes:
        label: Name, cause and phase.
        work: What it costs, once it is priced; None for what takes no time.
        take: Bytes of device memory taken at the start.
        give: Bytes given back at the end.
        transient: Of both, what is needed only while it runs.
        buffers: Of `take` and of `give`, gathered parameters, gradients on their way, state passing through.
        keeper: Whose activations the rest of `take` is, if not the label's.
        flops: Arithmetic on the GPU, recomputation included [FLOP].
        model_flops: Of it, what the model needs [FLOP].
        traffic: Bytes of device memory read and written [B].
        precision: Precision of the arithmetic, empty for what is not a kernel.
        axis: Axis of the plan along which ranks must meet before it begins, empty for none.
        host: Bytes of the host's memory taken at the start, and given back at the end, a GPU.
    """

    label: Label
    work: Work | None = None
    take: int = 0
    give: int = 0
    transient: int = 0
    buffers: tuple[int, int] = (0, 0)
    keeper: str = ""
    flops: int = 0
    model_flops: int = 0
    traffic: int = 0
    precision: str = ""
    axis: str = ""
    host: tuple[int, int] = (0, 0)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Rows are looked up in many tables; what they are made of is deep."""
        amounts = self.take, self.give, self.transient, self.buffers, self.keeper, self.flops, self.host
        self._hash = hash((self.label, self.work, amounts))

    def __hash__(self) -> int:
        """Worked out once."""
        return self._hash


@dataclass(slots=True)
class RowTable:
    """Distinct rows, each with its index."""

    rows: list[Row] = field(default_factory=list)
    index: dict[Row, int] = field(default_factory=dict)

    def add(self, row: Row) -> int:
        """Index of the row, added if it is new."""
        number = len(self.rows)
        found = self.index.setdefault(row, number)
        if found == number:
            self.rows.append(row)
        return found

    def places(self, rows: Iterable[Row]) -> list[int]:
        """Indices of rows, added if they are new."""
        index, found = self.index, []
        for row in rows:
            place = index.get(row)
            if place is None:
                place = index[row] = len(index)
                self.rows.append(row)
            found.append(place)
        return found


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """What the analysis wants to know of each class; arrays of shape [K].

    Attributes:
        flops: Arithmetic [FLOP].
        model_flops: Of it, what counts towards MFU [FLOP].
        traffic: Device memory traffic [B].
        precision: Precision of the arithmetic.
        stage: Stage, -1 for what belongs to none.
        axis: Axis along which ranks meet before it begins, empty for none.
        transient: Bytes that it needs only while it runs, int64.
        buffers: Bytes that it takes and gives back and that are no activations, shape [K, 2].
        keeper: Whose activations it keeps.
        host: Bytes of the host's memory taken and given back a GPU, shape [K, 2].
    """

    flops: NDArray[np.float64]
    model_flops: NDArray[np.float64]
    traffic: NDArray[np.float64]
    precision: tuple[str, ...]
    stage: NDArray[np.int32]
    axis: tuple[str, ...]
    transient: NDArray[np.int64]
    buffers: NDArray[np.int64]
    keeper: tuple[str, ...]
    host: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class UnpricedClasses:
    """Everything about classes but their prices; arrays are of shape [K] or as in `Classes`, and immutable.

    Attributes:
        labels: Label of each class.
        works: What is to be priced, in any order.
        work: Place among them of each class, int64.
        facts: What the analysis wants to know of each.
        weight: As in `Classes`.
        pool_ptr: As in `Classes`.
        pool_id: As in `Classes`.
        pool_take: As in `Classes`.
        pool_give: As in `Classes`.
    """

    labels: tuple[Label, ...]
    works: tuple[Work | None, ...]
    work: I64
    facts: ClassFacts
    weight: I64
    pool_ptr: I32
    pool_id: I32
    pool_take: I64
    pool_give: I64

    def priced(self, prices: PricedColumns) -> Classes:
        """The classes with their prices."""
        return Classes(
            labels=self.labels,
            weight=self.weight,
            pool_ptr=self.pool_ptr,
            pool_id=self.pool_id,
            pool_take=self.pool_take,
            pool_give=self.pool_give,
            **prices._asdict(),
        )


_said: Final = attrgetter(
    *("label", "work", "precision", "axis", "keeper", "take", "give", "transient", "buffers", "host"),
    *("flops", "model_flops", "traffic"),
)
"""All that a class has of its row."""


def stamp(tables: Iterable[tuple[int, Sequence[Row]]]) -> UnpricedClasses:
    """All tables one behind the other, each at its stage (-1 for none)."""
    pairs = list(tables)
    # Stages that do the same have the same table; what it says is read once.
    rows: list[Row] = []
    first: dict[int, int] = {}
    for _, table in pairs:
        if id(table) not in first:
            first[id(table)] = len(rows)
            rows += table
    sizes = np.array([len(table) for _, table in pairs])
    begins = np.array([first[id(table)] for _, table in pairs]) - (np.cumsum(sizes) - sizes)
    of = np.repeat(begins, sizes)
    of += np.arange(len(of))
    numbers_of = of.tolist()
    stages = np.repeat(np.array([stage for stage, _ in pairs], np.int32), sizes)
    # Each row is looked at once: they lie all over the memory.
    labels, works, precisions, axes, keepers, *columns = zip(*map(_said, rows), strict=True)
    take, give, transient = np.array(columns[:3], np.int64)[:, of]
    buffers, host = (np.array(pairs, np.int64)[of] for pairs in columns[3:5])
    flops, model_flops, traffic = np.array(columns[5:], np.float64)[:, of]

    def each(column: Sequence[T]) -> tuple[T, ...]:
        return tuple(map(column.__getitem__, numbers_of))

    facts = ClassFacts(
        flops=flops,
        model_flops=model_flops,
        traffic=traffic,
        precision=each(precisions),
        stage=stages,
        axis=each(axes),
        transient=transient,
        buffers=buffers,
        keeper=each([keeper or label.name for keeper, label in zip(keepers, labels, strict=True)]),
        host=host,
    )
    moves = (take != 0) | (give != 0)
    pool_ptr = np.zeros(len(of) + 1, np.int32)
    np.cumsum(moves, out=pool_ptr[1:])
    found = UnpricedClasses(
        labels=each(labels),
        works=works,
        work=of,
        facts=facts,
        weight=np.ones(len(of), np.int64),
        pool_ptr=pool_ptr,
        pool_id=np.maximum(stages[moves], 0),
        pool_take=take[moves],
        pool_give=give[moves],
    )
    freeze(found.work, found.weight, found.pool_ptr, found.pool_id, found.pool_take, found.pool_give)
    freeze(
        facts.flops, facts.model_flops, facts.traffic, facts.stage, facts.transient, facts.buffers, facts.host
    )
    return found


def freeze(*arrays: NDArray[Any]) -> None:
    """Makes arrays that several Programs share immutable."""
    for array in arrays:
        array.flags.writeable = False
