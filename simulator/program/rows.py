"""Classes in the making: demands by slot of one GPU, stamped out for every stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
from numpy.typing import NDArray

from simulator.engine import Classes, Label
from simulator.units import PICOSECONDS


@dataclass(frozen=True, slots=True)
class Row:
    """One class: what its activities do, draw, hold, take and give.

    Attributes:
        label: Name, cause and phase.
        delay: Delay [ps].
        demands: Capacity and amount, capacities relative to the stage unless `absolute`.
        holds: Capacity and rate taken off it.
        take: Bytes of device memory taken at the start.
        give: Bytes given back at the end.
        transient: Of both, what is needed only while it runs.
        keeper: Whose activations the rest of `take` is, if not the label's.
        flops: Arithmetic on the GPU, recomputation included [FLOP].
        model_flops: Of it, what the model needs [FLOP].
        traffic: Bytes of device memory read and written [B].
        precision: Precision of the arithmetic, empty for what is not a kernel.
        absolute: Whether capacities are ids of the whole cluster.
        axis: Axis of the plan along which ranks must meet before it begins, empty for none.
    """

    label: Label
    delay: int = 0
    demands: tuple[tuple[int, int], ...] = ()
    holds: tuple[tuple[int, int], ...] = ()
    take: int = 0
    give: int = 0
    transient: int = 0
    keeper: str = ""
    flops: int = 0
    model_flops: int = 0
    traffic: int = 0
    precision: str = ""
    absolute: bool = False
    axis: str = ""


def whole(amount: float) -> int:
    """An amount as the engine wants it: a positive integer, rounded up."""
    return max(1, ceil(amount))


def picoseconds(seconds: float) -> int:
    """Seconds as integer picoseconds, rounded up."""
    return ceil(seconds * PICOSECONDS)


@dataclass(slots=True)
class RowTable:
    """Distinct rows, each with its index."""

    rows: list[Row] = field(default_factory=list)
    index: dict[Row, int] = field(default_factory=dict)

    def add(self, row: Row) -> int:
        """Index of the row, added if it is new."""
        found = self.index.get(row)
        if found is None:
            found = self.index[row] = len(self.rows)
            self.rows.append(row)
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
        keeper: Whose activations it keeps.
    """

    flops: NDArray[np.float64]
    model_flops: NDArray[np.float64]
    traffic: NDArray[np.float64]
    precision: tuple[str, ...]
    stage: NDArray[np.int32]
    axis: tuple[str, ...]
    transient: NDArray[np.int64]
    keeper: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Block:
    """One table's columns, capacities still relative."""

    rows: Sequence[Row]
    demand_count: NDArray[np.int64]
    demand_slot: NDArray[np.int64]
    demand_amount: NDArray[np.int64]
    demand_relative: NDArray[np.int64]
    hold_count: NDArray[np.int64]
    hold_slot: NDArray[np.int64]
    hold_amount: NDArray[np.int64]
    numbers: NDArray[np.int64]
    arithmetic: NDArray[np.float64]


def _block(rows: Sequence[Row], slots: int) -> _Block:
    # What stands behind the slots of one stage is shared: a row relative to its stage names it by its id.
    demands = [
        (slot, amount, not row.absolute and slot < slots) for row in rows for slot, amount in row.demands
    ]
    holds = [pair for row in rows for pair in row.holds]
    demand_array = np.array(demands, dtype=np.int64).reshape(-1, 3)
    hold_array = np.array(holds, dtype=np.int64).reshape(-1, 2)
    return _Block(
        rows,
        np.array([len(row.demands) for row in rows], dtype=np.int64),
        demand_array[:, 0],
        demand_array[:, 1],
        demand_array[:, 2],
        np.array([len(row.holds) for row in rows], dtype=np.int64),
        hold_array[:, 0],
        hold_array[:, 1],
        np.array([(row.delay, row.take, row.give, row.transient) for row in rows], dtype=np.int64).reshape(
            -1, 4
        ),
        np.array([(row.flops, row.model_flops, row.traffic) for row in rows], dtype=np.float64).reshape(
            -1, 3
        ),
    )


def stamp(tables: Iterable[tuple[int, Sequence[Row]]], slots: int) -> tuple[Classes, ClassFacts]:
    """All tables one behind the other, each at its stage; a table met twice is laid out once.

    Args:
        tables: Stage (-1 for none) and rows; stages that share a list of rows share the work.
        slots: Slots of one stage.
    """
    pairs = list(tables)
    layouts = {id(rows): rows for _, rows in pairs}
    laid_out = {key: _block(rows, slots) for key, rows in layouts.items()}
    blocks = [(stage, laid_out[id(rows)]) for stage, rows in pairs]
    labels: list[Label] = []
    precision: list[str] = []
    axis: list[str] = []
    keeper: list[str] = []
    for _, rows in pairs:
        labels.extend(row.label for row in rows)
        precision.extend(row.precision for row in rows)
        axis.extend(row.axis for row in rows)
        keeper.extend(row.keeper or row.label.name for row in rows)
    numbers = np.concatenate([block.numbers for _, block in blocks])
    stages = np.concatenate([np.full(len(block.rows), stage, np.int32) for stage, block in blocks])
    base = [slots * max(stage, 0) for stage, _ in blocks]
    moving = np.flatnonzero(numbers[:, 1:3].any(axis=1))
    pool_ptr = np.zeros(len(labels) + 1, np.int32)
    pool_ptr[moving + 1] = 1
    classes = Classes(
        labels=tuple(labels),
        delay=numbers[:, 0].copy(),
        weight=np.ones(len(labels), np.int64),
        demand_ptr=_ptr([block.demand_count for _, block in blocks]),
        demand_capacity=np.concatenate(
            [
                block.demand_slot + offset * block.demand_relative
                for offset, (_, block) in zip(base, blocks, strict=True)
            ]
        ).astype(np.int32),
        demand_amount=np.concatenate([block.demand_amount for _, block in blocks]),
        hold_ptr=_ptr([block.hold_count for _, block in blocks]),
        hold_capacity=np.concatenate(
            [block.hold_slot + offset for offset, (_, block) in zip(base, blocks, strict=True)]
        ).astype(np.int32),
        hold_amount=np.concatenate([block.hold_amount for _, block in blocks]),
        pool_ptr=np.cumsum(pool_ptr, dtype=np.int32),
        pool_id=np.maximum(stages[moving], 0),
        pool_take=numbers[moving, 1],
        pool_give=numbers[moving, 2],
    )
    arithmetic = np.concatenate([block.arithmetic for _, block in blocks])
    columns = arithmetic[:, 0], arithmetic[:, 1], arithmetic[:, 2]
    facts = ClassFacts(*columns, tuple(precision), stages, tuple(axis), numbers[:, 3].copy(), tuple(keeper))
    return classes, facts


def _ptr(counts: list[NDArray[np.int64]]) -> NDArray[np.int32]:
    flat = np.concatenate(counts)
    ptr = np.zeros(len(flat) + 1, np.int32)
    np.cumsum(flat, out=ptr[1:])
    return ptr
