"""The tables of a result as CSV, and back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS: Final = 200_000
"""Rows of activities.csv; a spreadsheet or an editor does not open many more."""

NUMBERS: Final[dict[str, dict[str, str]]] = {
    "activities.csv": {
        **dict.fromkeys(("id", "stage", "step", "micro_batch", "layer"), "int"),
        **dict.fromkeys(("ready_s", "start_s", "end_s"), "float"),
    },
    "operators.csv": dict.fromkeys(
        ("count", "time_s", "flops", "bytes", "peak_flops", "memory_bandwidth"), "float"
    ),
    "utilization.csv": {"time_s": "float", "utilization": "float"},
    "memory.csv": {"time_s": "float", "stage": "int", "bytes": "float"},
}
"""Columns of each table that hold numbers; all others hold text."""

TEXTS: Final[dict[str, tuple[str, ...]]] = {
    "activities.csv": ("name", "cause", "phase", "lane", "owner", "limited_by", "awaited"),
    "operators.csv": ("name", "cause", "phase", "limited_by"),
    "utilization.csv": ("kind",),
    "memory.csv": (),
}

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_NEUTRALISED: Final = re.compile(r"'+[=+\-@\t\r]")


def to_csv(frame: pd.DataFrame) -> bytes:
    """A table as CSV: UTF-8, Unix line ends, floats that read back as exactly the same.

    Text that a spreadsheet would take for a formula (it begins with ``=``, ``+``, ``-`` or ``@``) gets
    an apostrophe in front, which `from_csv` takes away again.
    """
    import csv

    safe = frame.copy(deep=False)
    quoting: Literal[0, 2] = csv.QUOTE_MINIMAL
    for column in safe.columns:
        if safe[column].dtype.kind in "iufb":
            continue
        texts = safe[column].astype(object)
        known = [text for text in texts.unique() if isinstance(text, str)]
        changed = {text: f"'{text}" for text in known if _FORMULA.match(text)}
        if changed:
            safe[column] = texts.map(lambda text, changed=changed: changed.get(text, text))
        if any("\r" in text for text in known):
            # The csv module leaves a lone carriage return bare, and readers then see the end of a line.
            quoting = csv.QUOTE_NONNUMERIC
    text: str = safe.to_csv(index=False, lineterminator="\n", quoting=quoting)
    return text.encode("utf-8", "backslashreplace")


def from_csv(name: str, data: bytes) -> pd.DataFrame:
    """The table that `to_csv` wrote.

    Raises:
        ValueError: Not such a table: a column is missing or holds something else.
    """
    import io

    import pandas as pd

    # Every cell as text first: float() reads back exactly what was written, whatever the version of pandas.
    frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, encoding="utf-8")
    missing = [column for column in (*NUMBERS[name], *TEXTS[name]) if column not in frame.columns]
    if missing:
        raise ValueError(f"column {missing[0]} is missing")
    for column, kind in NUMBERS[name].items():
        cells = frame[column].tolist()
        if kind == "int" and "" not in cells:
            frame[column] = pd.Series([int(float(cell)) for cell in cells], dtype="int64")
        else:
            frame[column] = pd.Series([float(cell or "nan") for cell in cells], dtype="float64")
    for column in TEXTS[name]:
        frame[column] = frame[column].map(_restored)
    return frame


def chosen(activities: pd.DataFrame, begin_s: float, end_s: float, most: int) -> pd.DataFrame:
    """At most `most` activities, in their order: those that run between two times come first."""
    if len(activities) <= most:
        return activities
    outside = ~((activities["end_s"] > begin_s) & (activities["start_s"] < end_s)).to_numpy()
    order = outside.argsort(kind="stable")[:most]
    order.sort()
    return activities.iloc[order]


def measured_window(utilization: pd.DataFrame) -> tuple[float, float]:
    """First and last moment of the measured steps, as the table of utilisation spans them."""
    if not len(utilization):
        return 0.0, float("inf")
    times = utilization["time_s"].unique()
    width = float(times[1] - times[0]) if len(times) > 1 else float("inf")
    return float(times[0]), float(times[-1]) + width


def _restored(text: str) -> str:
    return text[1:] if _NEUTRALISED.match(text) else text
