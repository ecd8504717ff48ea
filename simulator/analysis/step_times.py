"""A result whose step time is that of many draws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

from simulator.analysis.result import Result, StepTimes

STRAGGLERS: Final = "stragglers"
"""Cause of the breakdown: what jitter and slow GPUs add to the undisturbed step."""

_PER_TIME: Final = (
    "tokens_per_s",
    "tokens_per_s_per_gpu",
    "samples_per_s",
    "model_tflops_per_gpu",
    "mfu",
    "hfu",
)


def with_step_times(result: Result, times: StepTimes) -> Result:
    """The result of the undisturbed step, stretched to the mean of the draws.

    What the draws add stands in the breakdown as a cause of its own; where they take away (few draws of
    a single replica can), all causes shrink alike. Throughput and utilisation go by the mean.
    """
    extra = times.mean_s - result.step_time_s
    if extra >= 0:
        breakdown = {**result.breakdown, STRAGGLERS: extra} if extra else dict(result.breakdown)
    else:
        part = times.mean_s / result.step_time_s
        breakdown = {cause: seconds * part for cause, seconds in result.breakdown.items()}
    breakdown = dict(sorted(breakdown.items(), key=lambda item: (-item[1], item[0])))
    step = math.fsum(breakdown.values())
    pace = result.step_time_s / step
    rates: dict[str, Any] = {name: getattr(result, name) for name in _PER_TIME}
    rates = {name: None if value is None else value * pace for name, value in rates.items()}
    return replace(
        result,
        step_time_s=step,
        breakdown=breakdown,
        utilization={kind: use * pace for kind, use in result.utilization.items()},
        step_times=times,
        **rates,
    )
