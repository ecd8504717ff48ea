"""Many copies of one Program at once: a vector of times for every activity.

Copies (replicas, draws) differ in how long their activities take, and wait for one another where they *meet*.
Where in every copy nothing is ever contended, an activity starts when the one before it on its lane and its
dependencies have ended, and a sweep in order of id finds all ends. Times are whole picoseconds held in
doubles, exact up to 2^53 ps (2.5 hours). Importing this module imports numba.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.engine import jit, vector_kernel
from simulator.engine.builder import ProgramBuilder
from simulator.engine.program import I32, I64, Program, read_only
from simulator.engine.tables import ClassTable, room

F64 = NDArray[np.float64]

_probed = False

LAST_EXACT: Final = float(2**53)
"""Picoseconds up to which a double holds every whole number."""


def contention(program: Program, shared: I64) -> str:
    """Why copies of a Program cannot be swept as vectors; empty where they can.

    They can where the order of all that could contend is proven: whenever two lanes draw on a capacity
    that cannot serve the greatest loads of all its lanes at once, or one holds what the other draws,
    each activity of the one has, by dependencies and order on lanes, the last of the other before it
    among its ancestors. What copies share must serve all of them at full speed.

    Args:
        program: The folded Program, whose amounts on shared capacities are those of all copies.
        shared: Ids of the capacities that all copies share.
    """
    _load()
    table = ClassTable(program.classes, program.capacities.rates)
    classes, lanes, capacities = program.classes, len(program.lanes.names), len(program.capacities.names)
    if (program.pools.blocking[classes.pool_id] & (classes.pool_take > 0)).any():
        return "activities wait for room in pools"
    used = np.unique(program.lane.astype(np.int64) * len(classes.labels) + program.cls)
    lane, cls = np.divmod(used, max(len(classes.labels), 1))
    load = np.zeros((capacities, lanes), np.int64)
    held = np.zeros((capacities, lanes), np.bool_)
    for on, kind in zip(lane.tolist(), cls.tolist(), strict=True):
        rows = slice(classes.demand_ptr[kind], classes.demand_ptr[kind + 1])
        np.maximum.at(load, (classes.demand_capacity[rows], on), table.load[rows])
        held[classes.hold_capacity[classes.hold_ptr[kind] : classes.hold_ptr[kind + 1]], on] = True
    crowded = load.sum(axis=1) > room(1, 0)
    limited = np.zeros(capacities, np.bool_)
    limited[table.limit[cls][table.limit[cls] >= 0]] = True
    for capacity in shared:
        if crowded[capacity] or limited[capacity] or held[capacity].any():
            return f"copies contend for {program.capacities.names[capacity]}"
    users = (load > 0) | held
    users[~(crowded | held.any(axis=1))] = False
    user_ptr = np.concatenate(([0], np.cumsum(users.sum(axis=1)))).astype(np.int64)
    known = np.empty((program.num_activities, lanes), np.int32)
    drew, holding = (np.full((capacities, lanes), -1, np.int32) for _ in range(2))
    last = np.full(lanes, -1, np.int32)
    user: I32 = np.nonzero(users)[1].astype(np.int32)
    culprit, other, capacity = vector_kernel.first_unordered(
        read_only(program.lane),
        read_only(program.cls),
        read_only(program.dep_ptr),
        read_only(program.dep),
        read_only(classes.demand_ptr),
        read_only(classes.demand_capacity),
        read_only(classes.hold_ptr),
        read_only(classes.hold_capacity),
        *(user_ptr, user, crowded, known, drew, holding, last),
    )
    if culprit < 0:
        return ""
    names, what = program.lanes.names, program.capacities.names[capacity]
    return f"{names[program.lane[culprit]]} and {names[other]} contend for {what}"


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """How a Program is swept: whose ends each activity waits for, and where vectors are kept.

    Attributes:
        pred_ptr: Shape [N+1].
        pred: Slots to wait for, in compressed rows.
        slot: Slot that the ends of each activity are kept in while anything waits for them, shape [N].
        slots: Slots in all.
    """

    pred_ptr: I64
    pred: I32
    slot: I32
    slots: int


def plan_vectors(program: Program) -> VectorPlan:
    """Lays out the vectors of a Program; done once for all draws."""
    _load()
    count = program.num_activities
    pred_ptr = np.zeros(count + 1, np.int64)
    pred = np.empty(len(program.dep) + count, np.int32)
    slot = np.empty(count, np.int32)
    last_use, free = np.full(count, -1, np.int64), np.empty(count, np.int32)
    before = np.full(len(program.lanes.names), -1, np.int32)
    slots = vector_kernel.allocate(
        read_only(program.lane),
        read_only(program.dep_ptr),
        read_only(program.dep),
        *(before.copy(), before, last_use, free, pred_ptr, pred, slot),
    )
    return VectorPlan(pred_ptr, pred[: pred_ptr[-1]], slot, slots)


def sweep_vectors(
    plan: VectorPlan,
    lengths: F64,
    factors: F64,
    *,
    row: I32,
    meet: I32,
    groups: I32,
    mark: I32,
    marks: int,
    ends: F64 | None = None,
) -> F64:
    """Plays all copies; an activity takes ceil(factor * length) picoseconds.

    Args:
        plan: From `plan_vectors`.
        lengths: Picoseconds of each activity in an undisturbed copy, shape [N].
        factors: Shape [rows, V]; V is a multiple of the copies that may meet.
        row: Row of `factors` that stretches each activity, -1 for none, shape [N].
        meet: Which row of `groups` says what copies of an activity start together, when all of them
            could; -1 for none, shape [N].
        groups: Group of each copy, from 0, shape [rows, copies]; elements 0 to copies - 1 of a vector
            may meet, the next ones, and so on.
        mark: Which mark notes the end of each activity, -1 for none, shape [N].
        marks: Number of marks.
        ends: If given, takes the end of every activity, shape [N, V].

    Returns:
        The latest end of each mark's activities in each copy [ps], shape [marks, V].
    """
    width = factors.shape[1]
    kept = np.zeros((plan.slots + 3, width))  # behind the slots: the beginning, and room to work in
    noted = np.zeros((marks, width))
    everything = np.zeros((0, width)) if ends is None else ends
    vector_kernel.sweep(
        *(plan.pred_ptr, plan.pred, plan.slot, lengths, row, factors, meet, groups),
        *(mark, kept, noted, everything),
    )
    return noted


def _load() -> None:
    """Loads the compiled code by using it once; where the cache is damaged, compiles anew."""
    global _probed  # noqa: PLW0603 - once a process
    if _probed:
        return
    _probed = True
    builder = ProgramBuilder()
    link, lane = builder.capacity("link", rate=1), builder.lane("lane")
    first = builder.activity(lane, {link: 1})
    builder.activity(builder.lane("other"), {link: 1}, after=[first])
    program = builder.build()
    try:
        contention(program, np.zeros(0, np.int64))
        column = np.zeros(2, np.int32)
        sweep_vectors(
            plan_vectors(program),
            np.ones(2),
            np.ones((1, 1)),
            row=column,
            meet=column,
            groups=np.zeros((1, 1), np.int32),
            mark=column,
            marks=1,
        )
    except Exception:  # noqa: BLE001 - whatever a damaged file makes the unpickler raise
        jit.forget_cache()
        importlib.reload(vector_kernel)
