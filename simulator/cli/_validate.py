"""`validate`: tables of how far predictions are from measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from simulator.cli._output import print_table, say, write_json
from simulator.cli._progress import progress
from simulator.errors import EXIT_DONE

if TYPE_CHECKING:
    from simulator.validation import MetricScore, Score, Validation

_MOST_REASONS: Final = 10


def run_validation(
    measurements: Path,
    *,
    out: Path | None,
    as_json: bool,
    only: str | None,
    sample: int | None,
    workers: int,
    quiet: bool,
    force: bool,
) -> int:
    """Predict a file of measurements and print the errors, or the same as JSON.

    Raises:
        ClustersimError: Whatever is wrong with the file or the arguments.
    """
    from simulator.validation import validate

    with progress(quiet) as report:
        validation = validate(
            measurements,
            out=out,
            only=only,
            sample_rows=sample,
            workers=workers,
            force=force,
            progress=report,
        )
    if as_json:
        write_json(validation.as_json())
    elif not quiet:
        _print(validation, out)
    return EXIT_DONE


def _print(validation: Validation, out: Path | None) -> None:
    share = validation.predicted / validation.rows
    predicted = f"{validation.predicted} of {validation.rows} rows predicted ({share:.1%})"
    say(f"{validation.file}: {validation.kind}, {predicted}")
    for score in validation.metrics:
        _print_metric(score)
    _print_reasons(validation.reasons)
    if out is not None:
        say(f"predictions: {out}")


def _print_metric(score: MetricScore) -> None:
    say(f"\n{score.metric.name}: error by {score.metric.group_column}, worst first")
    heads = (score.metric.group_column, "rows", "cover", "MAPE", "median", "p90", "worst", "bias")
    rows = [_cells(group) for group in score.groups]
    measured = sum(group.mape is not None for group in score.groups)
    if measured > 1:
        mean = _percent(score.mean_over_groups)
        rows.append((f"mean over {measured} groups", "", "", mean, "", "", "", ""))
    rows.append(_cells(score.total))
    print_table(heads, rows, numeric=True)
    if score.worst:
        say("")
        unit = score.metric.unit
        worst = [
            (row.id, f"{row.measured:.4g}", f"{row.predicted:.4g}", _percent(row.error, signed=True))
            for row in score.worst
        ]
        print_table(
            (f"furthest off ({score.metric.name})", f"measured [{unit}]", f"predicted [{unit}]", "error"),
            worst,
            numeric=True,
        )


def _cells(score: Score) -> tuple[str, ...]:
    return (
        score.name,
        str(score.rows),
        f"{score.coverage:.0%}",
        _percent(score.mape),
        _percent(score.median),
        _percent(score.p90),
        _percent(score.worst),
        _percent(score.bias, signed=True),
    )


def _print_reasons(reasons: dict[str, int]) -> None:
    if not reasons:
        return
    listed = list(reasons.items())
    rows = [(str(count), reason) for reason, count in listed[:_MOST_REASONS]]
    left = listed[_MOST_REASONS:]
    if left:
        rows.append((str(sum(count for _, count in left)), f"{len(left)} other reasons"))
    say("")
    print_table(("rows", "not predicted because"), rows)


def _percent(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    digits = 1 if abs(value) < 10 else 0
    return f"{value:+.{digits}%}" if signed else f"{value:.{digits}%}"
