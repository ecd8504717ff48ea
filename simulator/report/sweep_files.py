"""The charts of a sweep, written beside its ledger."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from simulator.errors import EnvironmentFailure
from simulator.report.charts.sweeps import sweep_charts
from simulator.report.sweeps import SavedSweep


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
    return write_files(sweep_charts(sweep, wanted or {}), folder)


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
