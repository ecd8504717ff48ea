"""The compiled player: the reference player's semantics, bit for bit, in numba over flat arrays.

Importing this module imports numba.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from simulator.engine import jit, kernel, layout, sweep
from simulator.engine.builder import ProgramBuilder
from simulator.engine.layout import State
from simulator.engine.program import Program
from simulator.engine.record import Record
from simulator.engine.stuck import deadlock_error
from simulator.engine.tables import ClassTable, hold_error, horizon_error
from simulator.units import MAX_PICOSECONDS

_PATIENCE = 2_000_000
"""Events between two looks at the keyboard: about a second."""

_probed = False


def play_compiled(program: Program, rate_changes: Sequence[tuple[int, int, int]] = ()) -> Record:
    """Plays a validated Program from its first to its last activity.

    Args:
        program: A Program that `validate` let pass.
        rate_changes: When [ps], which capacity, its new base rate [units/s]; in order of time.

    Raises:
        DeadlockError: Activities wait for ever.
        SimulationError: An activity would end beyond the horizon, or holds leave nothing of a capacity.
    """
    _load()
    table = ClassTable(program.classes, program.capacities.rates)
    pairs = sweep.occurring_pairs(program)
    if pairs is not None and not rate_changes and sweep.is_order_fixed(program, table, pairs):
        return sweep.play_in_order(program, table, pairs)
    state = layout.lay_out(program, table, pairs)
    outcome = kernel.begin(state)
    for at_ps, changes in groupby(rate_changes, key=lambda change: change[0]):
        if at_ps > 0 and outcome in (layout.GOING, layout.STOPPED):
            state, outcome = _run(state, at_ps)
        if outcome in (layout.GOING, layout.STOPPED):
            for _, capacity, rate in changes:
                _change_rate(state, table, capacity, rate)
    if outcome in (layout.GOING, layout.STOPPED):
        state, outcome = _run(state, MAX_PICOSECONDS)
    _complain(program, state, outcome)
    return _record(state)


def _load() -> None:
    """Loads the compiled code by playing something small; where the cache is damaged, compiles anew."""
    global _probed  # noqa: PLW0603 - once a process
    if _probed:
        return
    _probed = True
    builder = ProgramBuilder()
    link = builder.capacity("link", rate=1)
    for name in ("one", "other"):
        builder.activity(builder.lane(name), {link: 1})
    program = builder.build()
    try:
        play_compiled(program, [(1, link, 1)])
    except Exception:  # noqa: BLE001 - whatever a damaged file makes the unpickler raise
        jit.forget_cache()
        importlib.reload(kernel)
        importlib.reload(sweep)


def _run(state: State, stop: int) -> tuple[State, int]:
    """Plays up to an instant, with more room for segments whenever it runs out."""
    while True:
        outcome = kernel.run(state, stop, _PATIENCE)
        if outcome != layout.FULL:
            return state, outcome
        if state.counters[layout.SEGMENTS] + len(state.lanes) > len(state.segments):
            state = state._replace(segments=np.concatenate((state.segments, np.zeros_like(state.segments))))


def _change_rate(state: State, table: ClassTable, capacity: int, rate: int) -> None:
    concerned = np.zeros(len(state.classes), np.bool_)
    concerned[table.change_rate(capacity, rate)] = True
    kernel.shift_loads(state, concerned, -1)
    layout.refresh_classes(state.classes, state.demands, table)
    kernel.set_rate(state, capacity, rate)
    kernel.shift_loads(state, concerned, 1)


def _complain(program: Program, state: State, outcome: int) -> None:
    now, culprit = int(state.counters[layout.NOW]), int(state.counters[layout.CULPRIT])
    if outcome == layout.BEYOND:
        raise horizon_error(program, culprit, now)
    if outcome == layout.HELD:
        raise hold_error(program, culprit, now)
    if (state.end < 0).any():
        last = int(state.end.max(initial=0))
        raise deadlock_error(program, state.end, state.pools["level"][:-1], last)


def _record(state: State) -> Record:
    ready, kind = np.empty_like(state.start), np.zeros_like(state.limit)
    kernel.complete_history(state, ready, kind, np.full(len(state.lanes), -1, np.int32))
    count = int(state.counters[layout.SEGMENTS])
    activity, start = np.empty(count, np.int32), np.empty(count, np.int64)
    limit, left = np.empty(count, np.int32), np.empty(count)
    if count:
        kernel.sort_segments(state, np.zeros(len(state.start) + 1, np.int64), activity, start, limit, left)
    pools = state.pools[:-1]
    return Record(
        ready=ready,
        start=state.start,
        end=state.end,
        awaited=state.awaited,
        awaited_kind=kind,
        limit=state.limit,
        segment_activity=activity,
        segment_start=start,
        segment_limit=limit,
        segment_left=left,
        pool_peak=pools["peak"].copy(),
        pool_peak_time=pools["peak_time"].copy(),
        pool_final=pools["level"].copy(),
        makespan=int(state.end.max(initial=0)),
        num_events=int(state.counters[layout.EVENTS]),
        player="compiled",
    )
