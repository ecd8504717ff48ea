"""Classes of activities in plain Python numbers, as the reference player reads them."""

from __future__ import annotations

from typing import Any

from simulator.engine.program import Program
from simulator.engine.tables import ClassTable


class Kind:
    """What a lane needs to know of a class.

    Attributes:
        delay: Time before its demands begin [ps].
        weight: Weight of its share.
        holds: Capacity and amount of each that it holds.
        pools: Pool, what it takes and what it gives, for each that it touches.
        blocking: Whether a pool that it takes from may keep it waiting.
        nominal: Time of its work at full speed [ps].
        limit: Capacity that bounds it at full speed.
        demands: Capacity, load and use at full speed of each that it draws on.
    """

    __slots__ = ("blocking", "delay", "demands", "holds", "limit", "nominal", "pools", "weight")

    def __init__(self, program: Program, table: ClassTable, cls: int) -> None:
        classes = program.classes
        self.delay = int(classes.delay[cls])
        self.weight = int(classes.weight[cls])
        rows = slice(classes.hold_ptr[cls], classes.hold_ptr[cls + 1])
        self.holds = _tuples(classes.hold_capacity[rows], classes.hold_amount[rows])
        rows = slice(classes.pool_ptr[cls], classes.pool_ptr[cls + 1])
        pools, takes = classes.pool_id[rows], classes.pool_take[rows]
        self.pools = _tuples(pools, takes, classes.pool_give[rows])
        self.blocking = bool((program.pools.blocking[pools] & (takes > 0)).any())
        self.update(program, table, cls)

    def update(self, program: Program, table: ClassTable, cls: int) -> None:
        """Takes over what depends on the base rates."""
        rows = slice(program.classes.demand_ptr[cls], program.classes.demand_ptr[cls + 1])
        self.nominal = int(table.nominal[cls])
        self.limit = int(table.limit[cls])
        self.demands = _tuples(program.classes.demand_capacity[rows], table.load[rows], table.usage[rows])


def _tuples(*columns: Any) -> tuple[tuple[Any, ...], ...]:
    return tuple(zip(*(column.tolist() for column in columns), strict=True))
