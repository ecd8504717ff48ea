"""All files of measurements in a folder, one after another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.errors import ClustersimError, ScenarioError
from simulator.measurements import Table, Validation
from simulator.validation._kind import recognise
from simulator.validation._validate import Progress, validate
from simulator.validation._workers import Constants


@dataclass(frozen=True, slots=True)
class FolderValidation:
    """How far clustersim is off on every file of a folder.

    Attributes:
        folder: Path as the user gave it.
        files: One a file of measurements, by name.
        passed_over: Files that hold none of the known measurements.
    """

    folder: str
    files: tuple[Validation, ...]
    passed_over: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as plain mappings."""
        return {
            "folder": self.folder,
            "files": [each.as_json() for each in self.files],
            "passed_over": list(self.passed_over),
        }


def measurement_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The files of a folder that hold known measurements, and the names of the CSV files that do not.

    Raises:
        ScenarioError: A CSV file that cannot be read, or is empty.
        ClustersimError: No file of measurements.
    """
    known: list[Path] = []
    others: list[str] = []
    for path in sorted(folder.glob("*.csv")):
        table = Table(path)
        try:
            recognise(table)
        except ScenarioError:
            others.append(path.name)
        else:
            known.append(path)
    if not known:
        said = f"; {', '.join(others)} hold something else" if others else ""
        raise ClustersimError(f"{folder}: no file of measurements{said}")
    return known, others


def validate_folder(
    folder: Path,
    *,
    out: Path | None = None,
    only: str | None = None,
    sample_rows: int | None = None,
    workers: int = 1,
    force: bool = False,
    progress: Progress | None = None,
    constants: Constants | None = None,
) -> FolderValidation:
    """Predict and score every file of measurements in a folder.

    Args:
        folder: Where the files are.
        out: Folder for the predictions, made if it is not there; each file has the name of its measurements.
        only: As in `validate`; files without such a row are passed over.
        sample_rows: As in `validate`, of each file.
        workers: As in `validate`.
        force: As in `validate`.
        progress: As in `validate`.
        constants: As in `validate`.

    Raises:
        ScenarioError: Mistakes in a file.
        ClustersimError: No file of measurements, or a bad destination.
    """
    known, others = measurement_files(folder)
    if out is not None:
        if out.exists() and not out.is_dir():
            raise ClustersimError(f"{out}: is no folder; predictions of a folder go into a folder")
        out.mkdir(exist_ok=True)
    scored: list[Validation] = []
    for number, path in enumerate(known):

        def tell(part: float, what: str, number: int = number, name: str = path.name) -> None:
            if progress is not None:
                progress((number + part) / len(known), f"{name}: {what}")

        try:
            scored.append(
                validate(
                    path,
                    out=None if out is None else out / path.name,
                    only=only,
                    sample_rows=sample_rows,
                    workers=workers,
                    force=force,
                    progress=tell,
                    constants=constants,
                )
            )
        except ClustersimError as error:
            if only is None or isinstance(error, ScenarioError):
                raise
            others.append(path.name)
    if not scored:
        raise ClustersimError(f'{folder}: no id or group contains "{only}"')
    return FolderValidation(str(folder), tuple(scored), tuple(others))
