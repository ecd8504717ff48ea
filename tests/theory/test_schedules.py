"""Pipeline schedules against the bubbles and memories that their authors publish."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest

from simulator.engine import ProgramBuilder, Record, play
from simulator.errors import PlanError
from simulator.program import SCHEDULES
from simulator.program.schedules.order import check_complete, merged, own_order
from simulator.program.schedules.schedule import Held, Order, Pass, Placement

UNIT = 1_000_000
"""One unit of time [ps]."""

COSTS = {"forward": 1, "backward": 2, "input_gradient": 1, "weight_gradient": 1}


def played(
    order: Order, placement: Placement, costs: dict[str, int] | None = None
) -> tuple[Record, list[list[int]]]:
    """An order on the engine with passes of constant length; the record, and activities by stage."""
    costs = costs or COSTS
    builder = ProgramBuilder()
    lanes = [builder.lane(f"stage{stage}") for stage in range(placement.stages)]
    ids: list[int] = []
    by_stage: list[list[int]] = [[] for _ in lanes]
    for visit in merged(order, placement):
        after = [ids[visit.source]] if visit.source >= 0 else []
        ids.append(builder.activity(lanes[visit.stage], delay_ps=costs[visit.item.kind] * UNIT, after=after))
        by_stage[visit.stage].append(ids[-1])
    return play(builder.build(), "reference"), by_stage


def spans(record: Record, by_stage: list[list[int]]) -> list[int]:
    """Units from the beginning of each stage's first pass to the end of its last."""
    return [int(record.end[ids].max() - record.start[ids].min()) // UNIT for ids in by_stage]


def most_held(passes: list[Pass]) -> int:
    """The most micro-batches (times chunks) whose weights have no gradient yet."""
    held = most = 0
    for item in passes:
        held += {"forward": 1, "backward": -1, "weight_gradient": -1}.get(item.kind, 0)
        most = max(most, held)
    return most


def cases(*names: str) -> Iterator[tuple[str, int, int, int]]:
    for name in names:
        for stages, micro_batches in ((2, 4), (4, 8), (4, 20), (8, 24), (8, 32), (16, 32)):
            chunks = SCHEDULES[name].chunks
            for number in (2, 3, 5) if chunks is None else (chunks,):
                yield name, stages, micro_batches, number


@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 4), (2, 2), (4, 4), (8, 32), (8, 3)])
@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_bubble_of_a_flushed_pipeline(name: str, stages: int, micro_batches: int) -> None:
    record, _ = played(SCHEDULES[name](stages, micro_batches), Placement(stages))
    assert record.makespan == (micro_batches + stages - 1) * 3 * UNIT
    busy = 3 * micro_batches * UNIT
    assert 1 - busy / record.makespan == pytest.approx((stages - 1) / (micro_batches + stages - 1), abs=1e-12)


def test_makespan_of_1f1b_with_eight_stages() -> None:
    record, _ = played(SCHEDULES["1f1b"](8, 32), Placement(8))
    assert record.makespan == 117 * UNIT


@pytest.mark.parametrize(("stages", "micro_batches", "chunks"), [(8, 32, 2), (4, 8, 3), (2, 2, 4), (4, 4, 2)])
def test_chunks_divide_the_bubble(stages: int, micro_batches: int, chunks: int) -> None:
    known = SCHEDULES["interleaved_1f1b"]
    order = known(stages, micro_batches, chunks)
    record, _ = played(order, known.placement(stages, chunks))
    busy = 3 * micro_batches * chunks * UNIT
    bubble = (stages - 1) / (chunks * micro_batches + stages - 1)
    assert 1 - busy / record.makespan == pytest.approx(bubble, abs=1e-12)


@pytest.mark.parametrize(("forward", "inputs", "weights"), [(1, 1, 1), (3, 3, 2), (2, 3, 2), (4, 5, 3)])
@pytest.mark.parametrize("stages", [2, 4, 8])
def test_bubble_of_zb_h1(stages: int, forward: int, inputs: int, weights: int) -> None:
    """(P - 1)(T_F + T_B - T_W), where weight gradients are the shortest."""
    costs = {"forward": forward, "input_gradient": inputs, "weight_gradient": weights}
    record, by_stage = played(SCHEDULES["zb-1p"](stages, 3 * stages), Placement(stages), costs)
    busy = 3 * stages * (forward + inputs + weights)
    assert max(spans(record, by_stage)) == busy + (stages - 1) * (forward + inputs - weights)


@pytest.mark.parametrize("name", ["zb-2p", "zb-v"])
@pytest.mark.parametrize(("stages", "micro_batches"), [(2, 4), (4, 8), (8, 24), (16, 64)])
def test_no_bubble_where_the_three_passes_take_equally_long(
    name: str, stages: int, micro_batches: int
) -> None:
    known = SCHEDULES[name]
    placement = known.placement(stages, 1)
    record, by_stage = played(known(stages, micro_batches), placement)
    assert spans(record, by_stage) == [3 * micro_batches * placement.chunks] * stages


@pytest.mark.parametrize(("stages", "micro_batches"), [(2, 4), (4, 8), (8, 24), (16, 64)])
def test_bubble_of_dualpipe(stages: int, micro_batches: int) -> None:
    """No more than (P/2 - 1)(T_F&B + T_B - 3 T_W), and DualPipe-V on half the stages does the same."""
    known = SCHEDULES["dualpipe"]
    record, _ = played(known(stages, micro_batches), known.placement(stages, 1))
    bubble = record.makespan // UNIT - 3 * micro_batches
    pair = COSTS["forward"] + COSTS["backward"]
    assert 0 <= bubble <= (stages // 2 - 1) * (pair + COSTS["backward"] - 3 * COSTS["weight_gradient"])
    half = SCHEDULES["dualpipe-v"]
    again, _ = played(half(stages // 2, micro_batches), half.placement(stages // 2, 1))
    assert again.makespan // UNIT - 6 * micro_batches == bubble


@pytest.mark.parametrize("stages", [2, 4, 8])
def test_activations_in_flight(stages: int) -> None:
    """By stage, as published: 1F1B P - p, ZB-H1 P, ZB-2P 2P, ZB-V 2P halves, DualPipe P + 1."""
    micro_batches = 4 * stages
    held = {
        name: [most_held(passes) for passes in SCHEDULES[name](stages, micro_batches)]
        for name in ("gpipe", "1f1b", "zb-1p", "zb-2p", "zb-v", "dualpipe")
    }
    assert held == {
        "gpipe": [micro_batches] * stages,
        "1f1b": [stages - stage for stage in range(stages)],
        "zb-1p": [stages] * stages,
        "zb-2p": [2 * stages] * stages,
        "zb-v": [2 * stages] * stages,
        "dualpipe": [stages + 1] * stages,
    }


@pytest.mark.parametrize("kept", [Fraction(32, 34), Fraction(32, 74), Fraction(32, 87), Fraction(1, 10)])
@pytest.mark.parametrize("stages", [2, 4, 8])
def test_zb_2p_uses_up_its_memory(stages: int, kept: Fraction) -> None:
    """Micro-batches in flight, and what is put off of others: no more than 2 P, and no room for one more.

    M_W / M_B is 32 / (34 + 5 a s / h) with unfused attention (Qi et al., arXiv:2401.10241, table 1).
    """
    held_by_stage = (Held(put_off=kept),) * stages
    for passes in SCHEDULES["zb-2p"](stages, 40 * stages, held=held_by_stage):
        held = most = Fraction(0)
        for item in passes:
            held += {"forward": Fraction(1), "input_gradient": kept - 1}.get(item.kind, -kept)
            most = max(most, held)
        assert held == 0
        assert 2 * stages - kept < most <= 2 * stages


@pytest.mark.parametrize(("stages", "micro_batches", "chunks"), [(4, 8, 2), (4, 16, 3), (8, 16, 5)])
def test_activations_in_flight_of_interleaved(stages: int, micro_batches: int, chunks: int) -> None:
    """(v - 1) P + 2 (P - p - 1) + 1 chunks, the excess over 1F1B's v (P - p) that interleaving costs."""
    order = SCHEDULES["interleaved_1f1b"](stages, micro_batches, chunks)
    for stage, passes in enumerate(order):
        ahead = (chunks - 1) * stages + 2 * (stages - stage - 1) + 1
        assert most_held(passes) == min(ahead, micro_batches * chunks)


@pytest.mark.parametrize(("name", "stages", "micro_batches", "chunks"), list(cases(*SCHEDULES)))
def test_every_order_is_whole_and_can_be_run(name: str, stages: int, micro_batches: int, chunks: int) -> None:
    known = SCHEDULES[name]
    order, placement = known(stages, micro_batches, chunks), known.placement(stages, chunks)
    check_complete(order, placement, micro_batches, ("order",))
    found = merged(order, placement)
    assert len(found) == sum(map(len, order))
    assert all(visit.source < index for index, visit in enumerate(found))
    completed = [visit for visit in found if visit.completes]
    assert len(completed) == placement.stages * placement.chunks
    placed = {(s, c): placement.part(s, c) for s in range(stages) for c in range(placement.chunks)}
    assert all(placement.place(part, chunk) == (stage, chunk) for (stage, chunk), part in placed.items())


WHOLE = ("F0 F1 B0 B1", "F0 B0 F1 B1")


def test_an_order_of_ones_own_is_read() -> None:
    assert own_order(WHOLE, Placement(2), 2) == SCHEDULES["1f1b"](2, 2)


@pytest.mark.parametrize(
    ("lines", "micro_batches", "message"),
    [
        (("F0 F1 B0", WHOLE[1]), 2, "stage 0: backward of micro-batch 1, chunk 0 is missing"),
        (("F0 F1 B0 B1 B1", WHOLE[1]), 2, "stage 0: backward of micro-batch 1, chunk 0 stands there 2 times"),
        (("F1 B0 B1", WHOLE[1]), 2, "stage 0: forward of micro-batch 0, chunk 0 is missing"),
        ((WHOLE[0], "F0 I0 F1 B1"), 2, "stage 1: weight_gradient of micro-batch 0, chunk 0 is missing"),
        (
            (WHOLE[0], "F0 B0 I0 W0 F1 B1"),
            2,
            "stage 1: backward of micro-batch 0, chunk 0 stands there whole",
        ),
        ((WHOLE[0], "B0 F0 F1 B1"), 2, "stage 1 waits with backward of micro-batch 0, chunk 0, for stage 1"),
        (
            ("F0 B0 F1 B1", "F0 F1 B0 B1"),
            2,
            "stage 0 waits with backward of micro-batch 0, chunk 0, for stage 1",
        ),
        (WHOLE, 3, "stage 0: forward of micro-batch 2, chunk 0 is missing"),
        (WHOLE, 1, "stage 0: forward of micro-batch 1, chunk 0 is not among 1 micro-batches"),
        ((WHOLE[0],), 2, "1 stages are given, but pipeline_parallel is 2"),
        ((WHOLE[0], "F0 X0"), 2, '"X0" is no pass'),
    ],
)
def test_mistakes_in_an_order_name_stage_and_pass(
    lines: tuple[str, ...], micro_batches: int, message: str
) -> None:
    with pytest.raises(PlanError) as refused:
        own_order(lines, Placement(2), micro_batches)
    assert message in refused.value.message
    assert refused.value.path[:2] == ("parallelism", "pipeline_order")


@pytest.mark.parametrize(
    ("name", "stages", "micro_batches", "message"),
    [
        ("interleaved_1f1b", 4, 6, "multiples of pipeline_parallel (4)"),
        ("dualpipe", 3, 12, "even stages"),
        ("dualpipe", 4, 6, "at least 2 x pipeline_parallel = 8"),
        ("dualpipe-v", 4, 7, "at least 2 x pipeline_parallel = 8"),
    ],
)
def test_schedules_refuse_what_they_cannot_order(
    name: str, stages: int, micro_batches: int, message: str
) -> None:
    with pytest.raises(PlanError, match=None) as refused:
        SCHEDULES[name](stages, micro_batches, 2)
    assert message in refused.value.message
