"""How long a training takes in the mean, in closed form, and the best interval of its checkpoints.

Failures come at rate L while the job runs or starts again, none while one has not been noticed. With legs of
length a (the steps between two checkpoints, and the stall), a checkpoint that survives only w after the leg,
and D lost from a failure to the first step again, a failure comes after 1/L in the mean and leaves
``sum_j P(X >= w + j a) = exp(-L w) / (exp(L a) - 1)`` legs that need not be repeated, so that a leg takes

    (1/L + D) (exp(L a) - 1) exp(L w).

Starting again takes r, unless a failure comes before that: with d the mean time until one is noticed,
``D = d + (exp(L r) - 1) (1/L + d)``.

Source: Daly, Future Generation Computer Systems 22(3), 2006, eq. 13 (w = 0, d = 0), whose optimum is the one
that he approximates; a renewal argument for the rest.
Valid: many legs (for w = 0, any number), failures without memory, a spare node whenever one is needed.
"""

from __future__ import annotations

import math

from simulator.campaign.pace import Pace

_MOST_FAILURES = 50.0
"""Mean failures within one leg, or one start, beyond which it practically never ends."""


def expected(pace: Pace) -> float:
    """Mean time of the whole training [ns]; infinite where it practically never ends."""
    rate = pace.rate
    legs = pace.steps / pace.interval
    if not rate:
        return float(pace.undisturbed(pace.steps))
    again = (pace.restart + pace.restore) * rate
    if max(again, (pace.leg + pace.write) * rate) > _MOST_FAILURES:
        return math.inf
    noticed = math.fsum(hazard.rate * hazard.detection for hazard in pace.hazards) / rate
    down = noticed + math.expm1(again) * (1 / rate + noticed)
    return legs * (1 / rate + down) * math.expm1(rate * pace.leg) * math.exp(rate * pace.write)


def best_interval(pace: Pace) -> int:
    """The interval of the shortest mean time, from 1 to all steps.

    The time falls up to the optimum and rises behind it.
    """
    low, high = 1, pace.steps
    while high - low > 2:
        third = (high - low) // 3
        left, right = low + third, high - third
        if expected(pace.every(left)) <= expected(pace.every(right)):
            high = right
        else:
            low = left
    return min(range(low, high + 1), key=lambda interval: (expected(pace.every(interval)), interval))
