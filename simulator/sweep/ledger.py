"""The ledger: one SQLite file a sweep, a row a point, one writer, nothing lost."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from simulator.errors import ClustersimError, EnvironmentFailure
from simulator.sweep.enumeration import Point
from simulator.sweep.point import FAILED, Outcome

FILE: Final = "sweep.sqlite"
APPLICATION: Final = 0x434C5357
"""SQLite's application_id of a ledger ("CLSW")."""
FORMAT: Final = 1
"""SQLite's user_version: the format of the tables."""

_TABLES: Final = """
CREATE TABLE sweep (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE points (
    key TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    overrides TEXT NOT NULL,
    result TEXT NOT NULL,
    version TEXT NOT NULL,
    wall_s REAL NOT NULL,
    player TEXT NOT NULL
);
CREATE INDEX points_short ON points (key, status, version);
CREATE TABLE current (number INTEGER PRIMARY KEY, key TEXT NOT NULL);
"""

_FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class Ledger:
    """An open ledger; closing it leaves one file.

    The table `points` keeps a row a point; `current` says which of them the sweep consists of now, and in
    which order. Points of earlier axes, of another base or another clustersim stay in `points` and are no
    part of what is read.
    """

    def __init__(self, path: Path, *, write: bool) -> None:
        self.path, self.writes = path, write
        with self._told():
            new = write and (not path.exists() or path.stat().st_size == 0)
            if not new:
                _check_file(path, write)
            mode = "rwc" if new else "rw" if write else "ro"
            uri = f"{path.absolute().as_uri()}?mode={mode}"
            self.database = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0)
            try:
                if write and self._blank():
                    self._create()
                self._check()
                if write:
                    self.database.execute("PRAGMA journal_mode = WAL")
                    # What is committed survives the process; only the system's own end may cost the last.
                    self.database.execute("PRAGMA synchronous = NORMAL")
            except BaseException:
                self.database.close()
                raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; the write-ahead log is merged and gone where the disk and other readers allow it."""
        with contextlib.suppress(sqlite3.Error):
            if self.writes:
                # Who only reads cannot take a log away again, so it must not begin one.
                self.database.execute("PRAGMA journal_mode = DELETE")
        with contextlib.suppress(sqlite3.Error):
            self.database.close()

    def begin(self, points: Sequence[Point], about: Mapping[str, Any]) -> set[str]:
        """Make these points the current ones.

        Args:
            points: In order.
            about: What the readers of the ledger are told about the sweep.

        Returns:
            Keys of the points that are done already; failed ones are to be tried again.
        """
        keys = [point.key for point in points]
        with self._told(), self._transaction():
            known = dict(self.database.execute("SELECT key, status FROM points"))
            if [key for (key,) in self.database.execute("SELECT key FROM current ORDER BY number")] != keys:
                self.database.execute("DELETE FROM current")
                self.database.executemany("INSERT INTO current VALUES (?, ?)", enumerate(keys))
            self.database.execute("DELETE FROM sweep")
            self.database.executemany(
                "INSERT INTO sweep VALUES (?, ?)", ((key, json.dumps(value)) for key, value in about.items())
            )
        return {key for key in keys if known.get(key, FAILED) != FAILED}

    def add(self, rows: Iterable[tuple[int, Point, Outcome]], version: str) -> None:
        """Write points that have finished, all or none of them.

        Raises:
            EnvironmentFailure: The disk is full, or the like; what was committed before stays.
        """
        with self._told(), self._transaction():
            self.database.executemany(
                "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        point.key,
                        outcome.status,
                        outcome.reason,
                        json.dumps(point.overrides, separators=(",", ":")),
                        outcome.result,
                        version,
                        outcome.wall_s,
                        outcome.player,
                    )
                    for _, point, outcome in rows
                ),
            )

    def about(self) -> dict[str, Any]:
        """What `begin` was told about the sweep."""
        with self._told():
            return {key: json.loads(value) for key, value in self.database.execute("SELECT * FROM sweep")}

    def rows(self) -> Iterator[tuple[int, str, str, str, str]]:
        """The current points that are done, in order: number, status, reason, overrides, result (JSON)."""
        with self._told():
            yield from self.database.execute(
                "SELECT number, status, reason, overrides, result FROM current JOIN points USING (key) "
                "ORDER BY number"
            )

    def counts(self) -> dict[str, int]:
        """Current points by status."""
        with self._told():
            return dict(
                self.database.execute(
                    "SELECT status, count(*) FROM current JOIN points USING (key) GROUP BY status"
                )
            )

    def others(self, version: str) -> int:
        """Points that another version of clustersim left behind."""
        with self._told():
            query = "SELECT count(*) FROM points WHERE version <> ?"
            return int(self.database.execute(query, (version,)).fetchone()[0])

    def _blank(self) -> bool:
        """Whether nothing is in it: it is new, or its process was killed before the first commit."""
        tables = self.database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return not tables and not self.database.execute("PRAGMA application_id").fetchone()[0]

    def _create(self) -> None:
        with self._transaction():
            for statement in _TABLES.split(";"):
                self.database.execute(statement)
            self.database.execute(f"PRAGMA application_id = {APPLICATION}")
            self.database.execute(f"PRAGMA user_version = {FORMAT}")

    def _check(self) -> None:
        application = self.database.execute("PRAGMA application_id").fetchone()[0]
        if application != APPLICATION:
            raise ClustersimError(
                f"{self.path}: is a database, but no ledger of a sweep; it is left as it is"
            )
        written = self.database.execute("PRAGMA user_version").fetchone()[0]
        if written > FORMAT:
            raise ClustersimError(
                f"{self.path}: written by a newer clustersim (format {written}, this one knows {FORMAT}); "
                "it is left as it is"
            )
        found = self.database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise _damaged(self.path, found)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self.database.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors in words, with the file's name."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise _in_words(self.path, error) from None
        except OSError as error:
            raise EnvironmentFailure(f"{self.path}: {error.strerror or error}") from None


def _check_file(path: Path, write: bool) -> None:
    if not path.exists():
        raise ClustersimError(f"{path}: no such file; is its folder the result of a sweep?")
    if not path.is_file():
        raise ClustersimError(f"{path}: is no file")
    with path.open("rb") as stream:
        head = stream.read(16)
    if head != b"SQLite format 3\0":
        raise ClustersimError(f"{path}: is no ledger of a sweep (no SQLite file); it is left as it is")
    if write and not path.stat().st_mode & 0o222:
        raise EnvironmentFailure(f"{path}: is read-only")


def _in_words(path: Path, error: sqlite3.DatabaseError) -> ClustersimError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _FULL:
        return EnvironmentFailure(f"{path}: {error}; what was committed before stays, and the sweep resumes")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(error))
    if code == sqlite3.SQLITE_ERROR:
        return _damaged(path, str(error))
    return EnvironmentFailure(f"{path}: {error}")


def _damaged(path: Path, what: str) -> EnvironmentFailure:
    return EnvironmentFailure(f"{path}: is damaged ({' '.join(what.split())[:120]}); it is left as it is")
