"""Elasticities: by how many percent throughput grows for 10 % more of one kind of capacity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from simulator.analysis import Bottleneck, Result, step_seconds
from simulator.engine import Program, play
from simulator.run import Outcome

SCALE_PERCENT = 10
"""How much more of a capacity is tried [%]."""


def rank_bottlenecks(outcome: Outcome, *, progress: Callable[[float, str], None] | None = None) -> Result:
    """The result with an elasticity for every kind of capacity that is drawn on, the highest first.

    The same Program is played once for each kind, with all capacities of that kind 10 % faster; latencies
    cannot be bought this way and keep their share of the critical path alone.
    """
    program, result = outcome.lowered.program, outcome.result
    before = step_seconds(outcome.lowered, outcome.record, outcome.scenario)
    known = {bottleneck.resource: bottleneck for bottleneck in result.bottlenecks}
    drawn = sorted({program.capacities.kinds[c] for c in np.unique(program.classes.demand_capacity)})
    for number, kind in enumerate(drawn):
        if progress is not None:
            progress(number / len(drawn), f"what more {kind} would be worth")
        faster = play(_scaled(program, kind), outcome.scenario.simulation.player)
        after = step_seconds(outcome.lowered, faster, outcome.scenario)
        gain = (before / after - 1) * 100 / SCALE_PERCENT
        share = known[kind].share if kind in known else 0.0
        known[kind] = Bottleneck(kind, share, round(gain, 6) + 0.0)
    ranked = sorted(known.values(), key=lambda b: (-(b.elasticity or 0.0), -b.share, b.resource))
    return replace(result, bottlenecks=ranked)


def _scaled(program: Program, kind: str) -> Program:
    capacities = program.capacities
    mine = np.array([k == kind for k in capacities.kinds])
    rates = np.where(mine, capacities.rates + capacities.rates * SCALE_PERCENT // 100, capacities.rates)
    return replace(program, capacities=replace(capacities, rates=rates))
