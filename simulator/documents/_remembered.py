"""Trees of texts that were read before: the same text of the same file is parsed once a process."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from simulator.documents._compose import compose
from simulator.documents._lines import read_lines
from simulator.documents._node import Node

MAX_REMEMBERED: Final = 1_000_000
"""Characters of all texts whose trees are kept."""

_trees: OrderedDict[tuple[str, str], Node | None] = OrderedDict()


def composed(text: str, label: str) -> Node | None:
    """As `compose`; others may hold the same tree, so it must not be changed.

    A tree is found by the text itself, which takes microseconds to read and milliseconds to parse: a time
    stamp would miss a file that is written twice within its resolution. The trees that were used longest ago
    go first.

    Raises:
        ScenarioError: As `compose`; mistakes are worked out anew each time.
    """
    key = (text, label)
    if key in _trees:
        _trees.move_to_end(key)
        return _trees[key]
    tree = _trees[key] = read_lines(text, label) or compose(text, label)
    while sum(len(kept) for kept, _ in _trees) > MAX_REMEMBERED:
        _trees.popitem(last=False)
    return tree
