"""`sweep` and `export`: many points in, a ledger and tables out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.cli._output import RESULTS, complain, overrides_of, print_table, say
from simulator.cli._progress import progress
from simulator.errors import EXIT_DONE, EXIT_POINTS_FAILED

if TYPE_CHECKING:
    from simulator.report import SavedSweep
    from simulator.sweep import Summary, Sweep

_LEDGER = "sweep.sqlite"
"""File of a sweep's folder, known here without loading the room."""

_MOST_REASONS = 5


def run_sweep_file(
    path: Path,
    changes: list[str],
    *,
    out: Path | None,
    workers: int | None,
    cluster: str | None,
    limit: int | None,
    many: bool,
    timeout_s: float,
    dry_run: bool,
    charts: bool,
    quiet: bool,
) -> int:
    """Run what is left of a sweep, print what became of its points, and draw its charts.

    Args:
        path: Sweep file.
        changes: ``key=value`` each, above the axes.
        out: Folder of the sweep; `RESULTS` and the sweep's name if not given.
        workers: Processes; as many as there are cores if not given.
        cluster: Address of a dask scheduler, or ``local``.
        limit: Points at most.
        many: Whether more than 24,000 points are wanted indeed.
        timeout_s: How long a point may take [s].
        dry_run: Only count the points.
        charts: Whether charts are drawn.
        quiet: Print nothing but errors.

    Returns:
        3 if points failed, otherwise 0.

    Raises:
        ClustersimError: Whatever is wrong with the file, the ledger or the machine.
    """
    from simulator.scenario import slug
    from simulator.sweep import load_sweep_file, run_sweep

    sweep = load_sweep_file(path, overrides_of(changes))
    if dry_run:
        _describe(sweep, limit)
        return EXIT_DONE
    folder = out if out is not None else RESULTS / slug(sweep.name)
    with progress(quiet) as report, _what_stays(folder):
        report(0.0, "starting workers; the first time, code is compiled")
        backend = None
        if cluster is not None:
            from simulator.sweep.cluster import on_cluster

            backend = on_cluster(cluster, workers=workers, timeout_s=timeout_s)
        summary = run_sweep(
            sweep,
            folder,
            workers=workers,
            limit=limit,
            many=many,
            timeout_s=timeout_s,
            backend=backend,
            progress=report,
        )
        saved = _saved(folder) if charts or not quiet else None
        if saved is not None and not quiet:
            _tell(sweep, summary, limit, saved)
        if saved is not None and charts:
            report(1.0, "drawing charts")
            drawn, nothing = _draw(saved, folder, {})
    if charts and not quiet:
        say(f"no charts: {nothing}" if nothing else f"charts: {folder / 'charts'}: {', '.join(drawn)}")
    return EXIT_POINTS_FAILED if summary.failed else EXIT_DONE


@contextlib.contextmanager
def _what_stays(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if is_sweep(folder):
            complain(f"{folder / _LEDGER} keeps what had finished; the same command runs the rest")
        raise


def export_sweep(folder: Path, to: Path | None, *, quiet: bool) -> int:
    """Write the points of a sweep as CSV or Parquet."""
    from simulator.sweep import export

    target = (
        to if to is not None else folder / "points.csv" if folder.is_dir() else folder.with_suffix(".csv")
    )
    count = export(folder, target)
    if not quiet:
        say(f"{target}: {count:,} points")
    return EXIT_DONE


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (folder / _LEDGER).exists()


def draw(folder: Path, wanted: dict[str, str]) -> tuple[list[str], str | None]:
    """Draw the charts of a sweep into its folder: those asked for, or those that suit its axes.

    Returns:
        Names of the pictures, and why there are none.

    Raises:
        ClustersimError: What is wanted cannot be drawn from this sweep.
    """
    return _draw(_saved(folder), folder, wanted)


def _draw(sweep: SavedSweep, folder: Path, wanted: dict[str, str]) -> tuple[list[str], str | None]:
    from simulator.report import draw_sweep

    files = draw_sweep(sweep, folder / "charts", wanted)
    return [file.name for file in files if file.suffix == ".png"], sweep.nothing()


def _saved(folder: Path) -> SavedSweep:
    from simulator.report import SavedSweep
    from simulator.sweep import load_table

    table = load_table(folder)
    return SavedSweep.of(table.name, table.about, table.frame)


def _describe(sweep: Sweep, limit: int | None) -> None:
    from simulator.sweep import MANY, planned

    listed = planned(sweep, limit=limit, many=True)
    wrong = sum(point.wrong is not None for point in listed)
    rows = [(key, _values(sweep, key)) for key in sweep.keys]
    print_table(("axis", "values"), rows)
    left_out = f" of {sweep.count:,}: where leaves out the others" if sweep.where and limit is None else ""
    say(_count(len(listed)) + left_out + (f", of which {wrong:,} cannot be simulated" if wrong else ""))
    _tell_repeated(sweep, len(listed), limit)
    if len(listed) > MANY and limit is None:
        say(f"more than {MANY:,}: --yes runs them, --limit N takes the first N")


def _values(sweep: Sweep, key: str) -> str:
    if key in sweep.above:
        return f"1: {sweep.above[key]} (--set)"
    for grid in sweep.grids:
        for group in grid.groups:
            for axis in group:
                if axis.key == key:
                    few = axis.values if len(axis.values) <= 6 else (*axis.values[:3], "...", axis.values[-1])
                    return f"{len(axis.values)}: {', '.join(map(str, few))}"
        for span in grid.spans:
            if span.key == key:
                return f"sampled from {span.at(0.0)} to {span.at(1.0)}"
    return sweep.derive[key].text


def _tell_repeated(sweep: Sweep, count: int, limit: int | None) -> None:
    if limit is None and not sweep.where and count < sweep.count:
        say(f"{sweep.count - count:,} of {sweep.count:,} points stand there twice and run once")


def _tell(sweep: Sweep, summary: Summary, limit: int | None, saved: SavedSweep) -> None:
    from simulator.sweep import code_version

    _tell_repeated(sweep, summary.total, limit)
    counts = ", ".join(f"{count:,} {_status(status, count)}" for status, count in summary.counts.items())
    say(f"{sweep.name}: {_count(summary.total)}: {counts}")
    new = summary.total - summary.reused
    if new:
        rate = f"{summary.rate:,.0f}" if summary.rate >= 10 else f"{summary.rate:.2g}"
        say(f"{new:,} simulated at {rate} a second, {summary.reused:,} found in the ledger")
    else:
        say("nothing to do: all points were in the ledger")
    if summary.others:
        say(
            f"{summary.others:,} points in the ledger were simulated by another clustersim than this one "
            f"({code_version()}), with other code or another catalogue; they stay there, unused"
        )
    say(f"ledger: {summary.folder / _LEDGER}")
    frame = saved.frame
    if best := saved.best():
        say(f"the best: {best}")
    large = frame[frame["status"] == "does_not_fit"]
    if len(large):
        smallest = large.sort_values("peak_memory_bytes", kind="stable").iloc[0]
        say(f"the smallest that does not fit {smallest['reason']}")
    reasons = frame["reason"][frame["status"].isin(("illegal", "failed"))].value_counts()
    if len(reasons):
        print_table(
            ("points", "not simulated because"),
            [(f"{count:,}", str(reason)) for reason, count in reasons.head(_MOST_REASONS).items()],
        )


def _count(points: int) -> str:
    return f"{points:,} point{'s' if points != 1 else ''}"


def _status(status: str, count: int) -> str:
    words = status.replace("_", " ")
    return words if count == 1 else words.replace("does not", "do not")
