"""The whole training on the terminal: how long, where the time goes, what interrupts it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from simulator.analysis.result import Result
from simulator.campaign import PARTS, Campaign
from simulator.report.page import Page
from simulator.report.palette import colour
from simulator.report.text import campaign_label, percent, quantity, seconds, shown
from simulator.units import human

_WORTH_SAYING: Final = 0.002
"""Part of the whole time from which a better interval between checkpoints is worth a line."""


def print_campaign(page: Page, result: Result) -> None:
    """Tell what the whole training comes to, if the result says so."""
    campaign = result.campaign
    if campaign is None:
        return
    page.title("The whole training")
    for line in _length(campaign):
        page.line(line, indent=2)
    longest = max(campaign.parts.values())
    page.rows(
        [
            (
                campaign_label(part),
                span(campaign.parts[part]),
                percent(campaign.parts[part] / campaign.mean_s),
                campaign.parts[part] / longest,
                colour(part),
            )
            for part in PARTS
            if campaign.parts[part]
        ]
    )
    for line in _interruptions(campaign):
        page.line(line, indent=2)
    for line in _checkpoints(campaign, result.step_time_s):
        page.line(line, indent=2)


def _length(campaign: Campaign) -> Iterator[str]:
    """How long it takes, and what it costs."""
    steps = f"{campaign.steps:,} steps take {span(campaign.mean_s)}"
    if campaign.interruptions:
        draws = f"{span(campaign.p5_s)} to {span(campaign.p95_s)} in nine of ten draws"
        steps += f" ({draws}); {percent(campaign.goodput)} of that trains (goodput)"
    yield f"{steps}."
    cost = "" if campaign.cost is None else f", {_large(campaign.cost)} USD"
    yield f"{campaign.num_nodes:,} nodes: {_large(campaign.gpu_hours)} GPU-hours{cost}"


def span(value: float) -> str:
    """What lasts long: ``85.4 d``."""
    return human(value, "duration")


def _large(value: float) -> str:
    return f"{value / 1e6:,.1f} million" if value >= 1e6 else quantity(value)


def _interruptions(campaign: Campaign) -> Iterator[str]:
    if campaign.mean_time_between_s is None:
        yield "nothing fails: campaign.failures is not given"
        return
    yield f"something fails every {span(campaign.mean_time_between_s)} of a running job"
    for cause in campaign.interruptions:
        times = f"{cause.count:,.0f} times" if cause.count >= 10 else f"{cause.count:.2g} times"
        share = percent(cause.lost_s / campaign.mean_s)
        yield f"{shown(cause.cause, 60)}: {times}, takes {span(cause.lost_s)} ({share})"


def _checkpoints(campaign: Campaign, step_s: float) -> Iterator[str]:
    if campaign.interval is None:
        return
    every = f"every {campaign.interval:,} steps ({seconds(campaign.interval * step_s)})"
    stops = f"a checkpoint {every} stops training for {seconds(campaign.checkpoint_s)}"
    yield f"{stops}; reading one takes {seconds(campaign.restore_s)}"
    points = {point.interval: point for point in campaign.intervals}
    best, given = points.get(campaign.best_interval or 0), points.get(campaign.interval)
    if best is None or given is None:
        return
    saved = given.time_s - best.time_s
    if saved < _WORTH_SAYING * given.time_s:
        yield "that interval is as good as the best one"
        return
    yield (
        f"checkpoint.interval={best.interval} would be best: {span(saved)} less, goodput "
        f"{percent(best.goodput)} (in the mean, with a spare node whenever one is needed)"
    )
