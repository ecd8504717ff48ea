"""Refuses a malformed Program before a player touches it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.engine.program import Capacities, Classes, Lanes, Pools, Program
from simulator.errors import SimulationError
from simulator.units import MAX_PICOSECONDS

MAX_WEIGHT = 10**6
"""Largest weight: beyond it the smallest share of a mix drowns in the rounding of the largest."""

MAX_RATE = 10**18
"""Largest rate [units/s]: a million units a picosecond."""

MAX_AMOUNT = 2**61
"""Largest amount, hold or pool delta [units]: two of them still add up in an int64."""


class MalformedProgramError(SimulationError, ValueError):
    """A Program whose arrays contradict one another."""


def validate(program: Program, first: int = 0) -> None:
    """Refuses a Program that no player may play.

    Checked: lengths, data types, index ranges, unique names, positive rates and amounts,
    dependencies that point downwards, no capacity or pool twice in a class, delays
    within the horizon. Whether a Program can end is found out by playing it.

    Args:
        program: The Program, or a fragment that continues another one.
        first: Number of the first activity; above 0 in a fragment, whose dependencies
            may name the activities before it.

    Raises:
        MalformedProgramError: Names the first thing that is wrong.
    """
    structure = program.structure
    _check_capacities(program.capacities)
    structure.once(_check_lanes, lambda: _check_lanes(program.lanes))
    _check_pools(program.pools)
    _check_prices(program.classes, *_checked_rows(program))
    if first or _may_change(program):
        _check_activities(program, first)
    else:
        structure.once(_check_activities, lambda: _check_activities(program, 0))


def _may_change(program: Program) -> bool:
    """Whether anybody can still write into the arrays of activities."""
    arrays: tuple[NDArray[Any], ...] = (program.lane, program.cls, program.dep_ptr, program.dep)
    return any(array.flags.writeable for array in (*arrays, *program.tags.values()))


def _check_capacities(capacities: Capacities) -> None:
    count = len(capacities.names)
    _unique("capacity", capacities.names)
    _lengths("capacities", count, kinds=capacities.kinds, owners=capacities.owners, units=capacities.units)
    _array("capacities.rates", capacities.rates, np.int64, count)
    _range("capacities.rates", capacities.rates, 1, MAX_RATE)


def _check_lanes(lanes: Lanes) -> None:
    _unique("lane", lanes.names)
    _lengths("lanes", len(lanes.names), kinds=lanes.kinds, owners=lanes.owners)


def _check_pools(pools: Pools) -> None:
    count = len(pools.names)
    _unique("pool", pools.names)
    _lengths("pools", count, owners=pools.owners)
    _array("pools.limits", pools.limits, np.int64, count)
    _array("pools.initial", pools.initial, np.int64, count)
    _array("pools.blocking", pools.blocking, np.bool_, count)
    _range("pools.limits", pools.limits, 0, MAX_AMOUNT)
    _range("pools.initial", pools.initial, 0, MAX_AMOUNT)
    full = np.flatnonzero(pools.blocking & (pools.initial > pools.limits))
    if full.size:
        raise MalformedProgramError(f'blocking pool "{pools.names[full[0]]}" begins above its limit')


def _checked_rows(program: Program) -> tuple[int, int]:
    """Checks what capacities and pools classes name, once for as many Programs as have the same arrays."""
    classes, pools = program.classes, len(program.pools.names)
    arrays = (
        classes.weight,
        classes.demand_ptr,
        classes.demand_capacity,
        classes.hold_ptr,
        classes.hold_capacity,
    )
    fixed = classes.pool_ptr, classes.pool_id, classes.pool_take, classes.pool_give
    return program.structure.latest(
        (_check_rows, pools),
        (*arrays, *fixed),
        lambda: _check_rows(classes, len(program.capacities.names), pools),
    )


def _check_rows(classes: Classes, num_capacities: int, num_pools: int) -> tuple[int, int]:
    """Refuses what is wrong with all but the prices; the numbers of demands and of holds."""
    count = len(classes.labels)
    _array("classes.weight", classes.weight, np.int64, count)
    _range("classes.weight", classes.weight, 1, MAX_WEIGHT)
    demands = _rows("classes.demand_ptr", classes.demand_ptr, np.int32, count)
    _array("classes.demand_capacity", classes.demand_capacity, np.int32, demands)
    _range("classes.demand_capacity", classes.demand_capacity, 0, num_capacities - 1)
    holds = _rows("classes.hold_ptr", classes.hold_ptr, np.int32, count)
    _array("classes.hold_capacity", classes.hold_capacity, np.int32, holds)
    _range("classes.hold_capacity", classes.hold_capacity, 0, num_capacities - 1)
    deltas = _rows("classes.pool_ptr", classes.pool_ptr, np.int32, count)
    _array("classes.pool_id", classes.pool_id, np.int32, deltas)
    _array("classes.pool_take", classes.pool_take, np.int64, deltas)
    _array("classes.pool_give", classes.pool_give, np.int64, deltas)
    _range("classes.pool_id", classes.pool_id, 0, num_pools - 1)
    _range("classes.pool_take", classes.pool_take, 0, MAX_AMOUNT)
    _range("classes.pool_give", classes.pool_give, 0, MAX_AMOUNT)
    _once("demands capacity", classes, classes.demand_ptr, classes.demand_capacity)
    _once("holds capacity", classes, classes.hold_ptr, classes.hold_capacity)
    _once("names pool", classes, classes.pool_ptr, classes.pool_id)
    return demands, holds


def _check_prices(classes: Classes, demands: int, holds: int) -> None:
    _array("classes.delay", classes.delay, np.int64, len(classes.labels))
    _range("classes.delay", classes.delay, 0, MAX_PICOSECONDS)
    _array("classes.demand_amount", classes.demand_amount, np.int64, demands)
    _range("classes.demand_amount", classes.demand_amount, 1, MAX_AMOUNT)
    _array("classes.hold_amount", classes.hold_amount, np.int64, holds)
    _range("classes.hold_amount", classes.hold_amount, 1, MAX_RATE)


def _check_activities(program: Program, first: int) -> None:
    count = program.num_activities
    _array("lane", program.lane, np.int32, count)
    _array("cls", program.cls, np.int32, count)
    _range("lane", program.lane, 0, len(program.lanes.names) - 1)
    _range("cls", program.cls, 0, len(program.classes.labels) - 1)
    dependencies = _rows("dep_ptr", program.dep_ptr, np.int64, count)
    _array("dep", program.dep, np.int32, dependencies)
    if dependencies and int(program.dep.min()) < 0:
        raise MalformedProgramError("dep holds a negative activity")
    if first or not _point_downwards(program):
        _complain_of_upward(program, first)
    for name, values in program.tags.items():
        _array(f'tags["{name}"]', values, np.int32, count)


def _point_downwards(program: Program) -> bool:
    """Whether all that is depended on is lower: its dependencies end before, or where, the own ones begin."""
    ptr, dep = program.dep_ptr, program.dep
    if not dep.size:
        return True
    return int(dep.max()) < program.num_activities and bool((ptr[1:][dep] <= np.arange(len(dep))).all())


def _complain_of_upward(program: Program, first: int) -> None:
    """Refuses the first dependency that points upwards, if there is one."""
    owner = np.repeat(np.arange(first, first + program.num_activities), np.diff(program.dep_ptr))
    upward = program.dep >= owner
    if upward.any():
        row = int(np.argmax(upward))
        raise MalformedProgramError(
            f"activity {owner[row]} depends on activity {program.dep[row]}: dependencies must point downwards"
        )


def _unique(what: str, names: Sequence[str]) -> None:
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise MalformedProgramError(f'{what} "{name}" is there twice')
        seen.add(name)


def _lengths(what: str, count: int, **columns: Sequence[str]) -> None:
    for name, column in columns.items():
        if len(column) != count:
            raise MalformedProgramError(
                f"{what}.{name} has {len(column)} entries where there are {count} names"
            )


def _array(name: str, values: NDArray[Any], dtype: type, count: int) -> None:
    if not isinstance(values, np.ndarray) or values.dtype != dtype:
        kind = getattr(values, "dtype", type(values).__name__)
        raise MalformedProgramError(f"{name} is {kind}, not {np.dtype(dtype)}")
    if values.shape != (count,):
        raise MalformedProgramError(f"{name} has shape {values.shape}, not ({count},)")


def _range(name: str, values: NDArray[Any], low: int, high: int) -> None:
    if not values.size:
        return
    least, most = int(np.minimum.reduce(values)), int(np.maximum.reduce(values))
    if least < low or most > high:
        row = int(values.argmin() if least < low else values.argmax())
        raise MalformedProgramError(f"{name}[{row}] is {int(values[row])}, outside {low} to {high}")


def _rows(name: str, pointers: NDArray[Any], dtype: type, count: int) -> int:
    """The number of entries that compressed rows point into."""
    _array(name, pointers, dtype, count + 1)
    if pointers[0] != 0 or (np.diff(pointers) < 0).any():
        raise MalformedProgramError(f"{name} does not rise from 0")
    return int(pointers[-1])


def _once(verb: str, classes: Classes, pointers: NDArray[np.int32], values: NDArray[np.int32]) -> None:
    sizes = np.diff(pointers)
    if not sizes.size or int(sizes.max()) <= 1:
        return
    keys = np.repeat(np.arange(len(sizes), dtype=np.int64) << 32, sizes)
    keys |= values
    keys.sort()
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if twice.size:
        row, value = divmod(int(keys[twice[0]]), 1 << 32)
        raise MalformedProgramError(f'class {row} ("{classes.labels[row].name}") {verb} {value} twice')
