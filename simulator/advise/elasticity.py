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

    The same Program is played once for each kind on the critical path, with all capacities of that kind
    10 % faster. What limits nothing on the critical path is worth nothing; latencies cannot be bought this
    way and keep their share of the path alone.
    """
    program, result = outcome.lowered.program, outcome.result
    share = {bottleneck.resource: bottleneck.share for bottleneck in result.bottlenecks}
    kinds = sorted({program.capacities.kinds[c] for c in np.unique(program.classes.demand_capacity)})
    limiting = [kind for kind in kinds if share.get(kind)]
    ranked = [b for b in result.bottlenecks if b.resource not in kinds]
    ranked += [Bottleneck(kind, 0.0, 0.0) for kind in kinds if kind not in limiting]
    for number, kind in enumerate(limiting):
        if progress is not None:
            progress(number / len(limiting), f"what more {kind} would be worth")
        ranked.append(Bottleneck(kind, share[kind], elasticity(outcome, kind)))
    ranked.sort(key=lambda b: (-(b.elasticity or 0.0), -b.share, b.resource))
    return replace(result, bottlenecks=ranked)


def elasticity(outcome: Outcome, kind: str) -> float:
    """Percent more throughput for 10 % more of a kind of capacity, over 10; found by playing it."""
    faster = play(_scaled(outcome.lowered.program, kind), outcome.scenario.simulation.player)
    before = step_seconds(outcome.lowered, outcome.record, outcome.scenario)
    after = step_seconds(outcome.lowered, faster, outcome.scenario)
    return round((before / after - 1) * 100 / SCALE_PERCENT, 6) + 0.0


def _scaled(program: Program, kind: str) -> Program:
    capacities = program.capacities
    mine = np.array([k == kind for k in capacities.kinds])
    rates = np.where(mine, capacities.rates + capacities.rates * SCALE_PERCENT // 100, capacities.rates)
    return replace(program, capacities=replace(capacities, rates=rates))
