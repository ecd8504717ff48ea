"""Charts of several results: of a sweep beside its ledger, of a sensitivity, of a comparison."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.errors import EnvironmentFailure
from simulator.report.charts.comparison import draw_comparison
from simulator.report.charts.style import house_style, pictures
from simulator.report.charts.sweeps import DEFAULT, sweep_charts
from simulator.report.charts.tornado import TornadoRow, draw_tornado
from simulator.report.compare import Comparison
from simulator.report.sweeps import SavedSweep
from simulator.report.tables import to_csv

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def draw_sweep(sweep: SavedSweep, folder: Path, wanted: Mapping[str, str] | None = None) -> list[Path]:
    """Draw the charts of a sweep into a folder, each with its data as CSV, each file replaced in one step.

    Args:
        sweep: The points.
        folder: Where the pictures go; made if missing.
        wanted: Any of ``x``, ``y``, ``by`` and ``kind``; the charts that suit the axes if nothing.

    Returns:
        The files, in the order in which they were drawn.

    Raises:
        ClustersimError: What is wanted cannot be drawn from this sweep.
        EnvironmentFailure: Disk full, no permission, or the like.
    """
    written = write_files(sweep_charts(sweep, wanted or {}), folder) if wanted or not sweep.nothing() else []
    if not wanted:
        _take_away(folder, written)
    return written


def _take_away(folder: Path, written: Sequence[Path]) -> None:
    """Charts that suited the axes of before and would now be taken for those of today."""
    with contextlib.suppress(OSError):
        for name in DEFAULT:
            for file in (folder / f"{name}.{kind}" for kind in ("png", "svg", "csv")):
                if file not in written:
                    file.unlink(missing_ok=True)


def draw_sensitivity_chart(rows: Sequence[TornadoRow], subject: str, folder: Path) -> list[Path]:
    """Draw the tornado chart as sensitivity.png, .svg and .csv.

    Raises:
        EnvironmentFailure: Disk full, no permission, or the like.
    """
    return write_files(_files("sensitivity", lambda: draw_tornado(rows, subject)), folder)


def draw_comparison_chart(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw results side by side as comparison.png, .svg and .csv.

    Raises:
        EnvironmentFailure: Disk full, no permission, or the like.
    """
    return write_files(_files("comparison", lambda: draw_comparison(comparison)), folder)


def _files(name: str, draw: Callable[[], tuple[Figure, pd.DataFrame]]) -> Iterator[tuple[str, bytes]]:
    with house_style():
        figure, data = draw()
        yield from pictures(figure, name)
        yield f"{name}.csv", to_csv(data)


def write_files(files: Iterable[tuple[str, bytes]], folder: Path) -> list[Path]:
    """Write files into a folder, each in one step.

    Raises:
        EnvironmentFailure: Disk full, no permission, or the like.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files:
            draft = folder / f".{name}.{secrets.token_hex(4)}.tmp"
            try:
                draft.write_bytes(data)
                draft.replace(folder / name)
            finally:
                draft.unlink(missing_ok=True)
            written.append(folder / name)
    except OSError as problem:
        raise EnvironmentFailure(f"{folder}: not drawn: {problem.strerror or problem}") from None
    return written
