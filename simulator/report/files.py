"""A result's folder: written aside, then moved to its place in one step, or not at all."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from simulator.analysis.result import Result
from simulator.errors import ClustersimError, EnvironmentFailure
from simulator.report.charts import rendered
from simulator.report.document import result_json
from simulator.report.saved import SavedResult, as_saved
from simulator.report.tables import MAX_ROWS, chosen, measured_window, to_csv
from simulator.report.text import shown
from simulator.report.timeline import MAX_SLICES, timeline_gz

_OURS: Final = frozenset(
    {
        "result.json",
        "scenario.resolved.yaml",
        "activities.csv",
        "operators.csv",
        "utilization.csv",
        "memory.csv",
        "timeline.json.gz",
        "charts",
    }
)
"""All that a result folder may hold; a folder with anything else in it is never replaced."""


def check_destination(folder: Path, force: bool) -> None:
    """Refuse a destination that must not be written to; meant to be asked before anything is simulated.

    Args:
        folder: Where a result is to go.
        force: Whether an earlier result there may be replaced.

    Raises:
        ClustersimError: Something is there: a file, a result (without `force`), or a folder that holds
            other files.
        EnvironmentFailure: The place cannot be looked at.
    """
    where = shown(folder, 1000)
    try:
        if folder.is_symlink() and not folder.exists():
            raise ClustersimError(f"{where}: is a broken link")
        if not folder.exists():
            return
        if not folder.is_dir():
            raise ClustersimError(f"{where}: is a file, not a folder")
        held = sorted(path.name for path in folder.iterdir())
    except OSError as problem:
        raise EnvironmentFailure(f"{where}: {problem.strerror or problem}") from None
    foreign = [name for name in held if name not in _OURS]
    if foreign:
        stranger = shown(foreign[0])
        raise ClustersimError(
            f"{where}: holds {stranger}, which is no file of a result; choose another folder"
        )
    if held and not force:
        raise ClustersimError(f"{where}: holds a result; --force replaces it, --out names another folder")


def write_result_folder(
    result: Result, scenario_yaml: str, folder: Path, *, force: bool = False, charts: bool = True
) -> Path:
    """Write everything that a run found out into one folder.

    The files are written into a folder beside it, which is then renamed; whatever fails leaves neither
    a new folder nor a changed old one behind.

    Args:
        result: What was found.
        scenario_yaml: The resolved scenario.
        folder: Destination; folders above it are made where they are missing.
        force: Whether an earlier result there is replaced.
        charts: Whether charts are drawn.

    Returns:
        The folder.

    Raises:
        ClustersimError: As in `check_destination`.
        EnvironmentFailure: Disk full, no permission, or the like.
    """
    check_destination(folder, force)
    target = folder.resolve()
    try:
        with _aside(target) as draft:
            for name, data in _contents(result, scenario_yaml, charts):
                path = draft / name
                path.parent.mkdir(exist_ok=True)
                _write(path, data)
            _put_in_place(draft, target)
    except OSError as problem:
        raise EnvironmentFailure(
            f"{shown(folder, 1000)}: not written: {problem.strerror or problem}"
        ) from None
    return folder


def draw_charts(result: Result | SavedResult, folder: Path) -> list[Path]:
    """Draw all charts of a result into a folder, each file replaced in one step.

    Args:
        result: A result, or what `load_result_folder` read.
        folder: Where the pictures go (``charts`` of the result folder, say); made if missing.

    Returns:
        The files, in the order in which they were drawn.

    Raises:
        EnvironmentFailure: Disk full, no permission, or the like.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in rendered(as_saved(result)):
            draft = folder / f".{name}.{secrets.token_hex(4)}.tmp"
            try:
                _write(draft, data)
                draft.replace(folder / name)
            finally:
                draft.unlink(missing_ok=True)
            written.append(folder / name)
    except OSError as problem:
        raise EnvironmentFailure(f"{shown(folder, 1000)}: not drawn: {problem.strerror or problem}") from None
    return written


def _contents(result: Result, scenario_yaml: str, charts: bool) -> Iterator[tuple[str, bytes]]:
    saved = as_saved(result)
    begin, end = measured_window(saved.utilization)
    notes = {}
    for name, most in (("activities.csv", MAX_ROWS), ("timeline.json.gz", MAX_SLICES)):
        if len(saved.activities) > most:
            notes[name] = f"{most} of {len(saved.activities)} activities, those of the measured steps first"
    yield "result.json", result_json(result, notes).encode("ascii")
    yield "scenario.resolved.yaml", scenario_yaml.encode("utf-8", "backslashreplace")
    yield "activities.csv", to_csv(chosen(saved.activities, begin, end, MAX_ROWS))
    yield "operators.csv", to_csv(saved.operators)
    yield "utilization.csv", to_csv(saved.utilization)
    yield "memory.csv", to_csv(saved.memory)
    yield "timeline.json.gz", timeline_gz(saved, result.link_timeline)
    if charts:
        for name, data in rendered(saved):
            yield f"charts/{name}", data


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """An empty folder beside the target; it and the parents made for it are gone if the body fails."""
    made = [path for path in target.parents if not path.exists()]
    draft = target.parent / f".clustersim-{secrets.token_hex(6)}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _put_in_place(draft: Path, target: Path) -> None:
    """Rename the draft to the target; an old target steps aside first and comes back if that fails."""
    if not target.exists():
        draft.rename(target)
        return
    old = draft.with_suffix(".old")
    target.rename(old)
    try:
        draft.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
