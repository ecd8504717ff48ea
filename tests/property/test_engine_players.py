"""Random programs: both players give the same record, bit for bit, and it obeys the laws of conservation."""

from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulator.engine import Program, ProgramBuilder, Record, play
from simulator.engine.checks import check_conservation, segments
from simulator.engine.tables import ClassTable
from simulator.errors import SimulationError
from support.laws import Player, assert_same_record

Changes = list[tuple[int, int, int]]
RATES = (1, 3, 10, 1000, 10**12, 7 * 10**15)


def random_program(seed: int, length: int) -> tuple[Program, Changes]:
    """Lanes, joins, shared capacities, weights, holds, pools of both kinds, no work, delays, all mixed."""
    draw = np.random.default_rng(seed)
    b = ProgramBuilder()
    rates = draw.choice(RATES, size=draw.integers(0, 4)).tolist()
    capacities = [b.capacity(f"c{i}", rate) for i, rate in enumerate(rates)]
    lanes = [b.lane(f"l{i}") for i in range(draw.integers(1, 7))]
    pools = [
        b.pool(f"p{i}", int(draw.integers(4, 9)), int(draw.integers(0, 2)), bool(draw.integers(0, 2)))
        for i in range(draw.integers(0, 3))
    ]
    for number in range(length):
        takes = {pool: int(draw.integers(0, 4)) for pool in pools if draw.random() < 0.3}
        holds = {c: rates[c] // 16 for c in capacities if draw.random() < 0.1 and rates[c] >= 1000}
        before = draw.integers(0, number, size=draw.integers(0, 3)).tolist() if number else []
        b.activity(
            int(draw.choice(lanes)),
            {c: int(draw.integers(1, 6)) for c in capacities if draw.random() < 0.5},
            delay_ps=int(draw.choice([0, 0, 0, 1, 2, 5, 10**12])),
            weight=int(draw.choice([1, 1, 1, 2, 7])),
            holds=holds,
            takes=takes,
            gives={pool: amount for pool, amount in takes.items() if draw.random() < 0.95},
            after=set(before),
        )
    changes: Changes = []
    if capacities and draw.random() < 0.2:
        times = np.sort(draw.choice([0, 1, 10**11, 10**12], size=draw.integers(1, 3)))
        changes = [(int(t), int(draw.choice(capacities)), int(draw.choice(RATES[:4]))) for t in times]
    return b.build(), changes


def random_runs(seed: int, length: int) -> Program:
    """Groups of lanes like those of a GPU: a busy one beside others that wait for it, for each other or for
    other groups, on capacities that at times have room for all of them."""
    draw = np.random.default_rng(seed)
    b = ProgramBuilder()
    groups = []
    for group in range(draw.integers(1, 4)):
        rates = [int(rate) for rate in draw.choice([3, 10, 1000, 10**12], size=2)]
        capacities = [b.capacity(f"c{group}.{i}", rate) for i, rate in enumerate(rates)]
        lanes = [b.lane(f"l{group}.{i}") for i in range(draw.integers(2, 4))]
        pool = b.pool(f"p{group}", 50, blocking=bool(draw.random() < 0.1))
        groups.append((capacities, lanes, pool))
    for number in range(length):
        capacities, lanes, pool = groups[draw.integers(len(groups))]
        busy = draw.random() < 0.85
        waits = number > 0 and draw.random() < (0.1 if busy else 0.9)
        taken = {pool: int(draw.integers(1, 4))} if draw.random() < 0.4 else {}
        away = groups[draw.integers(len(groups))][0] if draw.random() < 0.1 else capacities
        b.activity(
            lanes[0] if busy else int(draw.choice(lanes[1:])),
            {c: int(draw.integers(1, 9)) for c in {capacities[0], away[1]} if draw.random() < 0.8},
            delay_ps=int(draw.choice([0, 0, 3, 10**11])),
            holds={capacities[0]: 1} if not busy and draw.random() < 0.2 else {},
            takes=taken,
            gives={p: amount for p, amount in taken.items() if draw.random() < 0.9},
            after=[int(draw.integers(max(0, number - 8), number))] if waits else [],
        )
    return b.build()


def outcome(program: Program, player: Player, changes: Changes) -> Record | str:
    """The record, or what is refused."""
    try:
        return play(program, player, changes)
    except SimulationError as error:
        return f"{type(error).__name__}: {error}"


def assert_same(one: Record | str, other: Record | str) -> None:
    if isinstance(one, Record) and isinstance(other, Record):
        assert_same_record(one, other)
    else:
        assert one == other


@cache
def compiled_is_loaded() -> bool:
    play(random_program(0, 1)[0], "compiled")
    return True


@settings(max_examples=800)
@given(st.integers(0, 2**32 - 1), st.integers(1, 28))
@example(1656, 20)  # two capacities are held up at one instant
def test_both_players_give_the_same_record(seed: int, length: int) -> None:
    assert compiled_is_loaded()
    program, changes = random_program(seed, length)
    assert_same(outcome(program, "reference", changes), outcome(program, "compiled", changes))


@settings(max_examples=400)
@given(st.integers(0, 2**32 - 1), st.integers(20, 60))
def test_runs_of_activities_played_as_one_are_told_one_by_one(seed: int, length: int) -> None:
    assert compiled_is_loaded()
    program = random_runs(seed, length)
    assert_same(outcome(program, "reference", []), outcome(program, "compiled", []))


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1), st.integers(1, 28))
def test_nothing_is_made_or_lost(seed: int, length: int) -> None:
    program, changes = random_program(seed, length)
    try:
        record = play(program, "compiled", changes)
    except SimulationError:
        return
    check_conservation(program, record, changes)


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_shares_are_weighted_max_min(seed: int) -> None:
    """The allocation is max-min fair if and only if whoever is slowed has a used-up capacity on which
    nobody gets a larger share per weight."""
    draw = np.random.default_rng(seed)
    b = ProgramBuilder()
    capacities = [b.capacity(f"c{i}", int(draw.integers(5, 50)) * 10**9) for i in range(3)]
    weights = []
    for number in range(draw.integers(2, 9)):
        weights.append(int(draw.integers(1, 5)))
        chosen = draw.choice(capacities, size=draw.integers(1, 3), replace=False).tolist()
        demands = {int(c): int(draw.integers(10**9, 9 * 10**9)) for c in chosen}
        b.activity(b.lane(f"l{number}"), demands, weight=weights[-1])
    program = b.build()
    record = play(program, "reference")
    classes, table = program.classes, ClassTable(program.classes, program.capacities.rates)
    parts = segments(program, record)
    speeds = parts["work"] * table.nominal[program.cls[parts["activity"]]] / (parts["end"] - parts["start"])
    for moment in np.unique(parts["start"]):
        running = np.flatnonzero((parts["start"] <= moment) & (parts["end"] > moment))
        for row in running[speeds[running] < 1 - 1e-6]:
            limit = parts["limit"][row]
            use, fairest = 0.0, 0.0
            for other in running:
                activity = parts["activity"][other]
                rows = slice(
                    classes.demand_ptr[program.cls[activity]], classes.demand_ptr[program.cls[activity] + 1]
                )
                for capacity, usage in zip(classes.demand_capacity[rows], table.usage[rows], strict=True):
                    if capacity == limit:
                        use += usage * speeds[other]
                        fairest = max(fairest, speeds[other] / weights[activity])
            assert use == pytest.approx(program.capacities.rates[limit] / 1e12, rel=1e-6)
            assert speeds[row] / weights[parts["activity"][row]] == pytest.approx(fairest, rel=1e-6)


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(2, 28))
def test_more_bandwidth_is_never_slower_where_order_is_fixed(seed: int, length: int) -> None:
    draw = np.random.default_rng(seed)
    makespans = []
    rate = int(draw.integers(1, 100))
    for factor in (1, 3):
        draw = np.random.default_rng(seed)
        b = ProgramBuilder()
        lanes = [(b.lane(f"l{i}"), b.capacity(f"c{i}", rate * (factor if i == 0 else 1))) for i in range(4)]
        for number in range(length):
            lane, capacity = lanes[draw.integers(4)]
            before = set(draw.integers(0, number, size=2).tolist()) if number else set()
            b.activity(lane, {capacity: int(draw.integers(1, 50))}, after=before)
        makespans.append(play(b.build(), "compiled").makespan)
    assert makespans[1] <= makespans[0]
