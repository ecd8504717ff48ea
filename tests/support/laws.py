"""Laws that hold for every Program, whichever room made it: each is written once and leant on everywhere."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

import numpy as np

from simulator.engine import Program, Record, play, validate
from simulator.engine.checks import check_conservation
from simulator.program import Lowered, Unfolded, unfold
from simulator.run import Outcome

Player = Literal["reference", "compiled"]

DIFFER = frozenset({"player", "num_events", "why"})
"""Fields of a record that say who played it and how, not what happened."""


def assert_conserves(program: Program, record: Record) -> None:
    """The laws of every record, and pools that are back where they began."""
    check_conservation(program, record)
    assert np.array_equal(record.pool_final, program.pools.initial)


def assert_same_record(one: Record, other: Record) -> None:
    """Bit for bit, whoever played them."""
    for name in (field.name for field in fields(Record) if field.name not in DIFFER):
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype, name
            assert mine.tobytes() == theirs.tobytes(), (name, mine, theirs)
        else:
            assert mine == theirs, name


def play_on_both(program: Program) -> Record:
    """The record on which both players agree, which obeys the laws."""
    record = play(program, "compiled")
    assert_same_record(record, play(program, "reference"))
    assert_conserves(program, record)
    return record


def assert_obeys_laws(outcome: Outcome) -> None:
    """A simulated step: the laws, both players, and no part of the memory that is less than nothing."""
    assert_same_record(outcome.record, play_on_both(outcome.lowered.program))
    assert all(size >= 0 for size in outcome.result.memory_by_part.values())


def assert_same_times(folded: Lowered, every: Unfolded, player: Player = "compiled") -> None:
    """Every copy starts and ends when its representative does, and holds as much."""
    validate(every.lowered.program)
    record, unfolded = play(folded.program, "compiled"), play(every.lowered.program, player)
    real = every.origin >= 0
    origin = every.origin[real]
    assert (np.bincount(origin, minlength=folded.program.num_activities) >= 1).all()
    for name in ("start", "end"):
        assert np.array_equal(getattr(record, name)[origin], getattr(unfolded, name)[real]), name
    assert np.array_equal(np.repeat(record.pool_peak, every.copies), unfolded.pool_peak)


def assert_folds(folded: Lowered) -> None:
    """Every rank by itself takes the time of its representative."""
    assert_same_times(folded, unfold(folded))


def model_flops(outcome: Outcome) -> float:
    """Arithmetic that counts towards the model, of all GPUs of all stages in a step."""
    program, facts = outcome.lowered.program, outcome.lowered.facts
    return float(facts.model_flops[program.cls].sum()) * outcome.lowered.plan.num_gpus_per_stage
