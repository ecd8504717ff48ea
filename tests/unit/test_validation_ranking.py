"""Plans of one job: do predictions rank them as measurements do, and what does the plan picked cost?"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from simulator.cli import main
from simulator.measurements import Ranker, spearman, summarise_rankings
from simulator.specs import Calibration
from simulator.validation import TrainingRuns, validate


def ranker(*plans: tuple[str, str, float, float]) -> Ranker:
    made = Ranker()
    for job, plan, measured, predicted in plans:
        made.add(job, plan, measured, predicted)
    return made


def test_rank_correlation_is_that_of_the_ranks() -> None:
    """1 - 6 sum d^2 / (n (n^2 - 1)) without ties; Pearson's of mean ranks with them."""
    assert spearman([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 1000.0]) == pytest.approx(1.0)
    assert spearman([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]) == pytest.approx(-1.0)
    assert spearman([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0]) == pytest.approx(1 - 6 * 4 / (4 * 15))
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert spearman([1.0, 2.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert spearman([1.0, 1.0], [1.0, 2.0]) is None


def test_regret_is_what_the_plan_picked_takes_over_the_best() -> None:
    found = ranker(
        ("job", "a", 10.0, 7.0), ("job", "b", 9.0, 8.0), ("job", "c", 20.0, 30.0), ("other", "a", 1.0, 1.0)
    ).result()
    assert len(found) == 1, "one plan is nothing to rank"
    assert (found[0].plans, found[0].picked, found[0].best) == (3, "a", "b")
    assert found[0].regret == pytest.approx(10 / 9 - 1)
    assert found[0].spearman == pytest.approx(0.5)


def test_rows_of_one_plan_count_as_one() -> None:
    found = ranker(("j", "a", 1.0, 2.0), ("j", "a", 3.0, 2.0), ("j", "b", 2.5, 3.0)).result()
    assert found[0].plans == 2
    assert (found[0].regret, found[0].best) == (0.0, "a")


def test_plans_predicted_alike_are_picked_alike() -> None:
    found = ranker(("j", "a", 1.0, 5.0), ("j", "b", 2.0, 5.0)).result()
    assert found[0].regret == pytest.approx(0.5)
    assert found[0].spearman is None


def test_jobs_count_alike() -> None:
    jobs = ranker(
        ("one", "a", 1.0, 1.0), ("one", "b", 2.0, 2.0), ("two", "a", 1.0, 2.0), ("two", "b", 1.02, 1.0)
    )
    together = summarise_rankings(jobs.result())
    assert together is not None
    assert (together.jobs, together.plans, together.within) == (2, 4, 1.0)
    assert (together.spearman, together.regret, together.worst_regret) == pytest.approx((0.0, 0.01, 0.02))
    assert summarise_rankings(()) is None


ROW = {
    "id": "1",
    "group": "g",
    "num_hidden_layers": "4",
    "hidden_size": "1024",
    "num_attention_heads": "16",
    "vocab_size": "50304",
    "sequence_length": "1024",
    "micro_batch_size": "1",
    "global_batch_size": "16",
    "gpu": "A100-SXM-80GB",
    "num_gpus": "2",
    "tensor_parallel": "1",
    "pipeline_parallel": "1",
}

PLANS: tuple[dict[str, str], ...] = ({}, {"tensor_parallel": "2"}, {"pipeline_parallel": "2"})


def test_rows_that_differ_in_the_plan_alone_are_one_job() -> None:
    kind = TrainingRuns()
    job, plan = kind.plan(ROW) or ("", "")
    split, other = kind.plan(ROW | {"tensor_parallel": "2"}) or ("", "")
    assert job == split
    assert plan != other
    for change in ({"num_gpus": "4"}, {"hidden_size": "2048"}, {"framework": "x"}, {"precision": "fp16"}):
        assert (kind.plan(ROW | change) or ("", ""))[0] != job
    # The batch counts, however it is given.
    bare = {key: text for key, text in ROW.items() if key != "global_batch_size"}
    assert (kind.plan(bare | {"micro_batch_size": "8", "data_parallel": "2"}) or ("", ""))[0] == job


def test_a_file_is_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured times in the order of the predictions, and against it."""
    path = tmp_path / "runs.csv"

    def ranked(*seconds: float) -> tuple[float | None, float]:
        rows = [
            ROW | plan | {"id": str(number), "measured_step_time_s": str(time)}
            for number, (plan, time) in enumerate(zip(PLANS, seconds, strict=True))
        ]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        found = validate(path)
        assert len(found.rankings) == 1
        return found.rankings[0].spearman, found.rankings[0].regret

    kind, calibration = TrainingRuns(), Calibration.load()
    predicted = [kind.predict(ROW | plan, calibration)["predicted_step_time_s"] for plan in PLANS]
    assert ranked(*predicted) == pytest.approx((1.0, 0.0))
    turned = [1.0 / time for time in predicted]
    assert ranked(*turned) == pytest.approx((-1.0, max(turned) / min(turned) - 1))
    assert main(["validate", str(path)]) == 0
    assert "plans of one job, ranked: 1 jobs, 3 plans" in capsys.readouterr().out
