"""Rates of the players as multiples of SimPy's own timeout, measured in the same process.

Run with ``pytest -n 0 -s benchmarks/test_engine_speed.py``. Each figure is the median of five runs in CPU
time; U is the CPU time of one SimPy timeout among 1,000 processes.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import simpy

from simulator.engine import Program, ProgramBuilder, play
from simulator.engine.layout import lay_out
from simulator.engine.program import Capacities, Classes, Label, Lanes, Pools
from simulator.engine.tables import ClassTable

RUNS = 5


def median_time(action: Callable[[], object], runs: int = RUNS) -> float:
    times = []
    for _ in range(runs):
        begin = time.process_time()
        action()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def simpy_run(processes: int = 1000, timeouts: int = 100) -> None:
    env = simpy.Environment()

    def process(number: int) -> Iterator[simpy.Event]:
        for step in range(timeouts):
            yield env.timeout(1 + number * step % 7)

    for number in range(processes):
        env.process(process(number))
    env.run()


def unit(runs: int = RUNS) -> float:
    return median_time(simpy_run, runs) / 100_000


def program(
    lane: np.ndarray,
    cls: np.ndarray,
    deps: tuple[np.ndarray, np.ndarray],
    demands: list[dict[int, int]],
    rates: list[int],
    pools: Sequence[tuple[int, bool]] = (),
    delays: list[int] | None = None,
    takes: list[int] | None = None,
) -> Program:
    """A large Program straight from arrays; a class that takes, takes one from the pool of that number."""
    count, lanes = len(demands), int(lane.max()) + 1
    takes = takes or [-1] * count
    pairs = [pair for row in demands for pair in sorted(row.items())]
    taken = [pool for pool in takes if pool >= 0]

    def pointers(lengths: list[int]) -> np.ndarray:
        return np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)

    names = tuple(f"c{i}" for i in range(len(rates)))
    lane_names = tuple(f"l{i}" for i in range(lanes))
    pool_names = tuple(f"p{i}" for i in range(len(pools)))
    return Program(
        Capacities(names, names, names, np.array(rates, np.int64), names),
        Lanes(lane_names, lane_names, lane_names),
        Pools(
            pool_names,
            pool_names,
            np.array([limit for limit, _ in pools], np.int64),
            np.zeros(len(pools), np.int64),
            np.array([blocking for _, blocking in pools], np.bool_),
        ),
        Classes(
            labels=(Label("activity", "other"),) * count,
            delay=np.array(delays or [0] * count, np.int64),
            weight=np.ones(count, np.int64),
            demand_ptr=pointers([len(row) for row in demands]),
            demand_capacity=np.array([c for c, _ in pairs], np.int32),
            demand_amount=np.array([a for _, a in pairs], np.int64),
            hold_ptr=pointers([0] * count),
            hold_capacity=np.zeros(0, np.int32),
            hold_amount=np.zeros(0, np.int64),
            pool_ptr=pointers([int(pool >= 0) for pool in takes]),
            pool_id=np.array(taken, np.int32),
            pool_take=np.ones(len(taken), np.int64),
            pool_give=np.ones(len(taken), np.int64),
        ),
        lane.astype(np.int32),
        cls.astype(np.int32),
        deps[0].astype(np.int64),
        deps[1].astype(np.int32),
    )


def grid(lanes: int, length: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Lanes side by side; each activity depends on the one before it on the neighbour."""
    lane = np.tile(np.arange(lanes), length)
    step = np.repeat(np.arange(length), lanes)
    dep_ptr = np.concatenate((np.zeros(lanes, np.int64), np.arange(lanes * (length - 1) + 1)))
    dep = (step[lanes:] - 1) * lanes + (lane[lanes:] + 1) % lanes
    return lane, step, (dep_ptr, dep)


def fixed_order() -> Program:
    lane, step, deps = grid(64, 16_000)
    return program(lane, lane * 4 + step % 4, deps, [{k // 4: 10 + k % 4} for k in range(256)], [10**9] * 64)


def contended_lanes() -> Program:
    """64 lanes; each activity takes one of 32 servers, first come first served."""
    lane, step, deps = grid(64, 8_000)
    return program(
        lane,
        (lane * 7 + step) % 97,
        deps,
        [{}] * 97,
        [],
        [(32, True)],
        [100 + 13 * k for k in range(97)],
        [0] * 97,
    )


def inside_a_gpu(gpus: int = 64, length: int = 4000) -> Program:
    """Compute beside communication on each GPU: both draw on its memory bandwidth."""
    lane = np.tile(np.arange(2 * gpus), length)
    step = np.repeat(np.arange(length), 2 * gpus)
    demands, rates = [], []
    for gpu in range(gpus):
        rates += [989 * 10**12, 3350 * 10**9, 450 * 10**9]
        tensor, memory, link = range(3 * gpu, 3 * gpu + 3)
        demands += [{tensor: (900 + 7 * k) * 10**9, memory: 3 * 10**9} for k in range(4)]
        demands += [{memory: (1000 + 11 * k) * 10**6, link: (300 + k) * 10**6} for k in range(4)]
    cls = (lane // 2) * 8 + (lane % 2) * 4 + step % 4
    none = np.zeros(lane.size + 1, np.int64), np.zeros(0, np.int32)
    return program(lane, cls, none, demands, rates)


def groups_of_eight(running: int) -> Program:
    """Lanes in groups of eight on one link each, with pauses: every begin and end changes others' shares."""
    length = max(4, 400_000 // running)
    lane = np.tile(np.arange(running), length)
    step = np.repeat(np.arange(length), running)
    groups = running // 8
    demands = [{group: 10**6 + 7919 * k} for group in range(groups) for k in range(16)]
    cls = (lane // 8) * 16 + (lane * 5 + step * 3) % 16
    none = np.zeros(lane.size + 1, np.int64), np.zeros(0, np.int32)
    delays = [10**9 * (1 + k % 5) for _ in range(groups) for k in range(16)]
    return program(lane, cls, none, demands, [10**9] * groups, delays=delays)


@pytest.mark.parametrize(
    ("name", "build", "bound"),
    [
        ("fixed order, an activity", fixed_order, 0.03),
        ("contended lanes, an activity", contended_lanes, 0.07),
        ("inside one GPU, a change", inside_a_gpu, 0.3),
        ("components of 8, 1,000 running, a change", lambda: groups_of_eight(1000), 3),
        ("components of 8, 100,000 running, a change", lambda: groups_of_eight(100_000), 6),
    ],
)
def test_compiled_player(name: str, build: Callable[[], Program], bound: float) -> None:
    made = build()
    record = play(made, "compiled")
    changes = made.num_activities * (2 if "change" in name else 1)  # an activity begins to draw, and ends
    simulate = median_time(lambda: play(made, "compiled"))
    units = simulate / changes / unit()
    print(f"\n{name}: {units:.3f} U (bound {bound}), {simulate / changes * 1e9:.0f} ns, ", end="")
    print(f"{made.num_activities:,} activities, {record.segment_start.size:,} segments")
    assert units <= bound


def test_reference_player() -> None:
    lane, step, deps = grid(16, 1250)
    made = program(lane, lane * 4 + step % 4, deps, [{k // 4: 10 + k % 4} for k in range(64)], [10**9] * 16)
    units = median_time(lambda: play(made, "reference")) / made.num_activities / unit()
    print(f"\nreference player, uncontended, an activity: {units:.1f} U (bound 10)")
    assert units <= 10


def test_state_of_an_activity() -> None:
    """Beside the Program and the Record."""
    made = fixed_order()
    state = lay_out(made, ClassTable(made.classes, made.capacities.rates))
    size = state.links.nbytes / made.num_activities
    print(f"\nstate of an activity: {size:.0f} B (bound 24)")
    assert size <= 24


def test_builder() -> None:
    def build() -> None:
        b = ProgramBuilder()
        lane, link = b.lane("lane"), b.capacity("link", 10)
        for number in range(20_000):
            b.activity(lane, {link: 1 + number % 7})
        b.build()

    print(f"\nbuilder: {median_time(build) / 20_000 * 1e6:.1f} us an activity")
