"""A result as its folder holds it: what charts are drawn from, now or years later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simulator.analysis.result import Result
from simulator.errors import ClustersimError, EnvironmentFailure
from simulator.report.document import result_json
from simulator.report.tables import from_csv
from simulator.report.text import shown

if TYPE_CHECKING:
    import pandas as pd

_MUST_HAVE: Final = {
    "name": str,
    "model": str,
    "accelerator": str,
    "num_gpus": int,
    "step_time_s": float,
    "fits": bool,
    "peak_memory_bytes": int,
    "memory_capacity_bytes": int,
    "memory_by_part": dict,
    "memory_by_stage": list,
    "breakdown": dict,
    "utilization": dict,
    "parallelism": dict,
    "version": str,
}
_MAX_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class SavedResult:
    """One result, read from its folder or taken from memory.

    Attributes:
        values: What result.json says.
        activities: Table of `Result.activities`.
        operators: Table of `Result.operators`.
        utilization: Table of `Result.utilization_timeline`.
        memory: Table of `Result.memory_timeline`.
    """

    values: Mapping[str, Any]
    activities: pd.DataFrame
    operators: pd.DataFrame
    utilization: pd.DataFrame
    memory: pd.DataFrame


def as_saved(result: Result | SavedResult) -> SavedResult:
    """A result in the form in which its folder holds it, without writing anything."""
    if isinstance(result, SavedResult):
        return result
    return SavedResult(
        json.loads(result_json(result)),
        result.activities,
        result.operators,
        result.utilization_timeline,
        result.memory_timeline,
    )


def load_result_folder(folder: Path) -> SavedResult:
    """Read a folder that `write_result_folder` wrote.

    Raises:
        ClustersimError: There is no such folder, it holds no result, or the result is damaged.
        EnvironmentFailure: The folder may not be read.
    """
    if not folder.is_dir():
        raise ClustersimError(f"{shown(folder, 1000)}: no such result folder")
    text = _read(folder, "result.json")
    try:
        values = json.loads(text)
    except ValueError as problem:
        raise ClustersimError(f"{shown(folder / 'result.json', 1000)}: damaged: {shown(problem)}") from None
    for key, kind in _MUST_HAVE.items():
        if not isinstance(values, dict) or not isinstance(values.get(key), kind):
            raise ClustersimError(
                f"{shown(folder / 'result.json', 1000)}: not a result of clustersim: no {key}"
            )
    names = ("activities.csv", "operators.csv", "utilization.csv", "memory.csv")
    return SavedResult(values, *(_table(folder, name) for name in names))


def _table(folder: Path, name: str) -> pd.DataFrame:
    data = _read(folder, name)
    try:
        return from_csv(name, data)
    except (ValueError, TypeError) as problem:
        raise ClustersimError(f"{shown(folder / name, 1000)}: damaged: {shown(problem)}") from None


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        if not path.is_file():
            many = "; it is a sweep, whose points `export` and `plot` show"
            hint = many if (folder / "sweep.sqlite").is_file() else ""
            raise ClustersimError(f"{shown(folder, 1000)}: not a result folder: it has no {name}{hint}")
        if path.stat().st_size > _MAX_BYTES:
            raise ClustersimError(f"{shown(path, 1000)}: larger than any file that clustersim writes")
        return path.read_bytes()
    except OSError as problem:
        raise EnvironmentFailure(f"{shown(path, 1000)}: {problem.strerror or problem}") from None
