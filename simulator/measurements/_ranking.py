"""Whether predictions rank the plans of one job as measurements do, and what the plan picked took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

_MOST_PLANS: Final = 100_000
"""Plans that are kept; of a longer file the jobs that begin later are not ranked."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The plans of one job, by prediction and by measurement; smaller is better.

    Attributes:
        job: What is the same for all of them.
        plans: Different plans that were measured and predicted.
        spearman: Rank correlation of predictions and measurements, ties sharing their mean rank; None where
            all are predicted, or measured, alike.
        regret: How much longer the plan predicted best took than the one measured best, as part of the
            latter; the mean where several are predicted alike.
        picked: The plan predicted best.
        best: The plan measured best.
    """

    job: str
    plans: int
    spearman: float | None
    regret: float
    picked: str
    best: str


@dataclass(slots=True)
class _Plan:
    """Sums over the rows that measured one plan."""

    measured: float = 0.0
    predicted: float = 0.0
    rows: int = 0


@dataclass(slots=True)
class Ranker:
    """Collects plans by job; rows of one plan count as one, by their mean."""

    _jobs: dict[str, dict[str, _Plan]] = field(default_factory=dict)
    _count: int = 0

    def add(self, job: str, plan: str, measured: float, predicted: float) -> None:
        """One row that was measured and predicted."""
        plans = self._jobs.get(job)
        if plans is None:
            if self._count >= _MOST_PLANS:
                return
            plans = self._jobs[job] = {}
        if plan not in plans:
            plans[plan] = _Plan()
            self._count += 1
        found = plans[plan]
        found.measured += measured
        found.predicted += predicted
        found.rows += 1

    def result(self) -> tuple[Ranking, ...]:
        """The jobs with several plans: those with most first, then by name."""
        ranked = [_ranking(job, plans) for job, plans in self._jobs.items() if len(plans) > 1]
        return tuple(sorted(ranked, key=lambda each: (-each.plans, each.job)))


@dataclass(frozen=True, slots=True)
class RankingSummary:
    """All jobs together, each counting the same.

    Attributes:
        jobs: Jobs with several plans.
        plans: Plans of all of them.
        spearman: Mean rank correlation of the jobs that have one.
        regret: Mean regret.
        worst_regret: The largest.
        within: Part of the jobs whose regret is at most 3 %.
    """

    jobs: int
    plans: int
    spearman: float | None
    regret: float
    worst_regret: float
    within: float


CLOSE: Final = 0.03
"""Regret that no measurement tells from none: identical runs repeat within it."""


def summarise_rankings(rankings: Sequence[Ranking]) -> RankingSummary | None:
    """All jobs together; None where there are none."""
    if not rankings:
        return None
    known = [each.spearman for each in rankings if each.spearman is not None]
    regrets = [each.regret for each in rankings]
    return RankingSummary(
        jobs=len(rankings),
        plans=sum(each.plans for each in rankings),
        spearman=sum(known) / len(known) if known else None,
        regret=sum(regrets) / len(regrets),
        worst_regret=max(regrets),
        within=sum(regret <= CLOSE for regret in regrets) / len(regrets),
    )


def _ranking(job: str, plans: dict[str, _Plan]) -> Ranking:
    names = list(plans)
    measured = [plans[name].measured / plans[name].rows for name in names]
    predicted = [plans[name].predicted / plans[name].rows for name in names]
    least = min(predicted)
    picked = [place for place, value in enumerate(predicted) if value == least]
    best = min(measured)
    return Ranking(
        job=job,
        plans=len(names),
        spearman=spearman(measured, predicted),
        regret=sum(measured[place] for place in picked) / len(picked) / best - 1.0,
        picked=names[picked[0]],
        best=names[measured.index(best)],
    )


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation: Pearson's of the ranks, ties sharing their mean rank; None where one does not vary.

    Source: Spearman, The proof and measurement of association between two things, Am. J. Psychol. 15, 1904.
    """
    ranks = [_ranks(values) for values in (first, second)]
    middle = (len(first) + 1) / 2
    apart = [[rank - middle for rank in each] for each in ranks]
    squares = [sum(x * x for x in each) for each in apart]
    if not all(squares):
        return None
    together = sum(x * y for x, y in zip(*apart, strict=True))
    return float(together / (squares[0] * squares[1]) ** 0.5)


def _ranks(values: Sequence[float]) -> list[float]:
    below = [sum(other < value for other in values) for value in values]
    alike = [sum(other == value for other in values) for value in values]
    return [less + (same + 1) / 2 for less, same in zip(below, alike, strict=True)]
