"""Rooflines and max-min shares against figures worked out by hand."""

import pytest

from simulator.engine import Player, ProgramBuilder, Record, play
from simulator.engine.checks import check_conservation

SECOND = 10**12
both = pytest.mark.parametrize("player", ["reference", "compiled"])


def run(builder: ProgramBuilder, player: Player, changes: tuple[tuple[int, int, int], ...] = ()) -> Record:
    program = builder.build()
    record = play(program, player, changes)
    check_conservation(program, record, changes)
    return record


@both
@pytest.mark.parametrize(("flop", "moved", "limit"), [(989, 1, 0), (1, 3, 1), (10, 10, 1)])
def test_alone_a_kernel_runs_at_the_roofline(player: Player, flop: int, moved: int, limit: int) -> None:
    b = ProgramBuilder()
    tensor, memory = b.capacity("tensor", 989), b.capacity("memory", 3)
    b.activity(b.lane("stream"), {tensor: flop, memory: moved})
    record = run(b, player)
    assert record.makespan == max(-(-flop * SECOND // 989), -(-moved * SECOND // 3))
    assert record.limit[0] == limit


@both
def test_penalties_one_and_two_share_three_as_two_and_one(player: Player) -> None:
    """A flow of penalty p has weight 1/p: rates 2 and 1, so 6 units take 3 s and 2 of the other remain."""
    b = ProgramBuilder()
    link = b.capacity("link", 3)
    b.activity(b.lane("one"), {link: 6}, weight=2)
    b.activity(b.lane("two"), {link: 6}, weight=1)
    record = run(b, player)
    assert record.end.tolist() == [3 * SECOND, 4 * SECOND]
    assert record.segment_start.tolist() == [3 * SECOND]
    assert record.segment_left == pytest.approx([0.5])


@both
def test_consumption_one_and_two_share_three_at_equal_rates(player: Player) -> None:
    """Each moves one thing a second; a thing costs 1 or 2 units. Alone they would take 1/3 and 2/3 s."""
    b = ProgramBuilder()
    link = b.capacity("link", 3)
    b.activity(b.lane("one"), {link: 1}, weight=1)
    b.activity(b.lane("two"), {link: 2}, weight=2)
    assert run(b, player).end.tolist() == pytest.approx([SECOND, SECOND], abs=2)


@both
def test_what_one_cannot_use_the_others_get(player: Player) -> None:
    """Flows of at most 1, 10 and 10 units/s on a link of 11: the small one is not slowed by the large ones
    where its weight says so, and they share the remaining ten."""
    b = ProgramBuilder()
    link, port = b.capacity("link", 11), b.capacity("port", 1)
    b.activity(b.lane("small"), {link: 10, port: 10}, weight=100)
    for name in ("large", "larger"):
        b.activity(b.lane(name), {link: 50})
    record = run(b, player)
    assert record.end.tolist() == [10 * SECOND] * 3
    assert record.limit.tolist() == [port, link, link]


@both
def test_a_flow_over_two_links_is_frozen_at_the_tighter(player: Player) -> None:
    """Links of 10 and 16; A on both, B on the first, C on the second. A and B get 5, C the remaining 11."""
    b = ProgramBuilder()
    first, second = b.capacity("first", 10), b.capacity("second", 16)
    b.activity(b.lane("a"), {first: 50, second: 50})
    b.activity(b.lane("b"), {first: 50})
    b.activity(b.lane("c"), {second: 110})
    record = run(b, player)
    assert record.limit.tolist() == [first, first, second]
    assert record.end.tolist() == [10 * SECOND] * 3


@both
def test_held_units_slow_the_others_for_as_long_as_they_are_held(player: Player) -> None:
    """A quarter of the rate is held for 4 s: 3 of 4 s' work is done then, 1 s remains."""
    b = ProgramBuilder()
    tensor = b.capacity("tensor", 4)
    b.activity(b.lane("kernel"), {tensor: 16})
    b.activity(b.lane("collective"), delay_ps=4 * SECOND, holds={tensor: 1})
    assert run(b, player).end.tolist() == [5 * SECOND, 4 * SECOND]


@both
def test_a_halved_rate_halves_the_speed_from_then_on(player: Player) -> None:
    b = ProgramBuilder()
    link = b.capacity("link", 10)
    lane = b.lane("sender")
    for _ in range(2):
        b.activity(lane, {link: 100})
    record = run(b, player, ((5 * SECOND, link, 5),))
    assert record.end.tolist() == [15 * SECOND, 35 * SECOND]
    assert record.segment_left == pytest.approx([0.5])


@both
def test_a_rate_may_rise_again(player: Player) -> None:
    b = ProgramBuilder()
    link = b.capacity("link", 10)
    b.activity(b.lane("sender"), {link: 100})
    record = run(b, player, ((2 * SECOND, link, 1), (12 * SECOND, link, 10)))
    assert record.makespan == pytest.approx(19 * SECOND, abs=2)


@both
@pytest.mark.parametrize("jobs", [2, 3, 7])
def test_equal_jobs_that_share_end_together(player: Player, jobs: int) -> None:
    b = ProgramBuilder()
    link = b.capacity("link", 10**9)
    for number in range(jobs):
        b.activity(b.lane(f"l{number}"), {link: 10**9})
    assert run(b, player).end.tolist() == pytest.approx([jobs * SECOND] * jobs, abs=2)
