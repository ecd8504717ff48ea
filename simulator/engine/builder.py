"""Writes Programs by hand: a small API for tests, traces and examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from simulator.engine.program import I32, I64, Capacities, Classes, Label, Lanes, Pools, Program
from simulator.engine.validate import validate

_Pairs = tuple[tuple[int, int], ...]
_ClassKey = tuple[Label, int, int, _Pairs, _Pairs, tuple[tuple[int, int, int], ...]]

_UNNAMED = Label("activity", "other")


class ProgramBuilder:
    """Collects capacities, lanes, pools and activities, and lays them out as a `Program`.

    Everything is referred to by the number that the method which declared it returned.

    Example:
        >>> from simulator.engine import ProgramBuilder, play
        >>> b = ProgramBuilder()
        >>> link = b.capacity("link", rate=10**9)
        >>> send = b.activity(b.lane("sender"), demands={link: 1000})
        >>> play(b.build()).makespan
        1000000
    """

    def __init__(self, job: str = "job") -> None:
        self._job = job
        self._first = 0
        self._capacities: list[tuple[str, str, str, int, str]] = []
        self._lanes: list[tuple[str, str, str]] = []
        self._pools: list[tuple[str, str, int, int, bool]] = []
        self._classes: dict[_ClassKey, int] = {}
        self._lane: list[int] = []
        self._cls: list[int] = []
        self._dep_ptr: list[int] = [0]
        self._dep: list[int] = []
        self._tags: dict[str, list[int]] = {}

    @classmethod
    def continuing(cls, program: Program, first: int | None = None) -> ProgramBuilder:
        """A builder of a fragment over the capacities, lanes and pools of a Program.

        Args:
            program: Whose capacities, lanes and pools the fragment shares.
            first: Number of the fragment's first activity; as many as the Program has, unless
                fragments were submitted before.
        """
        builder = cls(program.job)
        builder._first = program.num_activities if first is None else first
        c, lanes, p = program.capacities, program.lanes, program.pools
        builder._capacities = list(zip(c.names, c.kinds, c.owners, map(int, c.rates), c.units, strict=True))
        builder._lanes = list(zip(lanes.names, lanes.kinds, lanes.owners, strict=True))
        builder._pools = list(
            zip(
                p.names, p.owners, map(int, p.limits), map(int, p.initial), map(bool, p.blocking), strict=True
            )
        )
        return builder

    def capacity(self, name: str, rate: int, kind: str = "link", owner: str = "", unit: str = "B") -> int:
        """Declares a capacity of `rate` [units/s] and returns its number."""
        self._capacities.append((name, kind, owner, rate, unit))
        return len(self._capacities) - 1

    def lane(self, name: str, kind: str = "compute", owner: str = "") -> int:
        """Declares a lane and returns its number."""
        self._lanes.append((name, kind, owner))
        return len(self._lanes) - 1

    def pool(self, name: str, limit: int, initial: int = 0, blocking: bool = True, owner: str = "") -> int:
        """Declares a pool and returns its number."""
        self._pools.append((name, owner, limit, initial, blocking))
        return len(self._pools) - 1

    def activity(
        self,
        lane: int,
        demands: Mapping[int, int] | None = None,
        *,
        delay_ps: int = 0,
        weight: int = 1,
        holds: Mapping[int, int] | None = None,
        takes: Mapping[int, int] | None = None,
        gives: Mapping[int, int] | None = None,
        after: Iterable[int] = (),
        label: Label = _UNNAMED,
        **tags: int,
    ) -> int:
        """Adds an activity at the end of a lane and returns its number.

        Args:
            lane: Lane.
            demands: Capacity -> amount [units].
            delay_ps: Picoseconds between start and first demand.
            weight: Weight in max-min sharing.
            holds: Capacity -> units per second taken off its rate from start to end.
            takes: Pool -> amount taken at the start.
            gives: Pool -> amount given back at the end.
            after: Activities that must have ended before.
            label: What it is.
            **tags: Integer tags; -1 on activities that lack one.
        """
        takes, gives = takes or {}, gives or {}
        pools = sorted({*takes, *gives})
        key: _ClassKey = (
            label,
            delay_ps,
            weight,
            tuple(sorted((demands or {}).items())),
            tuple(sorted((holds or {}).items())),
            tuple((pool, takes.get(pool, 0), gives.get(pool, 0)) for pool in pools),
        )
        position = len(self._lane)
        self._lane.append(lane)
        self._cls.append(self._classes.setdefault(key, len(self._classes)))
        self._dep.extend(after)
        self._dep_ptr.append(len(self._dep))
        for name in tags.keys() - self._tags.keys():
            self._tags[name] = [-1] * position
        for name, values in self._tags.items():
            values.append(tags.get(name, -1))
        return self._first + position

    def build(self) -> Program:
        """The Program, validated.

        Raises:
            MalformedProgramError: Something does not fit together.
        """
        names, kinds, owners, rates, units = _columns(self._capacities, 5)
        capacities = Capacities(tuple(names), tuple(kinds), tuple(owners), _i64(rates), tuple(units))
        names, kinds, owners = _columns(self._lanes, 3)
        lanes = Lanes(tuple(names), tuple(kinds), tuple(owners))
        names, owners, limits, initial, blocking = _columns(self._pools, 5)
        pools = Pools(tuple(names), tuple(owners), _i64(limits), _i64(initial), np.array(blocking, np.bool_))
        program = Program(
            capacities,
            lanes,
            pools,
            self._build_classes(),
            _i32(self._lane),
            _i32(self._cls),
            _i64(self._dep_ptr),
            _i32(self._dep),
            {name: _i32(values) for name, values in sorted(self._tags.items())},
            self._job,
        )
        validate(program, self._first)
        return program

    def _build_classes(self) -> Classes:
        keys = list(self._classes)
        demands = [pair for key in keys for pair in key[3]]
        holds = [pair for key in keys for pair in key[4]]
        pools = [triple for key in keys for triple in key[5]]
        return Classes(
            labels=tuple(key[0] for key in keys),
            delay=_i64([key[1] for key in keys]),
            weight=_i64([key[2] for key in keys]),
            demand_ptr=_pointers([len(key[3]) for key in keys]),
            demand_capacity=_i32([capacity for capacity, _ in demands]),
            demand_amount=_i64([amount for _, amount in demands]),
            hold_ptr=_pointers([len(key[4]) for key in keys]),
            hold_capacity=_i32([capacity for capacity, _ in holds]),
            hold_amount=_i64([amount for _, amount in holds]),
            pool_ptr=_pointers([len(key[5]) for key in keys]),
            pool_id=_i32([pool for pool, _, _ in pools]),
            pool_take=_i64([take for _, take, _ in pools]),
            pool_give=_i64([give for _, _, give in pools]),
        )


def _columns(rows: list[Any], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _i32(values: list[int]) -> I32:
    return np.array(values, np.int32)


def _i64(values: list[int]) -> I64:
    return np.array(values, np.int64)


def _pointers(lengths: list[int]) -> I32:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int32)
