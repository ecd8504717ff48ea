"""The ledger as a table: a row a point, a column an axis or a figure."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from simulator.errors import ClustersimError, EnvironmentFailure
from simulator.sweep.keys import key_facts
from simulator.sweep.ledger import FILE, Ledger
from simulator.sweep.values import may_change

if TYPE_CHECKING:
    import pandas as pd

WIDE: Final = {
    "breakdown": "breakdown",
    "bottlenecks": "limited_by",
    "utilization": "utilization",
    "memory_by_part": "memory",
    "parallelism": "plan",
}
"""Mappings of a result -> the first part of their columns' names."""

_ADDED_UP: Final = (WIDE["breakdown"], WIDE["bottlenecks"], WIDE["memory_by_part"])
"""Of them, those whose columns are parts of a whole."""


@dataclass(frozen=True, slots=True)
class SweepTable:
    """A sweep's points as a table.

    Attributes:
        name: Name of the sweep.
        about: What the ledger says of the sweep: ``axes`` (key, dimension, derived), ``model``, ``plot``,
            ``version``, ``base``.
        frame: A row a point in the order of the axes: the axes, ``status``, ``reason``, then the figures.
    """

    name: str
    about: dict[str, Any]
    frame: pd.DataFrame


def load_table(path: str | os.PathLike[str]) -> SweepTable:
    """The points of a sweep that are done, whether or not it is finished.

    Args:
        path: Folder of the sweep, or its ledger.

    Raises:
        ClustersimError: No ledger there, or a foreign one.
        EnvironmentFailure: It is damaged or cannot be read.
    """
    import pandas as pd

    file = Path(path)
    file = file / FILE if file.is_dir() else file
    with Ledger(file, write=False) as ledger:
        about = ledger.about()
        keys = [axis["key"] for axis in about.get("axes", [])]
        base = {axis["key"]: axis.get("base") for axis in about.get("axes", [])}
        columns: dict[str, list[Any]] = {name: [] for name in ("point", *keys, "status", "reason")}
        count = 0
        for row in ledger.rows():
            for name, value in _row(base, *row):
                column = columns.setdefault(name, [])
                # A figure that earlier points did not have is missing there.
                column += [None] * (count - len(column))
                column.append(value)
            count += 1
    for column in columns.values():
        column += [None] * (count - len(column))
    _nothing_of(columns)
    frame = pd.DataFrame({name: pd.Series(column) for name, column in columns.items()})
    return SweepTable(about.get("name", file.parent.name), about, frame)


def _nothing_of(columns: dict[str, list[Any]]) -> None:
    """A part that only other points have takes nothing of this one, where it has a result."""
    steps = columns.get("step_time_s")
    if steps is None:
        return
    for name, column in columns.items():
        if name.partition(".")[0] in _ADDED_UP and "." in name:
            column[:] = [0 if v is None and s is not None else v for v, s in zip(column, steps, strict=True)]


def load_sweep(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A sweep's points as a DataFrame: axes and figures in SI units, text where a value has no number.

    Args:
        path: Folder of the sweep, or its ledger.

    Raises:
        ClustersimError: No ledger there, or a foreign one.
        EnvironmentFailure: It is damaged or cannot be read.
    """
    return load_table(path).frame


def export(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> int:
    """Writes a sweep's points as CSV or Parquet; the same points give the same bytes.

    Args:
        path: Folder of the sweep, or its ledger.
        to: File to write; its ending says which.

    Returns:
        Points written.

    Raises:
        ClustersimError: No ledger there, an ending that is neither, or Parquet without pyarrow.
        EnvironmentFailure: It cannot be written.
    """
    target = Path(to)
    if target.suffix.lower() not in (".csv", ".parquet"):
        raise ClustersimError(f"{target}: expected a name that ends in .csv or .parquet")
    frame = load_table(path).frame
    draft = target.with_name(f".{target.name}.tmp")
    try:
        if target.suffix.lower() == ".csv":
            _guarded(frame).to_csv(draft, index=False, lineterminator="\n")
        else:
            _write_parquet(frame, draft)
        draft.replace(target)
    except OSError as error:
        raise EnvironmentFailure(f"{target}: not written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):  # where nothing can be written, nothing can be taken away
            draft.unlink(missing_ok=True)
    return len(frame)


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ClustersimError('Parquet needs pyarrow: install "clustersim[parquet]", or export CSV') from None
    frame.to_parquet(path, index=False)


def _guarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Text that a spreadsheet would take for a formula gets an apostrophe."""
    frame = frame.copy()
    for name in frame.columns:
        if frame[name].dtype == object:
            frame[name] = [f"'{v}" if isinstance(v, str) and v[:1] in "=+-@" else v for v in frame[name]]
    return frame


def _row(
    base: dict[str, Any], number: int, status: str, reason: str, overrides: str, result: str
) -> Iterator[tuple[str, Any]]:
    """Names and values of a point's cells; an axis of another grid has the base's value."""
    yield "point", number
    swept = json.loads(overrides)
    for key, value in swept.items():
        yield key, _figure(key, value) if isinstance(value, str) else _cell(value)
    for key, value in base.items():
        if key not in swept and not any(may_change(other, key) for other in swept):
            yield key, value
    yield "status", status
    yield "reason", reason
    for name, value in (json.loads(result) if result else {}).items():
        if name in base:
            continue  # an axis such as `model`, whose value the point has already
        if isinstance(value, dict):
            head = WIDE.get(name, name)
            for inner, figure in value.items():
                yield f"{head}.{inner}", figure
        elif isinstance(value, list):
            yield name, json.dumps(value)
        else:
            yield name, value


@lru_cache(maxsize=100_000)
def _figure(key: str, text: str) -> float | int | str:
    """A quantity in SI units, or the text that it is."""
    number = key_facts(key).number(text)
    return text if number is None else number


def _cell(value: Any) -> Any:
    if isinstance(value, dict) and set(value) & {"name", "base"}:
        rest = [f"{key}: {value[key]}" for key in value if key not in ("name", "base")]
        return ", ".join([str(value.get("name") or value.get("base")), *rest])
    return json.dumps(value) if isinstance(value, (dict, list)) else value
