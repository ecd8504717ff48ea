"""Where the keys of a scenario stand, and what was found wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import Any, Final, Literal, NamedTuple, TypeVar

from simulator.documents import Document, KeyPath, Position
from simulator.errors import Problem, ScenarioError

Path = tuple[str | int, ...]
_T = TypeVar("_T")
_MOST_TOLD: Final = 100


@dataclass(slots=True, eq=False)
class Origin:
    """Finds the place of a key: an override, a model's own config file, or the scenario file.

    Attributes:
        label: What stands in for a file where there is none.
        document: The scenario file, if there is one.
        config: The ``config:`` file of the model, if there is one.
        overrides: What was set from outside: path -> label.
        short_cluster: Whether the cluster's only node group is written without `node_groups`.
    """

    label: str
    document: Document | None = None
    config: Document | None = None
    overrides: Mapping[Path, str] = field(default_factory=dict)
    short_cluster: bool = False

    def written(self, path: Sequence[str | int]) -> Path:
        """A path of the resolved scenario as the file writes it."""
        path = tuple(path)
        if self.short_cluster and path[:2] == ("cluster", "node_groups"):
            return ("cluster", *path[3:])
        return path

    def position(self, path: KeyPath, of: Literal["key", "value"] = "value") -> Position:
        """Where a key or its value stands; the nearest thing around it if it is not written down."""
        path = self.written(path)
        for length in range(len(path), 0, -1):
            label = self.overrides.get(path[:length])
            if label is not None:
                return Position(label, 0, 0)
        written = self.document is not None and self.document.has(path)
        if self.config is not None and not written and path[:1] == ("model",) and self.config.has(path[1:]):
            return self.config.position(path[1:], of)
        return Position(self.label, 0, 0) if self.document is None else self.document.position(path, of)


class _Made(NamedTuple):
    """What was made from the very objects `sources`, and the warnings about it."""

    sources: tuple[object, ...]
    result: Any
    warnings: list[str]


Kept = dict[Path, _Made]
"""Parts of a scenario that were made before, by where they stand."""


@dataclass(slots=True)
class Findings:
    """Gathers mistakes and warnings, so that all of them are told at once.

    Attributes:
        origin: Where keys stand.
        problems: Mistakes.
        warnings: Warnings.
        kept: Parts of earlier scenarios that may be taken as they are; None to make everything anew.
    """

    origin: Origin
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    kept: Kept | None = None

    def once(self, path: Path, sources: tuple[object, ...], make: Callable[[], _T]) -> _T:
        """What `make` makes of `sources`, or what it made of the same objects for an earlier scenario.

        Where a mistake is found nothing is kept, so that it is told each time.
        """
        known = None if self.kept is None else self.kept.get(path)
        if known is not None and all(map(is_, known.sources, sources)):
            self.warnings += known.warnings
            found: _T = known.result
            return found
        problems, warnings = len(self.problems), len(self.warnings)
        made = make()
        if self.kept is not None and len(self.problems) == problems:
            self.kept[path] = _Made(sources, made, self.warnings[warnings:])
        return made

    def add(self, path: KeyPath, message: str, of: Literal["key", "value"] = "value") -> None:
        """Note a mistake at a path."""
        path = self.origin.written(path)
        name = ".".join(_step(step) for step in path)
        position = self.origin.position(path, of)
        self.problems.append(Problem(*position, f"{name}: {message}" if name else message))

    def warn(self, path: KeyPath, message: str) -> None:
        """Note what the user should know though it is no mistake."""
        self.warnings.append(f"{'.'.join(_step(step) for step in self.origin.written(path))}: {message}")

    def stop_if_wrong(self, kind: type[ScenarioError] = ScenarioError) -> None:
        """Raise what was found so far, in the order of the file, as an error of this kind.

        Raises:
            ScenarioError: There is at least one mistake.
        """
        if not self.problems:
            return
        told = sorted(dict.fromkeys(self.problems))
        more = len(told) - _MOST_TOLD
        if more > 0:
            told[_MOST_TOLD:] = [Problem(self.origin.label, 0, 0, f"and {more:,} more mistakes")]
        raise kind(told)


def _step(step: str | int) -> str:
    text = str(step)
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:60])
    return shown if len(text) <= 60 else shown + "..."
