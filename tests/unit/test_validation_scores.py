"""Scores, samples, predictions files: checked by hand on a kind of file made for it."""

from __future__ import annotations

import csv
import json
import math
import statistics
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from simulator.errors import ClustersimError, EnvironmentFailure, Problem, UnsupportedError
from simulator.measurements import Metric, Row, Scorer, quantile
from simulator.specs import Calibration
from simulator.validation import MeasurementKind, validate
from simulator.validation import _kind as registry
from simulator.validation._choose import sample, shares

LENGTH = Metric("length", "m", "predicted_m", "sort")


class Rods(MeasurementKind):
    """Predicts what the `guess` says; `refuse` and `break` stand for refusals and bugs."""

    name = "rods"
    required = ("id", "sort", "guess")
    measured = ("measured_m",)
    predicted_columns = ("predicted_m",)
    metrics = (LENGTH,)

    def check(self, row: Row) -> Iterable[Problem]:
        return ()

    def measurement(self, cells: Mapping[str, str], metric: Metric) -> float | None:
        return float(cells["measured_m"])

    def predict(self, cells: Mapping[str, str], calibration: Calibration) -> dict[str, float]:
        guess = cells["guess"]
        if guess == "refuse":
            raise UnsupportedError(("rod",), "too\nlong")
        if guess == "break":
            raise ZeroDivisionError("a bug")
        if guess == "die":
            import os

            os._exit(9)
        return {"predicted_m": float(guess)}


@pytest.fixture(autouse=True)
def rods(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(registry._KINDS, Rods.name, Rods())
    yield


def write(folder: Path, *rows: str) -> Path:
    path = folder / "rods.csv"
    path.write_text("\n".join(["id,sort,guess,measured_m", *rows, ""]))
    return path


SEVEN = (
    "a,iron,11,10",
    "b,iron,8,10",
    "c,iron,refuse,10",
    "d,wood,10,10",
    "e,wood,15,10",
    "f,glass,refuse,1",
    "g,wood,5,10",
)


def test_scores_are_those_of_a_calculation_by_hand(tmp_path: Path) -> None:
    found = validate(write(tmp_path, *SEVEN))
    assert (found.rows, found.predicted, found.reasons) == (7, 5, {"rod: too long": 2})
    (score,) = found.metrics
    assert [group.name for group in score.groups] == ["glass", "wood", "iron"]
    glass, wood, iron = score.groups
    assert (glass.rows, glass.predicted, glass.coverage, glass.mape) == (1, 0, 0.0, None)
    assert (wood.mape, wood.median, wood.worst) == pytest.approx((1 / 3, 0.5, 0.5))
    assert wood.bias == pytest.approx(0.0, abs=1e-12)
    assert (iron.rows, iron.predicted) == (3, 2)
    assert (iron.mape, iron.median, iron.bias) == pytest.approx((0.15, 0.15, -0.05))
    assert iron.p90 == pytest.approx(0.1 + 0.9 * 0.1)
    assert score.total.coverage == pytest.approx(5 / 7)
    assert score.total.mape == pytest.approx((0.1 + 0.2 + 0.0 + 0.5 + 0.5) / 5)
    assert score.mean_over_groups == pytest.approx((1 / 3 + 0.15) / 2)
    assert [row.id for row in score.worst] == ["e", "g", "b", "a", "d"]


def test_json_holds_the_same_and_no_nan(tmp_path: Path) -> None:
    found = validate(write(tmp_path, *SEVEN))
    read = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert read["coverage"] == pytest.approx(5 / 7)
    (metric,) = read["metrics"]
    assert metric["mean_over_groups"] == found.metrics[0].mean_over_groups
    assert [group["name"] for group in metric["groups"]] == ["glass", "wood", "iron"]
    assert metric["worst_rows"][0] == {
        "id": "e",
        "group": "wood",
        "measured": 10,
        "predicted": 15,
        "error": 0.5,
    }


def test_quantiles_are_those_of_the_standard_library() -> None:
    values = sorted((0.3, 0.1, 2.0, 0.7, 0.5, 0.11))
    deciles = statistics.quantiles(values, n=10, method="inclusive")
    assert quantile(values, 0.9) == pytest.approx(deciles[8])
    assert quantile(values, 0.5) == pytest.approx(statistics.median(values))
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_only_the_ten_worst_rows_are_kept() -> None:
    scorer = Scorer(LENGTH)
    for number in range(100):
        scorer.add(str(number), "x", 100.0, 100.0 + (number * 37) % 100)
    worst = scorer.result().worst
    assert [round(row.predicted) for row in worst] == list(range(199, 189, -1))


def test_predictions_stand_in_the_order_of_the_rows(tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    validate(write(tmp_path, *SEVEN), out=out)
    with out.open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["id", "status", "reason", "predicted_m"]
    assert [row[0] for row in rows[1:]] == list("abcdefg")
    assert rows[1] == ["a", "ok", "", "11"]
    assert rows[3] == ["c", "unsupported", "rod: too long", ""]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "rods.csv"]


def test_workers_change_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, *(f"r{n},s{n % 3},{n + 1},10" for n in range(20)))
    alone, together = tmp_path / "1.csv", tmp_path / "2.csv"
    first = validate(path, out=alone)
    second = validate(path, out=together, workers=2)
    assert first == second
    assert alone.read_bytes() == together.read_bytes()


def test_a_worker_that_dies_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    path = write(tmp_path, "a,s,1,1", "b,s,die,1", "c,s,1,1")
    with pytest.raises(EnvironmentFailure, match="a worker process died"):
        validate(path, out=tmp_path / "p.csv", workers=2)
    assert [each.name for each in tmp_path.iterdir()] == ["rods.csv"]


def test_a_bug_names_its_row_and_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "a,s,1,1", "b,s,break,1")
    with pytest.raises(ZeroDivisionError) as caught:
        validate(path, out=tmp_path / "p.csv")
    assert "'b'" in caught.value.__notes__[0]
    assert [each.name for each in tmp_path.iterdir()] == ["rods.csv"]


@pytest.mark.parametrize("guess", ["nan", "inf", "0", "-1"])
def test_a_prediction_that_is_no_positive_number_is_a_bug(tmp_path: Path, guess: str) -> None:
    with pytest.raises(ArithmeticError, match="predicted_m"):
        validate(write(tmp_path, f"a,s,{guess},1"))


def test_only_chooses_by_id_or_group(tmp_path: Path) -> None:
    path = write(tmp_path, *SEVEN)
    assert validate(path, only="^wood$").rows == 3
    assert validate(path, only="^[ab]$").rows == 2
    assert validate(path, only="a|iron").rows == 4  # glass holds an a
    with pytest.raises(ClustersimError, match="no row is chosen"):
        validate(path, only="steel")
    with pytest.raises(ClustersimError, match="not a regular expression"):
        validate(path, only="(")


def test_samples_are_the_same_every_time_and_take_from_all_groups(tmp_path: Path) -> None:
    rows = [f"r{n},{'many' if n % 10 else 'few'},1,1" for n in range(100)]
    path = write(tmp_path, *rows)
    outs = [tmp_path / f"{n}.csv" for n in range(2)]
    for out in outs:
        assert validate(path, out=out, sample_rows=20).rows == 20
    assert outs[0].read_bytes() == outs[1].read_bytes()
    chosen = [line.split(",")[0] for line in outs[0].read_text().splitlines()[1:]]
    assert chosen == sorted(chosen, key=lambda name: int(name[1:]))
    assert 1 <= sum(int(name[1:]) % 10 == 0 for name in chosen) <= 3
    assert validate(path, sample_rows=1000).rows == 100


@pytest.mark.parametrize("total", [0, 1, 2, 3, 4, 7, 29, 111, 112, 500])
def test_shares_add_up_and_leave_no_group_out(total: int) -> None:
    sizes = {"a": 100, "b": 10, "c": 1, "d": 1}
    given = shares(sizes, total)
    assert sum(given.values()) == min(total, 112)
    assert all(0 <= given[name] <= sizes[name] for name in sizes)
    if total >= len(sizes):
        assert min(given.values()) >= 1


def test_a_larger_sample_holds_the_smaller_ones_rows_of_a_group() -> None:
    groups = {"only": [(f"r{n}", n) for n in range(50)]}
    assert sample(groups, 10) < sample(groups, 20)


def test_predictions_replace_predictions_but_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, *SEVEN)
    out = tmp_path / "p.csv"
    validate(path, out=out, only="a")
    validate(path, out=out)
    assert len(out.read_text().splitlines()) == 8
    letter = tmp_path / "letter.txt"
    letter.write_text("dear")
    for target, said in (
        (letter, "holds no predictions"),
        (path, "these are the measurements"),
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "p.csv", "no such folder"),
    ):
        with pytest.raises(ClustersimError, match=said):
            validate(path, out=target)
    assert letter.read_text() == "dear"
    validate(path, out=letter, force=True)
    assert letter.read_text().startswith("id,status,reason")


def test_progress_ends_at_one(tmp_path: Path) -> None:
    seen: list[float] = []
    validate(write(tmp_path, *SEVEN), progress=lambda part, what: seen.append(part))
    assert seen == pytest.approx([n / 7 for n in range(1, 8)])


def test_errors_are_not_rounded() -> None:
    scorer = Scorer(LENGTH)
    scorer.add("a", "g", 3.0, 3.0 + 1e-9)
    assert math.isclose(scorer.result().total.worst or 0.0, 1e-9 / 3.0, rel_tol=1e-6)


def test_a_long_file_is_streamed(tmp_path: Path) -> None:
    pad = "x" * 2000
    path = tmp_path / "rods.csv"
    with path.open("w") as stream:
        stream.write("id,sort,guess,measured_m,pad\n")
        stream.writelines(f"r{n},s,1,1,{pad}\n" for n in range(5000))
    tracemalloc.start()
    try:
        assert validate(path, out=tmp_path / "p.csv", sample_rows=4000).rows == 4000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 4
