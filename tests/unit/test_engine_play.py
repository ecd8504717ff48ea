"""Tiny stories on both players: ties, rounds, pools, deadlocks, horizons."""

import importlib
import sys

import numpy as np
import pytest

from simulator.engine import (
    WAIT_DEPENDENCY,
    WAIT_LANE,
    WAIT_NONE,
    WAIT_POOL,
    Label,
    Player,
    ProgramBuilder,
    Record,
    ReferencePlayer,
    choose,
    play,
)
from simulator.engine.checks import ConservationError, check_conservation, lane_times
from simulator.errors import DeadlockError, SimulationError
from simulator.units import MAX_PICOSECONDS

SECOND = 10**12
play_module = importlib.import_module("simulator.engine.play")
both = pytest.mark.parametrize("player", ["reference", "compiled"])


def run(builder: ProgramBuilder, player: Player) -> Record:
    program = builder.build()
    record = play(program, player)
    check_conservation(program, record)
    return record


@both
def test_an_empty_program_ends_at_once(player: Player) -> None:
    record = run(ProgramBuilder(), player)
    assert (record.makespan, record.end.size) == (0, 0)


@both
def test_ten_waits_of_a_tenth_end_with_one_of_a_second(player: Player) -> None:
    b = ProgramBuilder()
    short, long, join = b.lane("short"), b.lane("long"), b.lane("join")
    for _ in range(10):
        tenth = b.activity(short, delay_ps=SECOND // 10)
    whole = b.activity(long, delay_ps=SECOND)
    both_ended = b.activity(join, after=[tenth, whole])
    record = run(b, player)
    assert record.end[[tenth, whole, both_ended]].tolist() == [SECOND] * 3
    assert record.awaited[both_ended] == tenth


@both
def test_delay_then_work_and_who_awaited_whom(player: Player) -> None:
    b = ProgramBuilder()
    link = b.capacity("link", 10)
    one, two = b.lane("one"), b.lane("two")
    first = b.activity(one, {link: 10}, delay_ps=5)
    behind = b.activity(one, {link: 20})
    b.activity(two, after=[first])
    record = run(b, player)
    assert record.start.tolist() == [0, SECOND + 5, SECOND + 5]
    assert record.end.tolist() == [SECOND + 5, 3 * SECOND + 5, SECOND + 5]
    assert record.awaited.tolist() == [-1, first, first]
    assert record.awaited_kind.tolist() == [WAIT_NONE, WAIT_LANE, WAIT_DEPENDENCY]
    assert record.ready[behind] == 0


@both
def test_a_blocking_pool_grants_by_the_time_the_turn_came_then_by_id(player: Player) -> None:
    """Two tokens. 3 comes before 2, 1 and 2 come together; the first to give lets 3 in, the next 1."""
    b = ProgramBuilder()
    tokens = b.pool("tokens", 2)
    token = {"takes": {tokens: 1}, "gives": {tokens: 1}}
    lanes = [b.lane(f"l{i}") for i in range(6)]
    gate_late, gate_early = b.activity(lanes[0], delay_ps=20), b.activity(lanes[1], delay_ps=10)
    for number in (2, 3):
        b.activity(lanes[number], delay_ps=100 + number, **token)
    late = [b.activity(lanes[number], delay_ps=50, after=[gate_late], **token) for number in (4, 5)]
    early = b.activity(lanes[0], delay_ps=50, after=[gate_early], **token)
    del early
    record = run(b, player)
    assert record.start[late].tolist() == [102, 103]
    assert record.awaited_kind[late].tolist() == [WAIT_POOL] * 2
    assert record.awaited[late].tolist() == [2, 3]
    assert record.pool_peak.tolist() == [2]
    assert record.pool_final.tolist() == [0]


@both
def test_what_ends_gives_before_what_starts_takes(player: Player) -> None:
    b = ProgramBuilder()
    memory = b.pool("memory", 10, blocking=False)
    lane, other = b.lane("one"), b.lane("other")
    first = b.activity(lane, delay_ps=10, takes={memory: 8}, gives={memory: 8})
    b.activity(other, delay_ps=10, takes={memory: 6}, gives={memory: 6}, after=[first])
    record = run(b, player)
    assert (record.pool_peak[0], record.pool_peak_time[0]) == (8, 0)


@both
def test_a_pool_that_does_not_block_is_overdrawn(player: Player) -> None:
    b = ProgramBuilder()
    memory = b.pool("memory", 10, initial=3, blocking=False)
    for name in ("one", "other"):
        b.activity(b.lane(name), delay_ps=10, takes={memory: 8}, gives={memory: 7})
    record = run(b, player)
    assert (record.pool_peak[0], record.pool_final[0]) == (19, 5)


@both
def test_activities_without_work_end_in_rounds_within_one_instant(player: Player) -> None:
    b = ProgramBuilder()
    tokens = b.pool("tokens", 1)
    chain = b.lane("chain")
    last = b.activity(chain, delay_ps=7, takes={tokens: 1})
    for _ in range(1000):
        last = b.activity(chain, after=[last])
    give = b.activity(chain, gives={tokens: 1})
    taker = b.activity(b.lane("taker"), delay_ps=1, takes={tokens: 1}, gives={tokens: 1})
    record = run(b, player)
    assert record.end[[last, give, taker]].tolist() == [7, 7, 8]
    assert record.awaited[taker] == give


@both
def test_a_million_picoseconds_of_ties_cost_no_order(player: Player) -> None:
    b = ProgramBuilder()
    ends = [b.activity(b.lane(f"l{i}"), delay_ps=1) for i in range(2000)]
    join = b.activity(b.lane("join"), after=reversed(ends))
    record = run(b, player)
    assert (record.start[join], record.awaited[join]) == (1, ends[0])


@both
def test_a_deadlock_says_when_and_who_waits_for_what(player: Player) -> None:
    b = ProgramBuilder()
    buffers = b.pool("buffers", 4)
    b.activity(b.lane("reader"), delay_ps=SECOND, takes={buffers: 3}, label=Label("read", "data", "load"))
    decode = b.activity(b.lane("decoder"), takes={buffers: 2}, label=Label("decode", "data"))
    b.activity(b.lane("trainer"), after=[decode], label=Label("forward", "compute"))
    with pytest.raises(DeadlockError) as error:
        play(b.build(), player)
    assert str(error.value) == (
        "deadlock at 1 s, 2 of 3 activities not ended: "
        'activity 1 "decode" on lane "decoder" waits for 2 of pool "buffers", where 1 are free; '
        'activity 2 "forward" on lane "trainer" waits for activity 1 "decode" on lane "decoder"'
    )


@both
@pytest.mark.parametrize("work", [{"delay_ps": MAX_PICOSECONDS}, {"demands": {0: 2**60}}])
def test_beyond_the_horizon_is_refused(player: Player, work: dict[str, object]) -> None:
    b = ProgramBuilder()
    b.capacity("link", 1)
    lane = b.lane("lane")
    b.activity(lane, delay_ps=1)
    b.activity(lane, **work)
    with pytest.raises(SimulationError, match=r'activity 1 "activity" on lane "lane" .* 100 days'):
        play(b.build(), player)


@both
def test_holds_that_leave_nothing_are_refused(player: Player) -> None:
    b = ProgramBuilder()
    tensor = b.capacity("tensor", 4)
    b.activity(b.lane("kernel"), {tensor: 16})
    for name in ("one", "other"):
        b.activity(b.lane(name), delay_ps=5, holds={tensor: 2})
    with pytest.raises(SimulationError, match='hold all of capacity "tensor"'):
        play(b.build(), player)


def test_advance_and_submit_react_to_what_happened() -> None:
    b = ProgramBuilder()
    link = b.capacity("link", 10)
    lane, other = b.lane("lane"), b.lane("other")
    first = b.activity(lane, {link: 100})
    player = ReferencePlayer(b.build())
    player.advance(4 * SECOND)
    assert (player.now, player.num_activities) == (4 * SECOND, 1)
    fragment = ProgramBuilder.continuing(player.program)
    assert fragment.activity(other, {link: 10}) == 1
    fragment.activity(other, delay_ps=1, after=[first])
    assert player.submit(fragment.build()) == range(1, 3)
    player.advance(5 * SECOND)
    player.change_rate(8 * SECOND, link, 20)
    record = player.finish()
    # From 4 s the two share: the second needs 2 s for its 10 units, the first then has 50 left; 20 are
    # done at 8 s, and the remaining 30 take 1.5 s at twice the rate.
    assert record.end.tolist() == [9_500_000_000_000, 6 * SECOND, 9_500_000_000_001]
    assert record.ready.tolist() == [0, 4 * SECOND, 9_500_000_000_000]
    check_conservation(player.program, record, [(8 * SECOND, link, 20)])


def test_a_fragment_needs_the_same_lanes_and_the_past_cannot_be_changed() -> None:
    b = ProgramBuilder()
    b.activity(b.lane("lane"), delay_ps=5)
    player = ReferencePlayer(b.build())
    player.advance(10)
    other = ProgramBuilder()
    other.lane("elsewhere")
    with pytest.raises(SimulationError, match="capacities, lanes and pools"):
        player.submit(other.build())
    with pytest.raises(SimulationError, match="cannot advance from 10 ps to 9 ps"):
        player.advance(9)


def test_the_players_say_who_they_are_and_why() -> None:
    b = ProgramBuilder()
    b.activity(b.lane("lane"))
    program = b.build()
    assert choose(program, "reference") == ("reference", "asked for")
    record = play(program, "compiled")
    assert (record.player, record.why) == ("compiled", "asked for")
    assert play(program).why == "it is loaded"


def two_on_a_link() -> tuple[ProgramBuilder, Record]:
    b = ProgramBuilder()
    link, pool = b.capacity("link", 10), b.pool("pool", 5)
    first = b.activity(b.lane("one"), {link: 10}, takes={pool: 2}, gives={pool: 2})
    lane = b.lane("two")
    b.activity(lane, {link: 20})
    b.activity(lane, {link: 20}, after=[first])
    return b, play(b.build(), "reference")


@pytest.mark.parametrize(
    ("field", "row", "change", "law"),
    [
        ("start", 2, -1, "cause ended|ready <= start"),
        ("end", 0, 10, "dependencies"),
        ("end", 1, 5, "cause ended"),
        ("ready", 2, -SECOND, "dependencies"),
        ("awaited", 2, -1, "cause ended"),
        ("awaited_kind", 2, -1, "dependency awaited"),
        ("pool_final", 0, 1, "pools end"),
        ("pool_peak", 0, -1, "peak"),
        ("segment_left", 0, 0.4, "work is not undone|faster|beyond"),
        ("segment_start", 0, -SECOND, "faster|beyond"),
    ],
)
def test_the_laws_notice_a_forged_record(field: str, row: int, change: float, law: str) -> None:
    b, record = two_on_a_link()
    check_conservation(b.build(), record)
    values = getattr(record, field)
    assert isinstance(values, np.ndarray)
    values[row] += change
    with pytest.raises(ConservationError, match=law):
        check_conservation(b.build(), record)


def test_the_makespan_of_each_lane_is_accounted_for() -> None:
    b, record = two_on_a_link()
    times = lane_times(b.build(), record)
    assert times.sum(axis=1).tolist() == [record.makespan] * 2
    assert times[0].tolist() == [0, 0, 0, 0, record.end[0], record.makespan - record.end[0]]


def chain(length: int) -> ProgramBuilder:
    b = ProgramBuilder()
    lane = b.lane("lane")
    for _ in range(length):
        b.activity(lane, delay_ps=1)
    return b


@pytest.mark.parametrize(
    ("length", "loaded", "compiled", "chosen"),
    [
        (10, False, True, "reference"),
        (10, True, True, "compiled"),
        (play_module.SMALL + 1, False, True, "compiled"),
        (play_module.SMALL + 1, False, False, "reference"),
        (play_module.SMALL_UNCOMPILED + 1, False, False, "compiled"),
    ],
)
def test_auto_weighs_loading_and_compiling_against_playing(
    monkeypatch: pytest.MonkeyPatch, length: int, loaded: bool, compiled: bool, chosen: str
) -> None:
    monkeypatch.setattr(play_module, "is_compiled", lambda: compiled)
    if loaded:
        monkeypatch.setitem(sys.modules, "simulator.engine.compiled", sys)
    else:
        monkeypatch.delitem(sys.modules, "simulator.engine.compiled", raising=False)
    choice = choose(chain(length).build())
    assert choice.player == chosen
    assert choice.why


def test_compiled_code_on_disk_is_told_apart_by_all_that_is_in_it() -> None:
    """numba looks at the file of the entry points alone: the number in it must be that of its parts."""
    kernel, jit = (importlib.import_module(f"simulator.engine.{name}") for name in ("kernel", "jit"))
    assert jit.checksum() == kernel.PARTS, f'write PARTS: Final = "{jit.checksum()}" into engine/kernel.py'


def test_programs_that_can_be_written_into_need_no_compiled_code_of_their_own() -> None:
    kernel = importlib.import_module("simulator.engine.kernel")
    builder = ProgramBuilder()
    link = builder.capacity("link", rate=1)
    for name in ("one", "other"):
        builder.activity(builder.lane(name), {link: 1})
    for writeable in (True, False):
        program = builder.build()
        for array in (program.lane, program.cls, program.dep_ptr, program.dep):
            array.flags.writeable = writeable
        play(program, "compiled")
    assert [len(entry.signatures) for entry in (kernel.begin, kernel.run, kernel.sort_segments)] == [1, 1, 1]
