"""How far predictions are from measurements, as a document with a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from simulator.errors import ClustersimError
from simulator.measurements import CLOSE, MetricScore, Ranking, Score, Validation, summarise_rankings
from simulator.report.charts.validation import draw_validation
from simulator.specs import Calibration
from simulator.specs.evidence import Band, Trial

_CHART: Final = Path("images") / "validation.png"
_MOST_REASONS: Final = 12
_MOST_JOBS: Final = 12
_TITLE: Final = "# Predictions against measurements"

_HOW: Final = """\
Every figure here is printed by a command; nothing is chosen. An error is *predicted / measured - 1*. Rows
that cannot be expressed or are not modelled count against coverage, with their reasons below. Groups without
any prediction come first, then the worst.

**How to read it.** *mean* is the mean absolute error; *bias* the mean of the signed ones, above zero where
predictions are too slow. *mean over groups* counts each source once, however many rows it has. What counts
for hardware or jobs that nobody has measured yet are the two columns on the right of the first table: the
error on an accelerator, or from a source, that the fit of the constants had not seen. The percentages behind
it say how far from the prediction eight of ten measurements lay, each group counting the same.
"""

_PROTOCOL: Final = """\
## What was timed

- **Matrix products, attention of inference engines**: repeated from a captured graph. The host's launch time
  is left out; operands of up to 0.6 of the last-level cache are found there, of larger ones what random
  replacement leaves. Weights take turns (vLLM six, TensorRT-LLM up to five); vLLM's were never written, which
  draws less power. In fp8 the library's cast of the 16-bit activations is within the time; attention includes
  the kernel that writes keys and values to the paged cache (TensorRT-LLM: queries too), and is the kernel
  that the engine chooses on the card.
- **Attention in TFLOP/s**: forward and backward alone or together, operands from device memory;
  FlashAttention-2 in the instructions of 2020, on newer cards, too.
- **Rates of kernels**: products alone, operands from device memory; copies between the same buffers again and
  again; in no fit.
- **Collectives**: nccl-tests, out of place; sizes are the full buffer. Tables of V100 and A100 were
  taken with the libraries of their day (2020 to 2022), which took longer to start. Of a network's description
  its technology is read; over Omni-Path a processor core moves the data.
- **Training runs**: whole steps as their authors published them, from the columns of the file alone. None is
  in the fits of kernels and collectives. Two constants of whole steps are fitted to them, and again without
  the accelerator or source that is left out. Of peak memory, *allocated* and *active* are tensors, *reserved*
  what the allocator holds, *nvidia-smi* everything on a device. Figures are GiB; where a note says how its
  figure was made of MiB (decimal gigabytes), measured and predicted are both made so.
"""


def write_validation_document(
    files: Sequence[Validation], calibration: Calibration, path: Path, *, force: bool = False
) -> None:
    """Write the document, and its chart in a folder `images` beside it.

    Args:
        files: One a file of measurements.
        calibration: What predicted, for its cross-validation.
        path: The document; one that this wrote is replaced, anything else only with `force`.
        force: Replace whatever is there.

    Raises:
        ClustersimError: Something else is there.
    """
    if (
        path.exists()
        and not force
        and not path.read_text(encoding="utf-8", errors="replace").startswith(_TITLE)
    ):
        raise ClustersimError(f"{path}: exists and holds something else; --force replaces it")
    chart = path.parent / _CHART
    chart.parent.mkdir(parents=True, exist_ok=True)
    chart.write_bytes(draw_validation(files))
    path.write_text("\n".join(_document(files, calibration)) + "\n", encoding="utf-8")


def _document(files: Sequence[Validation], calibration: Calibration) -> Iterator[str]:
    yield _TITLE
    yield ""
    yield "Written by `clustersim validate DIR --report VALIDATION.md`. The measurements are public, their"
    yield "sources are named by the groups and at the end, and they are not part of this repository."
    yield ""
    yield _HOW
    yield f"![Predicted against measured]({_CHART.as_posix()})"
    yield ""
    yield "## All files"
    yield ""
    yield from _overview(files, calibration)
    yield _PROTOCOL
    for validation in files:
        yield from _file(validation)
    yield from _sources(calibration)


def _overview(files: Sequence[Validation], calibration: Calibration) -> Iterator[str]:
    heads = ("measurements", "rows", "coverage", "mean", "mean over groups", "median", "p90", "bias")
    yield _row((*heads, "GPU left out", "source left out"))
    yield "|---" * 10 + "|"
    evidence = calibration.evidence
    for validation in files:
        for score in validation.metrics:
            name = f"{validation.kind}, {score.metric.name}"
            total = score.total
            trials = () if evidence is None else evidence.trials
            # Two files may hold the same kind; their rows tell them apart.
            same = (
                each for each in trials if (each.measurements, each.fitted.rows) == (name, total.predicted)
            )
            trial = next(same, None)
            cells = (
                name,
                f"{total.rows:,}",
                f"{total.coverage:.1%}",
                _part(total.mape),
                _part(score.mean_over_groups),
                _part(total.median),
                _part(total.p90),
                _part(total.bias, signed=True),
                *_left_out(trial),
            )
            yield _row(cells)
    yield ""


def _left_out(trial: Trial | None) -> tuple[str, str]:
    if trial is None:
        return "-", "-"
    return _band(trial.accelerator_left_out), _band(trial.source_left_out)


def _band(band: Band | None) -> str:
    return "-" if band is None else f"{band.mean:.1%} ({band.low:+.0%} to {band.high:+.0%})"


def _file(validation: Validation) -> Iterator[str]:
    yield f"## {validation.kind}"
    yield ""
    share = validation.predicted / validation.rows
    yield f"{validation.predicted:,} of {validation.rows:,} rows predicted ({share:.1%})."
    yield ""
    for score in validation.metrics:
        yield from _metric(score)
    yield from _rankings(validation.rankings)
    if validation.reasons:
        yield "| rows | not predicted because |"
        yield "|---|---|"
        listed = list(validation.reasons.items())
        for reason, count in listed[:_MOST_REASONS]:
            yield _row((f"{count:,}", reason))
        if listed[_MOST_REASONS:]:
            rest = sum(count for _, count in listed[_MOST_REASONS:])
            yield _row((f"{rest:,}", f"{len(listed) - _MOST_REASONS} other reasons"))
        yield ""


def _metric(score: MetricScore) -> Iterator[str]:
    yield f"### {score.metric.name}"
    yield ""
    yield f"| {score.metric.group_column} | rows | coverage | mean | median | p90 | worst | bias |"
    yield "|---|---|---|---|---|---|---|---|"
    for group in (*score.groups, score.total):
        yield _row(_score(group))
    yield ""
    if score.worst:
        unit = score.metric.unit
        yield f"Furthest off (measured -> predicted, {unit}): " + "; ".join(
            f"{row.id} {row.measured:.4g} -> {row.predicted:.4g} ({row.error:+.0%})"
            for row in score.worst[:5]
        )
        yield ""


def _rankings(rankings: Sequence[Ranking]) -> Iterator[str]:
    together = summarise_rankings(rankings)
    if together is None:
        return
    yield "### plans of one job, ranked"
    yield ""
    yield f"{together.jobs} jobs were measured with several plans, {together.plans} in all. Mean Spearman"
    yield f"correlation {_number(together.spearman)}. In the mean the plan predicted best took"
    yield f"{together.regret:.1%} longer than the one measured best, at most {together.worst_regret:.1%};"
    yield f"in {together.within:.0%} of the jobs no more than {CLOSE:.0%}. Those with most plans, and those"
    yield "picked worst:"
    yield ""
    yield "| job | plans | Spearman | regret | picked | best |"
    yield "|---|---|---|---|---|---|"
    worst = sorted(rankings, key=lambda each: -each.regret)[:_MOST_JOBS]
    for each in dict.fromkeys((*rankings[:_MOST_JOBS], *worst)):
        cells = (
            each.job,
            str(each.plans),
            _number(each.spearman),
            f"{each.regret:.1%}",
            each.picked,
            each.best,
        )
        yield _row(cells)
    yield ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _score(score: Score) -> tuple[str, ...]:
    return (
        score.name,
        f"{score.rows:,}",
        f"{score.coverage:.0%}",
        _part(score.mape),
        _part(score.median),
        _part(score.p90),
        _part(score.worst),
        _part(score.bias, signed=True),
    )


def _sources(calibration: Calibration) -> Iterator[str]:
    yield "## Sources of the constants"
    yield ""
    for text in dict.fromkeys(each.fitted_to for each in calibration.constants.values()):
        names = [name for name, each in calibration.constants.items() if each.fitted_to == text]
        yield f"- {text}: {', '.join(f'`{name}`' for name in names)}"
    yield ""


def _part(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.1%}" if signed else f"{value:.1%}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
