"""`validate`: tables of how far predictions are from measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simulator.cli._output import print_table, say, write_json
from simulator.cli._progress import progress
from simulator.errors import EXIT_DONE, ClustersimError

if TYPE_CHECKING:
    from simulator.measurements import MetricScore, Ranking, Score, Validation
    from simulator.specs.evidence import CalibrationEvidence
    from simulator.validation import Constants

_MOST_REASONS: Final = 10


def run_validation(
    measurements: Path,
    *,
    out: Path | None,
    as_json: bool,
    only: str | None,
    sample: int | None,
    workers: int,
    calibration: str,
    document: Path | None,
    evidence: Path | None,
    quiet: bool,
    force: bool,
) -> int:
    """Predict a file or a folder of measurements and print the errors, or the same as JSON.

    Raises:
        ClustersimError: Whatever is wrong with the files or the arguments.
    """
    from simulator.validation import Constants

    constants = Constants(calibration)
    constants.load()
    if evidence is not None:
        _write_evidence(measurements, calibration, evidence, workers=workers, quiet=quiet, force=force)
        if out is None and document is None and not as_json:
            return EXIT_DONE
    files, told = _predicted(
        measurements,
        quiet,
        out=out,
        only=only,
        sample_rows=sample,
        workers=workers,
        force=force,
        constants=constants,
    )
    if document is not None:
        _write_document(files, constants, document, force=force)
    if as_json:
        write_json(told)
    elif not quiet:
        _print_files(files, out, document)
    return EXIT_DONE


def _predicted(
    measurements: Path, quiet: bool, **named: Any
) -> tuple[tuple[Validation, ...], dict[str, Any]]:
    """How far off predictions are, file by file, and the same as plain mappings."""
    from simulator.validation import validate, validate_folder

    with progress(quiet) as report:
        if measurements.is_dir():
            whole = validate_folder(measurements, progress=report, **named)
            return whole.files, whole.as_json()
        one = validate(measurements, progress=report, **named)
        return (one,), one.as_json()


def _print_files(files: Sequence[Validation], out: Path | None, document: Path | None) -> None:
    for place, validation in enumerate(files):
        if place:
            say("")
        _print(validation)
    if out is not None:
        say(f"predictions: {out}")
    if document is not None:
        say(f"report: {document}")


def _write_document(
    files: Sequence[Validation], constants: Constants, document: Path, *, force: bool
) -> None:
    from simulator.report import write_validation_document

    write_validation_document(files, constants.load(), document, force=force)


def _write_evidence(
    measurements: Path, calibration: str, path: Path, *, workers: int, quiet: bool, force: bool
) -> None:
    from simulator.documents import write_yaml
    from simulator.validation import gather_evidence

    if not measurements.is_dir():
        raise ClustersimError(f"{measurements}: --evidence wants a folder of measurements")
    if path.exists() and not force:
        raise ClustersimError(f"{path}: exists; --force replaces it")
    command = f"clustersim validate DIR --calibration {Path(calibration).stem} --evidence {path.name}"
    with progress(quiet) as report:
        found = gather_evidence(measurements, calibration, command=command, workers=workers, progress=report)
    path.write_text(write_yaml(found.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    if not quiet:
        _print_evidence(found)
        say(f"evidence: {path}")


def _print_evidence(found: CalibrationEvidence) -> None:
    rows = []
    for trial in found.trials:
        bands = (trial.fitted, trial.accelerator_left_out, trial.source_left_out)
        told = (
            "-" if band is None else f"{band.mean:.1%} ({band.low:+.0%} {band.high:+.0%})" for band in bands
        )
        rows.append((trial.measurements, f"{trial.fitted.rows:,}", *told))
    heads = ("measurements", "rows", "fitted", "accelerator left out", "source left out")
    print_table(heads, rows, numeric=True)


def _print(validation: Validation) -> None:
    share = validation.predicted / validation.rows
    predicted = f"{validation.predicted} of {validation.rows} rows predicted ({share:.1%})"
    say(f"{validation.file}: {validation.kind}, {predicted}")
    for score in validation.metrics:
        _print_metric(score)
    _print_rankings(validation.rankings)
    _print_reasons(validation.reasons)


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


def _print_rankings(rankings: Sequence[Ranking]) -> None:
    """Jobs with several plans together, and where another plan should have been picked."""
    from simulator.measurements import CLOSE, summarise_rankings

    together = summarise_rankings(rankings)
    if together is None:
        return
    say(f"\nplans of one job, ranked: {together.jobs} jobs, {together.plans} plans")
    say(f"mean Spearman correlation {_number(together.spearman)}")
    said = f"{together.regret:.1%} longer than the best, {together.worst_regret:.1%} at most"
    say(f"the plan picked took {said}, no more than {CLOSE:.0%} in {together.within:.0%} of the jobs")
    worst = sorted((each for each in rankings if each.regret > CLOSE), key=lambda each: -each.regret)
    rows = [
        (f"{each.regret:.1%}", _number(each.spearman), str(each.plans), each.job)
        for each in worst[:_MOST_REASONS]
    ]
    if rows:
        say("")
        print_table(("regret", "Spearman", "plans", "job"), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


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
