"""Documents: plain data together with the place where every key and value stands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from simulator.documents._compose import compose
from simulator.documents._includes import IncludeReader
from simulator.documents._node import Node, Position
from simulator.documents._remembered import composed
from simulator.documents._scalars import ScalarError, is_bare, read_plain
from simulator.documents._source import MAX_BYTES, read_text
from simulator.errors import Problem, ScenarioError

KeyPath = Sequence[str | int]


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """What a file says, and where it says it.

    Attributes:
        label: The file as the user named it.
        data: Nested dicts, lists and scalars; None for an empty document. Not to be changed: aliases
            share their values.
        root: The tree that `data` was made from.
        files: Every file that was read, this one first, then what it includes.
    """

    label: str
    data: Any
    root: Node | None
    files: tuple[str, ...] = ()

    def position(self, path: KeyPath, of: Literal["key", "value"] = "value") -> Position:
        """Where the value (or its key) at a path stands; the nearest thing around it if it is not there."""
        if self.root is None:
            return Position(self.label, 0, 0)
        key, node, found = self.root.find(path)
        if key is not None and (of == "key" or found < len(path)):
            return key
        return node.position

    def has(self, path: KeyPath) -> bool:
        """Whether the document itself holds this path."""
        return self.root is not None and self.root.find(path)[2] == len(path)

    def problem(self, path: KeyPath, message: str, of: Literal["key", "value"] = "value") -> Problem:
        """A mistake at a path, its dotted name before the message."""
        name = ".".join(map(str, path))
        return Problem(*self.position(path, of), f"{name}: {message}" if name else message)


def load_document(
    path: str | os.PathLike[str],
    *,
    what: str = "document",
    root: Literal["mapping", "list", "any"] = "mapping",
    includes: bool = False,
    limit: int = MAX_BYTES,
    label: str | None = None,
) -> Document:
    """Read one YAML (or JSON) file.

    Args:
        path: The file.
        what: What it is to the user, for messages.
        root: What must stand at the top level.
        includes: Whether a top-level ``include:`` is followed (within the file's folder).
        limit: Largest size [B].
        label: How messages call the file; as `path` writes it if not given.

    Raises:
        ScenarioError: Whatever keeps the file from being read, with line and column.
        EnvironmentFailure: The system would not let it be read.
    """
    shown = os.fspath(path) if label is None else label
    node = composed(read_text(path, shown, limit), shown)
    files: tuple[str, ...] = (shown,)
    if includes and node is not None and node.kind == "mapping" and "include" in node.entries:
        reader = IncludeReader(Path(path), limit)
        node = reader.resolve(node, Path(path), shown)
        files += tuple(reader.read)
    return _finished(node, shown, what, root, files)


def parse_document(
    text: str, label: str, *, what: str = "document", root: Literal["mapping", "list", "any"] = "mapping"
) -> Document:
    """Read a document from text, as `load_document` reads one from a file."""
    return _finished(composed(text, label), label, what, root, ())


def parse_value(text: str, label: str) -> Any:
    """One value as it would stand in a document: ``8``, ``6 TB/s``, ``{base: H100}``, ``[1, 2]``.

    Raises:
        ScenarioError: Not a YAML value.
    """
    try:
        if is_bare(text):
            return read_plain(text)  # as the parser would, a hundred times faster
        node = compose(text, label)
    except ScalarError as error:
        raise ScenarioError(Problem(label, 0, 0, str(error))) from None
    except ScenarioError as error:
        # Positions inside an argument help nobody.
        raise ScenarioError(Problem(label, 0, 0, problem.message) for problem in error.problems) from None
    return None if node is None else node.plain()


def _finished(
    node: Node | None, label: str, what: str, root: Literal["mapping", "list", "any"], files: tuple[str, ...]
) -> Document:
    if root != "any":
        if node is None:
            raise ScenarioError(Problem(label, 1, 1, f"empty {what}; expected a {root}"))
        if node.kind != root:
            found = "null" if node.kind == "scalar" and node.value is None else f"a {node.kind}"
            kinds = {"a scalar": "a single value"}
            raise ScenarioError(
                Problem(*node.position, f"expected a {root} at the top level, not {kinds.get(found, found)}")
            )
    return Document(label, None if node is None else node.plain(), node, files)
