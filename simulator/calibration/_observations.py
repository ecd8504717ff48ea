"""Reads a folder of benchmarks as observations: what was timed, and how long it took."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from simulator.errors import ClustersimError, Problem, ScenarioError, UnsupportedError
from simulator.measurements import Benchmark, KernelWork, Row, Table, Work, benchmark_of, number

_MOST_PROBLEMS: Final = 20
_CONTRADICTION: Final = 3.0
"""Ratio of two times of the same work by the same source that no repetition explains."""
_FASTER_THAN_PEAK: Final = 1.25
"""How much faster than the data sheet's peak a measurement may be: boost clocks, rounding."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One row of a benchmark.

    Attributes:
        benchmark: Kind of the file.
        work: What was timed.
        seconds: How long it took [s].
        size: Arithmetic [FLOP] or message [B].
        labels: What must be left out of a fit for this row not to be in it: accelerator and source.
        citation: The row's source in full.
        file: File as the user gave it.
        line: Line of the row.
    """

    benchmark: Benchmark
    work: Work
    seconds: float
    size: float
    labels: tuple[str, str]
    citation: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Measurements:
    """All observations of a folder.

    Attributes:
        observations: In the order of the files' names and rows.
        files: Files that were read -> rows used.
        unused: Reason -> rows that are not modelled.
    """

    observations: tuple[Observation, ...]
    files: dict[str, int] = field(default_factory=dict)
    unused: dict[str, int] = field(default_factory=dict)


def read_measurements(folder: Path) -> Measurements:
    """Every benchmark among the CSV files of a folder; other files are passed over.

    Raises:
        ScenarioError: Mistakes in a benchmark, or measurements that contradict one another or the data
            sheet, with file and line.
        ClustersimError: No such folder, or no benchmark in it.
    """
    if not folder.is_dir():
        raise ClustersimError(f"{folder}: no such folder of measurements")
    files: dict[str, int] = {}
    unused: Counter[str] = Counter()
    observations: list[Observation] = []
    for path in sorted(folder.glob("*.csv")):
        table = Table(path)
        benchmark = benchmark_of(table)
        if benchmark is None or not benchmark.fitted:
            continue
        read = list(_observations(table, benchmark, unused))
        files[str(path)] = len(read)
        observations += read
    if not observations:
        wanted = "matrix products, attention or collectives"
        raise ClustersimError(f"{folder}: no measurements of {wanted} among its CSV files")
    problems = [*_contradictions(observations), *_too_fast(observations)]
    if problems:
        raise ScenarioError(problems[:_MOST_PROBLEMS])
    return Measurements(tuple(observations), files, dict(unused))


def _observations(table: Table, benchmark: Benchmark, unused: Counter[str]) -> Iterator[Observation]:
    problems: list[Problem] = []
    for row in table.rows():
        problems += [*benchmark.problems(row), *_measured(benchmark, row)]
        if problems:
            if len(problems) >= _MOST_PROBLEMS:
                break
            continue
        try:
            work = benchmark.work(row.cells)
        except UnsupportedError as error:
            unused[error.message] += 1
            continue
        yield Observation(
            benchmark=benchmark,
            work=work,
            seconds=benchmark.seconds(row.cells),
            size=benchmark.size(row.cells),
            labels=benchmark.labels(row.cells, work),
            citation=row.cells.get("source", ""),
            file=row.file,
            line=row.line,
        )
    if problems:
        raise ScenarioError(problems)


def _measured(benchmark: Benchmark, row: Row) -> Iterator[Problem]:
    text = row.cells.get(benchmark.measured)
    if text is None:
        yield row.problem(benchmark.measured, "an empty cell; a measurement is wanted")
        return
    try:
        value = number(text)
    except ValueError as error:
        yield row.problem(benchmark.measured, str(error))
        return
    if value <= 0:
        yield row.problem(benchmark.measured, f"{text} is not a measurement; it must be more than 0")


def _contradictions(observations: Iterable[Observation]) -> Iterator[Problem]:
    """Rows of one source that timed the same and do not agree within a factor."""
    same: dict[tuple[str, str, str], list[Observation]] = defaultdict(list)
    for each in observations:
        same[each.benchmark.name, each.citation, repr(each.work)].append(each)
    for group in same.values():
        fastest, slowest = min(group, key=_time), max(group, key=_time)
        if slowest.seconds > _CONTRADICTION * fastest.seconds:
            ratio = slowest.seconds / fastest.seconds
            message = (
                f"contradicts {fastest.file}:{fastest.line}: the same work took {ratio:.1f} times as long"
            )
            yield Problem(slowest.file, slowest.line, 1, message)


def _too_fast(observations: Sequence[Observation]) -> Iterator[Problem]:
    """Kernels that would need more than the data sheet's peak."""
    for each in observations:
        if isinstance(each.work, KernelWork):
            main = each.work.kernels[0]
            peaks: dict[str, float] = {str(k): v for k, v in each.work.accelerator.peak_flops.items()}
            peak = peaks.get(main.precision, math.inf)
            if main.flops > _FASTER_THAN_PEAK * peak * each.seconds:
                rate = main.flops / each.seconds / 1e12
                name = each.work.accelerator.name
                message = f"{rate:.0f} TFLOP/s contradict the {peak / 1e12:.0f} of {name}'s data sheet"
                yield Problem(each.file, each.line, 1, message)


def _time(observation: Observation) -> float:
    return observation.seconds
