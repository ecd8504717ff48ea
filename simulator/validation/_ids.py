"""Finds ids that stand in a file twice, at eight bytes a row."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from hashlib import blake2b

from simulator.errors import Problem
from simulator.measurements import Table


class Ids:
    """Digests of the ids of one file; the file is read once more where two are equal."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._digests = array("Q")

    def add(self, row_id: str) -> None:
        """One more id."""
        self._digests.append(_digest(row_id))

    def repeated(self) -> Iterator[Problem]:
        """Every id that stood already on an earlier line."""
        import numpy as np

        ordered = np.sort(np.frombuffer(self._digests, dtype=np.uint64)) if self._digests else np.zeros(0)
        twice = {int(each) for each in ordered[1:][ordered[1:] == ordered[:-1]]}
        if not twice:
            return
        lines: dict[str, int] = {}
        for row in self._table.rows():
            row_id = row.cells.get("id")
            if row_id is None or _digest(row_id) not in twice:
                continue
            earlier = lines.setdefault(row_id, row.line)
            if earlier != row.line:
                yield row.problem("id", f'"{row_id[:60]}" stands already on line {earlier}')


def _digest(row_id: str) -> int:
    return int.from_bytes(blake2b(row_id.encode(), digest_size=8).digest(), "little")
