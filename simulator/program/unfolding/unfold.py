"""The same Program with more representatives: one for every rank, or for every data-parallel replica.

A folded Program has one representative a stage. Unfolded, every copy of it has lanes, capacities, pools
and classes of its own, and does what the representative did. What ranks do together becomes visible:

- A collective along an axis waits, in each group of ranks along that axis, for all that any member's
  collective waits for (what it depends on, and the activity before it on the member's lane). A *join*, an
  activity without work on a lane of its own, says so; each member's own activity follows it.
- Where stages at both ends hold the same part of the model (DualPipe), replicas have ranks of both, and both
  stages' activities share their joins. They are numbered anew where that needs it.
- Sends go from copy to copy of the same number; each copy loads its own samples.
- What the whole job meets in (the step's join) stays one activity and waits for all copies.

What all share (storage servers, the fabric's core) can be unfolded in two ways. As **parts**, every copy has
a capacity of the folded rate, on which it draws the folded amount: rate and amount are both the copies'
multiple of its due, so that no division rounds. Equal parts are what max-min sharing gives while all copies
draw alike, therefore a symmetric scenario takes exactly the same time folded and unfolded. **Whole**, there
is one capacity, from which each copy draws its share of the amount, rounded up: right also where copies
run apart, at picoseconds' distance from the folded run where it is contended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simulator.engine import Capacities, Classes, Label, Lanes, Pools, Program
from simulator.engine.program import I32, I64
from simulator.program.drafting.lower import Lowered
from simulator.program.planning.plan import Plan
from simulator.program.pricing.rows import ClassFacts
from simulator.program.unfolding.meeting import before_on_lane, in_order_of_meeting, meetings

By = Literal["rank", "replica"]
Shared = Literal["parts", "whole"]

JOIN = Label("ranks.meet", "communication.join", "join")
"""Label of the joins."""

_SINGLE = "join"
"""Kind of the lanes whose activities the whole job does once."""


@dataclass(frozen=True, slots=True)
class Unfolded:
    """An unfolded Program, and where its activities come from.

    Attributes:
        lowered: The Program and what the analysis needs; representative ``stage * copies + copy``.
        copies: Representatives a stage.
        origin: Activity of the folded Program that each activity stands for, -1 for joins, shape [N].
        copy: Which copy, -1 for joins and for what the whole job does once, shape [N].
    """

    lowered: Lowered
    copies: int
    origin: I32
    copy: I32


def unfold(lowered: Lowered, by: By = "rank", *, shared: Shared = "parts", joins: bool = True) -> Unfolded:
    """Undoes the fold.

    Args:
        lowered: A folded Program.
        by: A representative for every ``rank``, or one for all tensor-parallel ranks of each ``replica``.
        shared: Whether shared capacities are given out in equal ``parts`` or shared as a ``whole``.
        joins: Whether collectives wait for all members; without, every copy goes at its own pace.

    Raises:
        UnsupportedError: Two stages hold the same part of the model and do not reduce it in the same order.
    """
    return _Unfolding(lowered, by, shared, joins=joins).run()


def num_copies(plan: Plan, by: By) -> int:
    """Representatives of each stage."""
    return plan.num_gpus_per_stage if by == "rank" else plan.data_parallel


def replica_of_rank(plan: Plan) -> I64:
    """Replica that each rank belongs to, ranks in ascending order."""
    return np.arange(plan.num_gpus) // plan.axes.stride("data") % plan.axes.along("data")


def replica_groups(plan: Plan, axis: str) -> I64 | None:
    """Number of the group that each replica is in where ranks meet along an axis; None where none meet."""
    numbers = _replica_numbers(plan, axis)
    return None if int(numbers.max()) + 1 == len(numbers) else numbers


def _replica_numbers(plan: Plan, axis: str) -> I64:
    """Number of the group that each replica is in along an axis.

    Replicas are in one group if any of their ranks are.
    """
    groups = plan.axes.groups(axis)
    ranks = np.arange(plan.num_gpus)
    first = ranks // plan.axes.stride("pipeline") % plan.axes.along("pipeline") == 0
    replica = replica_of_rank(plan)[first]
    lowest = np.arange(plan.data_parallel)
    while True:
        of_group = np.full(int(groups.max()) + 1, len(lowest))
        np.minimum.at(of_group, groups, lowest[replica])
        lower = lowest.copy()
        np.minimum.at(lower, replica, of_group[groups])
        if (lower == lowest).all():
            break
        lowest = lower
    numbers: I64 = np.unique(lowest, return_inverse=True)[1]
    return numbers


class _Unfolding:
    def __init__(self, lowered: Lowered, by: By, shared: Shared, *, joins: bool) -> None:
        meets = lowered.plan.axes.meets_other_end
        axes = frozenset(axis for axis in {*lowered.facts.axis} if joins and axis and meets(axis))
        self.ends = axes
        self.numbers: I64 = np.arange(lowered.program.num_activities)
        if axes:
            lowered, self.numbers = in_order_of_meeting(lowered, meetings(lowered, axes))
        partner = meetings(lowered, axes)
        self.lowered, self.by, self.shared, self.joins = lowered, by, shared, joins
        self.folded = lowered.program
        self.stages = len(lowered.states)
        self.copies = num_copies(lowered.plan, by)
        self.single_lane = np.array([kind == _SINGLE for kind in self.folded.lanes.kinds])
        self.single = self.single_lane[self.folded.lane]
        self.groups = {axis: self._groups(axis) for axis in sorted({*lowered.facts.axis})}
        self.axis = np.array([list(self.groups).index(axis) for axis in lowered.facts.axis], np.int64)
        meeting = np.array([g is not None for g in self.groups.values()])
        axis = self.axis[self.folded.cls]
        counts = np.array([0 if g is None else int(g.max()) + 1 for g in self.groups.values()], np.int64)
        own = np.arange(self.folded.num_activities)
        # Of two activities that meet the first has the joins.
        self.host = np.where(partner >= 0, np.minimum(partner, own), own)
        self.meets = meeting[axis]
        self.num_joins = np.where(self.meets & (self.host == own), counts[axis], 0)
        self.width = np.where(self.single, 1, self.copies)
        ends = np.cumsum(self.num_joins + self.width)
        self.block = ends - self.num_joins - self.width
        self.join_base = self.block[self.host]
        self.base = ends - self.width
        self.size = int(ends[-1]) if len(ends) else 0

    def _groups(self, axis: str) -> I64 | None:
        """Number of the group along an axis that each copy belongs to; None where none has two members."""
        if not axis or axis == "pipeline" or not self.joins:
            return None
        plan = self.lowered.plan
        groups = _replica_numbers(plan, axis) if self.by == "replica" else plan.axes.groups(axis)
        alone = int(groups.max()) + 1 == len(groups) and axis not in self.ends
        return None if alone else groups

    def run(self) -> Unfolded:
        folded, copies = self.folded, self.copies
        origin = np.repeat(np.arange(folded.num_activities, dtype=np.int32), self.num_joins + self.width)
        place = np.arange(self.size) - np.repeat(self.block, self.num_joins + self.width)
        joined = np.repeat(self.num_joins, self.num_joins + self.width)
        is_join = place < joined
        single = self.single[origin]
        copy = np.where(is_join | single, -1, place - joined).astype(np.int32)
        lanes, lane = self._lanes(origin, copy, is_join, place)
        count = len(folded.classes.labels)
        cls = np.where(is_join, copies * count, folded.cls[origin] + np.maximum(copy, 0) * count)
        dep_ptr, dep = self._dependencies()
        program = Program(
            capacities=self._capacities(),
            lanes=lanes,
            pools=self._pools(),
            classes=self._classes(),
            lane=lane.astype(np.int32),
            cls=cls.astype(np.int32),
            dep_ptr=dep_ptr,
            dep=dep,
            tags={name: values[origin] for name, values in folded.tags.items()},
            job=folded.job,
        )
        lowered = replace(
            self.lowered,
            program=program,
            facts=self._facts(),
            states=tuple(state for state in self.lowered.states for _ in range(copies)),
            step_ends=tuple(self._all(ends) for ends in self.lowered.step_ends),
            checkpoint=self._all(self.lowered.checkpoint),
            saved=self._all(self.lowered.saved),
            copies=copies,
        )
        return Unfolded(lowered, copies, np.where(is_join, -1, self.numbers[origin]).astype(np.int32), copy)

    def _all(self, activities: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(int(self.base[a]) + r for a in activities for r in range(int(self.width[a])))

    def _owned(self, owned: I64, per_stage: int, copy: int | I64) -> I64:
        """Number of what belongs to a stage's representative, for one copy of it."""
        return (owned // per_stage * self.copies + copy) * per_stage + owned % per_stage

    def _names(self, stage: int, copy: int) -> str:
        return f"stage{stage}.{self.by}{copy}"

    def _spread(self, names: tuple[str, ...], own: int) -> list[str]:
        """Names of all copies of what belongs to stages."""
        per = own // self.stages
        return [
            name.replace(f"stage{stage}", self._names(stage, copy), 1)
            for stage in range(self.stages)
            for copy in range(self.copies)
            for name in names[stage * per : (stage + 1) * per]
        ]

    def _repeated(self, values: tuple[str, ...], own: int) -> list[str]:
        per = own // self.stages
        return [
            value
            for stage in range(self.stages)
            for _ in range(self.copies)
            for value in values[stage * per : (stage + 1) * per]
        ]

    def _own(self, owners: tuple[str, ...]) -> int:
        return sum(owner.startswith("stage") for owner in owners)

    def _capacities(self) -> Capacities:
        old, own = self.folded.capacities, self._own(self.folded.capacities.owners)
        names, kinds = self._spread(old.names, own), self._repeated(old.kinds, own)
        owners, units = self._spread(old.owners, own), self._repeated(old.units, own)
        per = own // self.stages
        rates = np.repeat(old.rates[:own].reshape(self.stages, 1, per), self.copies, axis=1).ravel()
        times = self.copies if self.shared == "parts" else 1
        for number in range(own, len(old.names)):
            names += [f"{old.names[number]}.{r}" if times > 1 else old.names[number] for r in range(times)]
            kinds += [old.kinds[number]] * times
            owners += [old.owners[number]] * times
            units += [old.units[number]] * times
        rates = np.concatenate((rates, np.repeat(old.rates[own:], times)))
        return Capacities(tuple(names), tuple(kinds), tuple(owners), rates, tuple(units))

    def _capacity(self, old: I32, copy: int) -> I64:
        own = self._own(self.folded.capacities.owners)
        mine = self._owned(old.astype(np.int64), own // self.stages, copy)
        behind = own * self.copies + (old.astype(np.int64) - own) * (
            self.copies if self.shared == "parts" else 1
        )
        return np.where(old < own, mine, behind + (copy if self.shared == "parts" else 0))

    def _classes(self) -> Classes:
        old, copies = self.folded.classes, self.copies
        own = self._own(self.folded.capacities.owners)
        amount = old.demand_amount
        if self.shared == "whole":
            amount = np.where(old.demand_capacity >= own, -(-amount // copies), amount)
        numbers = range(copies)
        pools = [self._owned(old.pool_id.astype(np.int64), 1, r) for r in numbers]
        none = np.zeros(1, np.int64)
        return Classes(
            labels=old.labels * copies + (JOIN,),
            delay=np.concatenate((np.tile(old.delay, copies), none)),
            weight=np.concatenate((np.tile(old.weight, copies), none + 1)),
            demand_ptr=_tiled(old.demand_ptr, copies),
            demand_capacity=_columns([self._capacity(old.demand_capacity, r) for r in numbers]),
            demand_amount=np.tile(amount, copies),
            hold_ptr=_tiled(old.hold_ptr, copies),
            hold_capacity=_columns([self._capacity(old.hold_capacity, r) for r in numbers]),
            hold_amount=np.tile(old.hold_amount, copies),
            pool_ptr=_tiled(old.pool_ptr, copies),
            pool_id=_columns(pools),
            pool_take=np.tile(old.pool_take, copies),
            pool_give=np.tile(old.pool_give, copies),
        )

    def _facts(self) -> ClassFacts:
        old, copies = self.lowered.facts, self.copies
        return ClassFacts(
            flops=np.append(np.tile(old.flops, copies), 0.0),
            model_flops=np.append(np.tile(old.model_flops, copies), 0.0),
            traffic=np.append(np.tile(old.traffic, copies), 0.0),
            precision=old.precision * copies + ("",),
            stage=np.append(np.tile(old.stage, copies), np.int32(-1)).astype(np.int32),
            axis=old.axis * copies + ("",),
            transient=np.append(np.tile(old.transient, copies), 0),
            buffers=np.concatenate((np.tile(old.buffers, (copies, 1)), np.zeros((1, 2), np.int64))),
            keeper=old.keeper * copies + ("",),
            host=np.concatenate((np.tile(old.host, (copies, 1)), np.zeros((1, 2), np.int64))),
        )

    def _pools(self) -> Pools:
        old, copies = self.folded.pools, self.copies
        own = len(old.names)
        return Pools(
            names=tuple(self._spread(old.names, own)),
            owners=tuple(self._spread(old.owners, own)),
            limits=np.repeat(old.limits, copies),
            initial=np.repeat(old.initial, copies),
            blocking=np.repeat(old.blocking, copies),
        )

    def _lanes(self, origin: I32, copy: I32, is_join: NDArray[np.bool_], place: I64) -> tuple[Lanes, I64]:
        """Lanes of all copies, of loaders, of the job and of the joins; and the lane of each activity."""
        old, own = self.folded.lanes, self._own(self.folded.lanes.owners)
        names, kinds = self._spread(old.names, own), self._repeated(old.kinds, own)
        owners = self._spread(old.owners, own)
        first = np.zeros(len(old.names), np.int64)
        for number in range(own, len(old.names)):
            first[number] = len(names)
            times = 1 if self.single_lane[number] else self.copies
            names += [f"{old.names[number]}.{r}" if times > 1 else old.names[number] for r in range(times)]
            kinds += [old.kinds[number]] * times
            owners += [old.owners[number]] * times
        folded_lane = self.folded.lane[origin].astype(np.int64)
        mine = self._owned(folded_lane, own // self.stages, np.maximum(copy, 0))
        lane = np.where(folded_lane < own, mine, first[folded_lane] + np.maximum(copy, 0))
        axes = list(self.groups)
        key = folded_lane[is_join] * len(axes) + self.axis[self.folded.cls[origin[is_join]]]
        for pair in np.unique(key):
            on, axis = divmod(int(pair), len(axes))
            groups = self.groups[axes[axis]]
            assert groups is not None
            chosen = np.flatnonzero(is_join)[key == pair]
            lane[chosen] = len(names) + place[chosen]
            names += [f"{old.names[on]}.{axes[axis]}.join{g}" for g in range(int(groups.max()) + 1)]
            kinds += [_SINGLE] * (int(groups.max()) + 1)
            owners += ["job"] * (int(groups.max()) + 1)
        return Lanes(tuple(names), tuple(kinds), tuple(owners)), lane

    def _dependencies(self) -> tuple[I64, I32]:
        """Dependencies in compressed rows, from lists of edges."""
        folded, copies = self.folded, self.copies
        to = np.repeat(np.arange(folded.num_activities), np.diff(folded.dep_ptr))
        on = folded.dep.astype(np.int64)
        before = before_on_lane(folded.lane)
        meets = self.meets
        chained = np.flatnonzero((before >= 0) & meets)
        number = np.arange(copies)
        edges: list[tuple[I64, I64]] = []
        plain = ~meets[to] & ~self.single[to]
        edges.append(self._pairs(self.base[to[plain]], on[plain], number, number))
        once = self.single[to]
        edges.append(self._pairs(self.base[to[once]], on[once], np.zeros(copies, np.int64), number))
        for code, groups in enumerate(self.groups.values()):
            if groups is None:
                continue
            mine = self.axis[folded.cls] == code
            members = np.flatnonzero(mine)
            source = (self.join_base[members][:, None] + groups[None, :]).ravel()
            edges.append(((self.base[members][:, None] + number[None, :]).ravel(), source))
            rows, held = np.flatnonzero(mine[to]), chained[mine[chained]]
            edges.append(self._pairs(self.join_base[to[rows]], on[rows], groups, number))
            edges.append(self._pairs(self.join_base[held], before[held], groups, number))
        every = np.concatenate([pair[0] for pair in edges])
        sources = np.concatenate([pair[1] for pair in edges])
        order = np.argsort(every, kind="stable")
        ptr = np.zeros(self.size + 1, np.int64)
        np.cumsum(np.bincount(every, minlength=self.size), out=ptr[1:])
        return ptr, sources[order].astype(np.int32)

    def _pairs(self, to: I64, on: I64, to_offset: I64, on_offset: I64) -> tuple[I64, I64]:
        """An edge for each copy, but only one to what is done once."""
        once = self.single[on]
        many_to = (to[~once][:, None] + to_offset[None, :]).ravel()
        many_on = (self.base[on[~once]][:, None] + on_offset[None, :]).ravel()
        few = np.unique(to_offset)
        few_to = (to[once][:, None] + few[None, :]).ravel()
        few_on = np.repeat(self.base[on[once]], len(few))
        return np.concatenate((many_to, few_to)), np.concatenate((many_on, few_on))


def _tiled(pointers: I32, copies: int) -> I32:
    """Row pointers of all copies, and of one empty row behind them."""
    lengths = np.append(np.tile(np.diff(pointers), copies), 0)
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)


def _columns(parts: list[I64]) -> I32:
    return np.concatenate(parts).astype(np.int32)
