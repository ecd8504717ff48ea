"""How far predictions are off on one file of measurements."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from simulator.measurements._ranking import Ranking, summarise_rankings
from simulator.measurements._score import MetricScore, Score


@dataclass(frozen=True, slots=True)
class Validation:
    """How far clustersim is off on one file.

    Attributes:
        file: Path as the user gave it.
        kind: Kind of the file.
        rows: Rows that were chosen.
        predicted: Rows of them with a prediction.
        metrics: A score for each metric that any chosen row measured.
        reasons: Why rows are unsupported -> how many, the most frequent first.
        rankings: Jobs that were measured with several plans, those with most first.
    """

    file: str
    kind: str
    rows: int
    predicted: int
    metrics: tuple[MetricScore, ...]
    reasons: dict[str, int]
    rankings: tuple[Ranking, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same as plain mappings; errors are fractions, None where nothing was predicted."""
        together = summarise_rankings(self.rankings)
        return {
            "file": self.file,
            "kind": self.kind,
            "rows": self.rows,
            "predicted": self.predicted,
            "coverage": self.predicted / self.rows,
            "metrics": [_metric_json(score) for score in self.metrics],
            "reasons": self.reasons,
            "rankings": [asdict(each) for each in self.rankings],
            "ranking": None if together is None else asdict(together),
        }


def _metric_json(score: MetricScore) -> dict[str, Any]:
    return {
        "metric": score.metric.name,
        "unit": score.metric.unit,
        "total": _score_json(score.total),
        "mean_over_groups": score.mean_over_groups,
        "groups": [_score_json(group) for group in score.groups],
        "worst_rows": [
            {
                "id": row.id,
                "group": row.group,
                "measured": row.measured,
                "predicted": row.predicted,
                "error": row.error,
            }
            for row in score.worst
        ],
    }


def _score_json(score: Score) -> dict[str, Any]:
    return {
        "name": score.name,
        "rows": score.rows,
        "predicted": score.predicted,
        "coverage": score.coverage,
        "mape": score.mape,
        "median": score.median,
        "p90": score.p90,
        "worst": score.worst,
        "bias": score.bias,
    }
