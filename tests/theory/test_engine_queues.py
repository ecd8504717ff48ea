"""Queues whose waiting times theory knows."""

import heapq
import math
from collections import deque

import numpy as np
import pytest
from numpy.typing import NDArray

from simulator.engine import ProgramBuilder, play

US = 10**6
CUSTOMERS = 15_000
WARM = 1_500
RUNS = 6


def arrivals(seed: int, rate: float, count: int = CUSTOMERS) -> list[int]:
    """Gaps of a Poisson stream [ps]; the unit of time is a microsecond."""
    return np.ceil(np.random.default_rng(seed).exponential(US / rate, count)).astype(np.int64).tolist()


def waits_at_one_server(services: list[int], gaps: list[int]) -> NDArray[np.int64]:
    """Waits in the queue of customers who queue for one server [ps]."""
    b = ProgramBuilder()
    source, server = b.lane("source"), b.lane("server")
    served = []
    for gap, service in zip(gaps, services, strict=True):
        arrival = b.activity(source, delay_ps=gap)
        served.append(b.activity(server, delay_ps=service, after=[arrival]))
    record = play(b.build(), "compiled")
    return (record.start - record.ready)[served]


def single_server(services: list[int], rate: float, seed: int) -> NDArray[np.int64]:
    return waits_at_one_server(services, arrivals(seed, rate))


def test_one_server_follows_lindley_exactly() -> None:
    """W' = max(0, W + S - A), customer by customer."""
    gaps, services = arrivals(1, 0.9, 5000), random_services(2, 5000)
    expected = [0]
    for service, gap in zip(services, gaps[1:], strict=False):
        expected.append(max(0, expected[-1] + service - gap))
    assert waits_at_one_server(services, gaps).tolist() == expected


def random_services(seed: int, count: int = CUSTOMERS) -> list[int]:
    return np.ceil(np.random.default_rng(seed).exponential(US, count)).astype(np.int64).tolist()


def assert_mean(runs: list[NDArray[np.int64]], expected: float) -> None:
    """Within the 99.9 % confidence interval of batch means: ten batches of each independent run."""
    means = np.array([batch.mean() / US for run in runs for batch in np.array_split(run[WARM:], 10)])
    half = 3.46 * means.std(ddof=1) / math.sqrt(means.size)
    assert half < 0.3 * expected
    assert abs(means.mean() - expected) <= half


def test_constant_service_waits_as_pollaczek_and_khinchine_say() -> None:
    """M/D/1: rho / (2 (1 - rho)) = 2 at a load of 0.8."""
    assert_mean([single_server([US] * CUSTOMERS, 0.8, seed) for seed in range(RUNS)], 2.0)


def test_exponential_service_waits_twice_as_long() -> None:
    """M/M/1: rho / (1 - rho) = 4 at a load of 0.8."""
    assert_mean([single_server(random_services(100 + seed), 0.8, seed) for seed in range(RUNS)], 4.0)


def waits_at_four_servers(gaps: list[int], services: list[int], lanes: int = 400) -> NDArray[np.int64]:
    """Customers on lanes of their own take one of four tokens; a lane is free again long before its next."""
    b = ProgramBuilder()
    source, tokens = b.lane("source"), b.pool("servers", 4)
    customers = [b.lane(f"customer{i}") for i in range(lanes)]
    served = []
    for number, (gap, service) in enumerate(zip(gaps, services, strict=True)):
        arrival = b.activity(source, delay_ps=gap)
        lane = customers[number % lanes]
        served.append(
            b.activity(lane, delay_ps=service, takes={tokens: 1}, gives={tokens: 1}, after=[arrival])
        )
    record = play(b.build(), "compiled")
    return (record.start - record.ready)[served]


def four_servers(seed: int) -> NDArray[np.int64]:
    return waits_at_four_servers(arrivals(seed, 3.2), random_services(200 + seed))


def test_four_servers_follow_kiefer_and_wolfowitz_exactly() -> None:
    """The next customer takes the server that is free first."""
    gaps, services = arrivals(3, 3.6, 5000), random_services(4, 5000)
    free, now, expected = [0] * 4, 0, []
    for gap, service in zip(gaps, services, strict=True):
        now += gap
        begin = max(now, heapq.heappop(free))
        heapq.heappush(free, begin + service)
        expected.append(begin - now)
    assert waits_at_four_servers(gaps, services).tolist() == expected


def test_four_servers_wait_as_erlang_says() -> None:
    """M/M/4 at 3.2 arrivals: C(4, 3.2) / (4 - 3.2) with Erlang's C = 0.596432."""
    assert_mean([four_servers(seed) for seed in range(RUNS)], 0.745541)


def stays_at_a_shared_processor(gaps: list[int], lanes: int = 200) -> NDArray[np.int64]:
    """Time that each customer spends where all who are there share [ps]."""
    b = ProgramBuilder()
    source, processor = b.lane("source"), b.capacity("processor", 10**12)
    customers = [b.lane(f"customer{i}") for i in range(lanes)]
    served = []
    for number, gap in enumerate(gaps):
        arrival = b.activity(source, delay_ps=gap)
        served.append(b.activity(customers[number % lanes], {processor: US}, after=[arrival]))
    record = play(b.build(), "compiled")
    return (record.end - record.ready)[served]


def shared_processor(seed: int) -> NDArray[np.int64]:
    return stays_at_a_shared_processor(arrivals(seed, 0.7))


def test_a_shared_processor_follows_virtual_time() -> None:
    """Virtual time runs at 1 / (customers there); each leaves when it has advanced by the service."""
    gaps = arrivals(5, 0.8, 5000)
    there: deque[tuple[float, int]] = deque()
    now, clock, virtual, stays = 0, 0.0, 0.0, []
    for gap in [*gaps, 10**12]:
        now += gap
        while there and clock + (there[0][0] - virtual) * len(there) <= now:
            clock += (there[0][0] - virtual) * len(there)
            virtual, arrived = there.popleft()
            stays.append(clock - arrived)
        virtual += (now - clock) / len(there) if there else 0.0
        clock = now
        there.append((virtual + US, now))
    assert stays_at_a_shared_processor(gaps).tolist() == pytest.approx(stays, abs=50)


def test_a_shared_processor_keeps_jobs_as_long_as_theory_says() -> None:
    """M/D/1-PS: D / (1 - rho), whatever the distribution of the service."""
    assert_mean([shared_processor(seed) for seed in range(RUNS)], 1 / (1 - 0.7))


@pytest.mark.parametrize("player", ["reference", "compiled"])
def test_a_pipeline_of_uniform_stages_has_the_known_bubble(player: str) -> None:
    """m micro-batches through p stages, forward only: m + p - 1 slots."""
    b = ProgramBuilder()
    lanes = [b.lane(f"stage{i}") for i in range(8)]
    for _ in range(32):
        before: list[int] = []
        for lane in lanes:
            before = [b.activity(lane, delay_ps=1000, after=before)]
    assert play(b.build(), player).makespan == (32 + 8 - 1) * 1000
