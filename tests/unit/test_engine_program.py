"""What the builder writes, and what is refused."""

import dataclasses

import numpy as np
import pytest

from simulator.engine import Label, MalformedProgramError, Program, ProgramBuilder, concatenate, validate
from simulator.engine.tables import ClassTable, alone_times
from simulator.errors import SimulationError
from simulator.units import MAX_PICOSECONDS


def sample() -> Program:
    b = ProgramBuilder(job="test")
    link, disk = b.capacity("link", 100), b.capacity("disk", 7, kind="storage", owner="server", unit="op")
    pool = b.pool("buffers", 10, initial=1)
    lane, other = b.lane("lane"), b.lane("other")
    first = b.activity(lane, {link: 5, disk: 2}, takes={pool: 1}, stage=3)
    b.activity(other, {link: 5, disk: 2}, takes={pool: 1}, after=[first])
    b.activity(other, {link: 5}, holds={disk: 1}, gives={pool: 2}, label=Label("give", "data"), stage=4)
    return b.build()


def test_equal_classes_are_merged_and_tags_are_filled_up() -> None:
    program = sample()
    assert program.cls.tolist() == [0, 0, 1]
    assert program.classes.demand_ptr.tolist() == [0, 2, 3]
    assert program.tags["stage"].tolist() == [3, -1, 4]
    assert program.classes.labels[1] == Label("give", "data")


def replaced(part: str, field: str, value: object) -> Program:
    program = sample()
    if part == "program":
        return dataclasses.replace(program, **{field: value})
    return dataclasses.replace(
        program, **{part: dataclasses.replace(getattr(program, part), **{field: value})}
    )


@pytest.mark.parametrize(
    ("part", "field", "value", "complaint"),
    [
        ("program", "lane", np.array([0, 1, 2], np.int32), r"lane\[2\] is 2, outside 0 to 1"),
        ("program", "lane", np.array([0, 1, 1], np.int64), "lane is int64, not int32"),
        ("program", "cls", np.array([0, -1, 1], np.int32), r"cls\[1\] is -1"),
        ("program", "cls", np.array([0, 1], np.int32), r"cls has shape \(2,\)"),
        ("program", "dep", np.array([1], np.int32), "activity 1 depends on activity 1: .* downwards"),
        ("program", "dep", np.array([-1], np.int32), "negative"),
        ("program", "dep_ptr", np.array([0, 1, 0, 1]), "dep_ptr does not rise"),
        ("program", "tags", {"stage": np.zeros(2, np.int32)}, 'tags\\["stage"\\]'),
        ("capacities", "rates", np.array([0, 7]), r"capacities.rates\[0\] is 0"),
        ("capacities", "names", ("link", "link"), 'capacity "link" is there twice'),
        ("capacities", "kinds", ("link",), "capacities.kinds has 1 entries"),
        ("lanes", "names", ("lane", "lane"), 'lane "lane" is there twice'),
        ("pools", "initial", np.array([11]), 'blocking pool "buffers" begins above its limit'),
        ("pools", "limits", np.array([-1]), "pools.limits"),
        ("classes", "delay", np.array([0, MAX_PICOSECONDS + 1]), "classes.delay"),
        ("classes", "weight", np.array([1, 0]), "classes.weight"),
        ("classes", "demand_capacity", np.array([0, 0, 0], np.int32), "class 0 .* demands capacity 0 twice"),
        ("classes", "demand_amount", np.array([5, 0, 5]), r"classes.demand_amount\[1\] is 0"),
        ("classes", "hold_capacity", np.array([2], np.int32), "classes.hold_capacity"),
        ("classes", "pool_take", np.array([-1, 0]), "classes.pool_take"),
        ("classes", "pool_id", np.array([0, 1], np.int32), "classes.pool_id"),
    ],
)
def test_what_contradicts_itself_is_refused(part: str, field: str, value: object, complaint: str) -> None:
    with pytest.raises(MalformedProgramError, match=complaint) as error:
        validate(replaced(part, field, value))
    assert isinstance(error.value, SimulationError)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize("rate", [1, 7, 10**12 + 1, 989_400_000_000_000, 9_300_000_000_000_000, 10**18])
def test_alone_times_are_exact_and_rounded_up(rate: int) -> None:
    amounts = [1, 2, rate, rate + 1, 10**15 + 7, 2**61]
    expected = [min(-(-a * 10**12 // rate), MAX_PICOSECONDS + 1) for a in amounts]
    assert alone_times(np.array(amounts), np.full(len(amounts), rate)).tolist() == expected


def test_the_lowest_of_equally_tight_capacities_is_the_limit() -> None:
    b = ProgramBuilder()
    capacities = [b.capacity(f"c{i}", rate) for i, rate in enumerate((10, 5, 5))]
    b.activity(b.lane("lane"), {capacities[2]: 10, capacities[1]: 10, capacities[0]: 10})
    program = b.build()
    table = ClassTable(program.classes, program.capacities.rates)
    assert (table.nominal.tolist(), table.limit.tolist()) == ([2 * 10**12], [1])
    assert table.change_rate(2, 1).tolist() == [0]
    assert (table.nominal.tolist(), table.limit.tolist()) == ([10 * 10**12], [2])


def test_fragments_concatenate_to_the_whole() -> None:
    whole = sample()
    b = ProgramBuilder.continuing(whole)
    b.activity(1, {0: 9}, after=[0, 2], layer=1)
    joined = concatenate([whole, b.build()])
    validate(joined)
    assert joined.cls.tolist() == [0, 0, 1, 2]
    assert joined.dep[joined.dep_ptr[3] :].tolist() == [0, 2]
    assert joined.classes.demand_amount[joined.classes.demand_ptr[2] :].tolist() == [9]
    assert joined.tags["layer"].tolist() == [-1, -1, -1, 1]


def test_a_structure_is_shared_with_changed_rates_and_with_no_other_array() -> None:
    program = sample()
    rates = dataclasses.replace(program.capacities, rates=program.capacities.rates * 2)
    faster = dataclasses.replace(program, capacities=rates)
    assert faster.structure is program.structure
    assert program.structure.once("count", lambda: 3) == 3
    assert faster.structure.once("count", lambda: 4) == 3
    for field in ("lane", "cls", "dep_ptr", "dep"):
        other = dataclasses.replace(program, **{field: getattr(program, field).copy()})
        assert other.structure is not program.structure
        assert other.structure.once("count", lambda: 4) == 4


def test_what_follows_from_further_arrays_is_kept_only_while_nobody_can_write_into_them() -> None:
    structure, array = sample().structure, np.arange(3)
    assert structure.latest("sum", (array,), lambda: int(array.sum())) == 3
    array[0] = 5
    assert structure.latest("sum", (array,), lambda: int(array.sum())) == 8
    array.flags.writeable = False
    assert structure.latest("sum", (array,), lambda: int(array.sum())) == 8
    assert structure.latest("sum", (array,), lambda: 0) == 8
    assert structure.latest("sum", (array.copy(),), lambda: 0) == 0
