"""``include:``: files beneath this one, from the same folder, each at most once on the way down."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from simulator.documents._node import MAX_DEPTH, MAX_NODES, Node, Position, overlay
from simulator.documents._remembered import composed
from simulator.documents._source import read_text
from simulator.errors import Problem, ScenarioError

MAX_INCLUDE_DEPTH: Final = 16
"""Files that include one another, the first counted."""

MAX_INCLUDED: Final = 64
"""Files that one document may be put together from."""


class IncludeReader:
    """Follows the includes of one document.

    Attributes:
        read: Every included file, as messages call it, in the order of reading.
    """

    def __init__(self, first: Path, limit: int) -> None:
        self._folder = first.parent.resolve()
        self._limit = limit
        self._chain: list[tuple[Path, Position]] = []
        self.read: list[str] = []

    def resolve(self, node: Node, path: Path, label: str) -> Node:
        """The mapping with everything that it includes beneath it.

        Raises:
            ScenarioError: A file outside the folder, not there, in a cycle, or too many of them.
        """
        _, listed = node.entries["include"]
        own = Node("mapping", node.position)
        own.entries = {key: entry for key, entry in node.entries.items() if key != "include"}
        own.measure()
        wanted = listed.items if listed.kind == "list" else [listed]
        lower: Node | None = None
        for item in wanted:
            if not isinstance(item.value, str) or not item.value:
                raise self._refused(item.position, "expected the path of a file, or a list of paths")
            included = self._include(item.value, item.position, path, label)
            lower = included if lower is None else overlay(lower, included)
        joined = own if lower is None else overlay(lower, own)
        if joined.size > MAX_NODES or joined.depth > MAX_DEPTH:
            raise self._refused(listed.position, f"expands to more than {MAX_NODES:,} nodes")
        return joined

    def _include(self, name: str, position: Position, path: Path, label: str) -> Node:
        target = self._target(name, position, path)
        chain = [path.resolve()] if not self._chain else [step for step, _ in self._chain]
        if target in chain:
            raise self._refused(position, f'"{name[:80]}" includes itself')
        if len(chain) >= MAX_INCLUDE_DEPTH:
            raise self._refused(position, f"more than {MAX_INCLUDE_DEPTH} files deep")
        if len(self.read) >= MAX_INCLUDED:
            raise self._refused(position, f"more than {MAX_INCLUDED} files")
        shown = str(Path(label).parent / name)
        self.read.append(shown)
        if not self._chain:
            self._chain.append((path.resolve(), position))
        self._chain.append((target, position))
        try:
            node = self._read(target, shown, position)
            return self.resolve(node, target, shown) if "include" in node.entries else node
        finally:
            self._chain.pop()

    def _target(self, name: str, position: Position, path: Path) -> Path:
        outside = f'"{name[:80]}" is outside the scenario folder'
        if "://" in name or "\\" in name or name.startswith(("/", "~")):
            raise self._refused(position, f"{outside}; give a relative path within it")
        try:
            target = (path.parent / name).resolve()
        except (OSError, RuntimeError, ValueError):
            raise self._refused(position, f'"{name[:80]}" is not a path') from None
        if not target.is_relative_to(self._folder):
            raise self._refused(position, f"{outside}; give a relative path within it")
        return target

    def _read(self, target: Path, shown: str, position: Position) -> Node:
        try:
            text = read_text(target, shown, self._limit)
        except ScenarioError as error:
            problem = error.problems[0]
            if problem.line:
                raise
            raise self._refused(position, f'"{shown[:80]}": {problem.message}') from None
        node = composed(text, shown)
        if node is None or node.kind != "mapping":
            raise self._refused(position, f'"{shown[:80]}" holds no mapping')
        return node

    def _refused(self, position: Position, message: str) -> ScenarioError:
        steps = [f"{place.file}:{place.line}:{place.column}" for _, place in self._chain[1:]]
        chain = f" (included from {' -> '.join(steps)})" if steps else ""
        return ScenarioError(Problem(*position, f"include: {message}{chain}"))
