"""Whole trainings against renewal theory, hand calculations, and what was published of failures."""

import math
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, stdev

import numpy as np
import pytest

from simulator import load_scenario
from simulator.campaign import (
    NANOSECONDS,
    PARTS,
    Drawn,
    Hazard,
    Pace,
    best_interval,
    draw,
    expected,
    hazards,
    undergo,
)
from simulator.errors import PlanError
from simulator.specs import CampaignSpec

DAY = 86400 * NANOSECONDS
MINUTE = 60 * NANOSECONDS


def every(seconds: float, *, detection: int = 0, repair: int = 0, cause: str = "failure") -> Hazard:
    return Hazard(cause, 1 / (seconds * NANOSECONDS), detection, repair)


PACE = Pace(
    steps=20_000,
    step=2 * NANOSECONDS,
    interval=100,
    copy=20 * NANOSECONDS,
    write=0,
    restart=3 * MINUTE,
    restore=MINUTE,
    hazards=(every(3600, detection=5 * MINUTE), every(7200, cause="other")),
    spare_nodes=0,
)


def draws(pace: Pace, count: int = 200) -> list[Drawn]:
    return [draw(pace, np.random.default_rng((1, run))) for run in range(count)]


@pytest.mark.parametrize(
    "pace",
    [
        PACE,
        replace(PACE, hazards=(every(1800, detection=10 * MINUTE),)),
        replace(PACE, copy=0, interval=7),
        replace(PACE, hazards=(every(900),), restart=20 * MINUTE, interval=50),
        replace(PACE, copy=NANOSECONDS, write=150 * NANOSECONDS, steps=200_000),
        replace(PACE, copy=NANOSECONDS, write=150 * NANOSECONDS, steps=200_000, interval=20),
    ],
    ids=["two causes", "late notice", "often", "starts that fail", "asynchronous", "slow to write"],
)
def test_draws_take_what_renewal_theory_says(pace: Pace) -> None:
    lengths = [drawn.length for drawn in draws(pace, 100)]
    error = stdev(lengths) / math.sqrt(len(lengths))
    assert abs(fmean(lengths) - expected(pace)) < 4 * error


def test_without_failures_it_takes_its_steps_and_checkpoints() -> None:
    calm = replace(PACE, hazards=(), steps=20_050)
    (only,) = draws(calm, 1)
    assert only.parts["training"] == 20_050 * calm.step
    assert only.parts["checkpoints"] == 201 * calm.copy
    assert only.length == expected(calm) == calm.undisturbed(20_050)


def test_parts_and_causes_add_up() -> None:
    for drawn in draws(replace(PACE, hazards=(every(3600, repair=DAY), every(7200))), 20):
        trained = drawn.parts["training"] + drawn.parts["checkpoints"]
        assert drawn.parts["training"] == PACE.steps * PACE.step
        assert sum(drawn.lost) == drawn.length - trained
        assert set(drawn.parts) == set(PARTS)


def test_causes_come_at_their_rates() -> None:
    drawn = draws(PACE, 300)
    first, second = (sum(each.failures[n] for each in drawn) for n in (0, 1))
    running = sum(each.length - each.parts["detection"] - each.parts["no_node"] for each in drawn)
    for count, hazard in zip((first, second), PACE.hazards, strict=True):
        due = running * hazard.rate
        assert abs(count - due) < 4 * math.sqrt(due)


def test_without_a_spare_it_waits_until_the_node_is_back() -> None:
    """Each failure waits for the whole repair, but for the time until it was noticed."""
    alone = replace(PACE, hazards=(every(3600, detection=5 * MINUTE, repair=DAY),))
    for drawn in draws(alone, 20):
        assert drawn.parts["no_node"] == drawn.failures[0] * (DAY - 5 * MINUTE)


def test_enough_spares_never_wait() -> None:
    many = replace(PACE, hazards=(every(3600, repair=DAY),), spare_nodes=1000)
    assert all(drawn.parts["no_node"] == 0 for drawn in draws(many, 20))


def test_more_spares_wait_less() -> None:
    waits = [
        sum(
            drawn.parts["no_node"]
            for drawn in draws(replace(PACE, hazards=(every(3600, repair=DAY),), spare_nodes=spares), 50)
        )
        for spares in (0, 4, 8, 16, 32)
    ]
    assert all(more > less for more, less in pairwise(waits))


def test_best_interval_is_that_of_young_and_daly() -> None:
    """A minute to save and three hours between failures, in steps of a second.

    Daly's higher-order estimate is sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + d / 2M / 9) - d = 1098.77 s; Young's
    first-order one, sqrt(2 d M) = 1138.42 s, is of the period from one checkpoint to the next.
    """
    pace = replace(
        PACE, step=NANOSECONDS, copy=MINUTE, hazards=(every(10800),), steps=10**7, restart=0, restore=0
    )
    best = best_interval(pace)
    ratio = 60 / (2 * 10800)
    daly = math.sqrt(2 * 60 * 10800) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - 60
    assert best == pytest.approx(daly, rel=1e-3)
    assert best + 60 == pytest.approx(math.sqrt(2 * 60 * 10800), rel=0.03)


@pytest.mark.parametrize("write", [0, 150 * NANOSECONDS])
def test_best_interval_is_the_best_of_all(write: int) -> None:
    pace = replace(PACE, write=write, steps=2000)
    times = {interval: expected(pace.every(interval)) for interval in range(1, 2001)}
    assert times[best_interval(pace)] == min(times.values())


@pytest.mark.parametrize(("gpus", "hours"), [(16_384, 1.8), (131_072, 0.23)])
def test_published_projections_of_large_jobs(gpus: int, hours: float) -> None:
    """Mean time to failure at 6.5 failures in 1,000 node-days; arXiv:2410.21680."""
    group = load_scenario("scenarios/llama3_405b_campaign.yaml").cluster.node_groups[0]
    group = group.model_copy(update={"nodes": gpus // 8})
    spec = CampaignSpec.model_validate(
        {"steps": 1, "restart": "5 min", "failures": {"infrastructure": {"mean_time": f"{1000 / 6.5} d"}}}
    )
    (hazard,) = hazards(spec, group)
    assert 1 / hazard.rate / NANOSECONDS / 3600 == pytest.approx(hours, rel=0.03)


@pytest.mark.parametrize(("stall", "goodput"), [(120, 0.90), (0.2, 0.95)])
def test_published_goodput_with_slow_and_with_quick_checkpoints(stall: float, goodput: float) -> None:
    """A 65B model on 1,536 H800, saved every 250 steps or 1.5 h, each time for two minutes or 0.2 s.

    Failures as others measured them, 6.5 in 1,000 node-days (arXiv:2410.21680); noticed by NCCL's time-out of
    ten minutes; ten more to start again is assumed. Source: DLRover, documentation of Flash Checkpoint.
    """
    nodes_days = 1000 / 6.5 / (1536 / 8)
    pace = replace(
        PACE,
        steps=100_000,
        step=round(5400 / 250 * NANOSECONDS),
        interval=250,
        copy=round(stall * NANOSECONDS),
        restart=10 * MINUTE,
        restore=2 * MINUTE,
        hazards=(every(nodes_days * 86400, detection=10 * MINUTE),),
    )
    assert pace.steps * pace.step / expected(pace) == pytest.approx(goodput, abs=0.025)


def test_what_never_ends_is_refused() -> None:
    group = load_scenario("scenarios/llama3_405b_campaign.yaml").cluster.node_groups[0]
    spec = CampaignSpec.model_validate({"steps": 20_000, "restart": "3 min"})
    hopeless = replace(PACE, hazards=(every(20),))
    with pytest.raises(PlanError, match=r"something fails every 20 s, 3\.7 min lie between checkpoints"):
        undergo(hopeless, spec, group, 0)
    with pytest.raises(PlanError, match=r"failures would have to be drawn; up to [\d,]+ runs are drawn"):
        undergo(replace(PACE, steps=10**8), spec, group, 0)
