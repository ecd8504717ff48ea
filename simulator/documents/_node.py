"""The tree that a document is read into: values with the place where each stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

MAX_NODES = 1_000_000
"""Values in one document, aliases and merge keys counted at full length."""

MAX_DEPTH = 64
"""Mappings and lists inside one another, aliases counted at full depth."""


class Position(NamedTuple):
    """Where something stands; line and column count from 1 and are 0 where there are none."""

    file: str
    line: int
    column: int


@dataclass(slots=True, eq=False)
class Node:
    """One value: a scalar, a list of nodes, or a mapping of text to (position of the key, node)."""

    kind: Literal["scalar", "list", "mapping"]
    position: Position
    value: object = None
    items: list[Node] = field(default_factory=list)
    entries: dict[str, tuple[Position, Node]] = field(default_factory=dict)
    size: int = 1
    depth: int = 0

    def children(self) -> list[Node]:
        """The values directly inside this one."""
        return self.items if self.kind == "list" else [node for _, node in self.entries.values()]

    def measure(self) -> None:
        """Take size and depth from the children, which must be complete."""
        inside = self.children()
        self.size = 1 + sum(child.size for child in inside)
        self.depth = 1 + max((child.depth for child in inside), default=0)

    def plain(self) -> object:
        """Nested dicts, lists and scalars; what is shared by aliases stays shared."""
        return _plain(self, {})

    def find(self, path: Sequence[str | int]) -> tuple[Position | None, Node, int]:
        """The deepest node along a path: position of its key, the node, and how many steps were found."""
        key, node = None, self
        for count, step in enumerate(path):
            if node.kind == "mapping" and isinstance(step, str) and step in node.entries:
                key, node = node.entries[step]
            elif node.kind == "list" and isinstance(step, int) and 0 <= step < len(node.items):
                node = node.items[step]
                key = None
            else:
                return key, node, count
        return key, node, len(path)


def overlay(lower: Node, upper: Node) -> Node:
    """`upper` on top of `lower`: mappings are joined key by key, anything else is replaced."""
    return _overlay(lower, upper, {})


def _overlay(lower: Node, upper: Node, done: dict[tuple[int, int], Node]) -> Node:
    if lower.kind != "mapping" or upper.kind != "mapping":
        return upper
    pair = (id(lower), id(upper))
    if pair not in done:
        joined = Node("mapping", upper.position)
        joined.entries = dict(lower.entries)
        for key, (place, node) in upper.entries.items():
            below = lower.entries.get(key)
            joined.entries[key] = (place, node if below is None else _overlay(below[1], node, done))
        joined.measure()
        done[pair] = joined
    return done[pair]


def _plain(node: Node, done: dict[int, object]) -> object:
    if node.kind == "scalar":
        return node.value
    known = done.get(id(node))
    if known is None:
        if node.kind == "list":
            known = [_plain(item, done) for item in node.items]
        else:
            known = {key: _plain(value, done) for key, (_, value) in node.entries.items()}
        done[id(node)] = known
    return known
