"""Text into a tree of nodes, from the parser's events; nothing is constructed that a tag asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from simulator.documents._node import MAX_DEPTH, MAX_NODES, Node, Position
from simulator.documents._scalars import ScalarError, read_plain
from simulator.errors import Problem, ScenarioError

_CORE: Final = "tag:yaml.org,2002:"
_TAGGED: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MAX_PROBLEMS: Final = 100
_TOO_DEEP: Final = f"nested more than {MAX_DEPTH} deep"


def compose(text: str, label: str) -> Node | None:
    """The tree of the one document in `text`; None if there is none.

    Raises:
        ScenarioError: Everything that is wrong with it, up to the first mistake that ends the parse.
    """
    return _Composer(label).compose(text)


class _Composer:
    def __init__(self, label: str) -> None:
        self.label = label
        self.problems: list[Problem] = []
        self.anchors: dict[str, Node | None] = {}
        self.root: Node | None = None
        self.last = Position(label, 1, 1)
        self.merged = 0
        # Open containers, each with its anchor and, in a mapping, the key that awaits its value.
        self.open: list[tuple[Node, str | None]] = []
        self.keys: list[tuple[str | None, Position] | None] = []

    def compose(self, text: str) -> Node | None:
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        try:
            for event in _events(text):
                self._take(event)
        except MarkedYAMLError as error:
            self._syntax(error)
        except (YAMLError, ValueError, OverflowError) as error:
            # The scanner lets a few mistakes through to Python, such as an escape beyond Unicode.
            self.problems.append(Problem(*self.last, f"not YAML from here on: {_one_line(str(error))}"))
        self._stop_if_wrong()
        return self.root

    def _take(self, event: Any) -> None:
        kind = type(event).__name__
        if kind == "ScalarEvent":
            self._scalar(event)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._start(event, "mapping" if kind == "MappingStartEvent" else "list")
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._end()
        elif kind == "AliasEvent":
            self._alias(event)
        elif kind == "DocumentStartEvent":
            self._document(event)

    def _document(self, event: Any) -> None:
        if self.root is not None:
            self._fatal(self._at(event), "a second document starts here; a file holds one")
        if event.version not in (None, (1, 2)):
            shown = ".".join(map(str, event.version))
            self._fatal(self._at(event), f"the file asks for YAML {shown}; YAML 1.2 is read")

    def _scalar(self, event: Any) -> None:
        position = self._at(event)
        node = Node("scalar", position, self._scalar_value(event, position))
        # Long text counts for more: aliases of it would otherwise expand without a limit.
        node.size += len(event.value) // 100
        if event.anchor:
            self.anchors[event.anchor] = node
        self._place(node)

    def _scalar_value(self, event: Any, position: Position) -> object:
        text, tag = event.value, _tag(event)
        if _SURROGATE.search(text):
            text = self._joined_surrogates(text, position)
        if tag in ("!", _CORE + "str") or (tag is None and not event.implicit[0]):
            return text
        try:
            value = read_plain(text) if event.style is None or tag is not None else text
        except ScalarError as error:
            self._problem(position, str(error))
            return None
        if tag is None:
            return value
        allowed = _TAGGED.get(tag.removeprefix(_CORE)) if tag.startswith(_CORE) else None
        if allowed is None:
            self._problem(
                position, f'tag "{_brief(tag)}" is not supported; nothing is constructed from a file'
            )
        elif not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            self._problem(position, f'"{_brief(text)}" is not of the type that its tag {_brief(tag)} names')
        elif tag == _CORE + "float":
            return float(value)  # type: ignore[arg-type]  # isinstance against `allowed` has proved it
        return value

    def _joined_surrogates(self, text: str, position: Position) -> str:
        # JSON writes what lies beyond U+FFFF as two escapes; a half that stands alone is no character.
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._problem(position, "a lone surrogate (half a character) cannot be written anywhere")
            return ""

    def _start(self, event: Any, kind: Any) -> None:
        position, tag = self._at(event), _tag(event)
        node = Node(kind, position)
        if len(self.open) >= MAX_DEPTH:
            self._fatal(position, _TOO_DEEP)
        if tag not in (None, "!", _CORE + ("map" if kind == "mapping" else "seq")):
            self._problem(
                position, f'tag "{_brief(tag)}" is not supported; nothing is constructed from a file'
            )
        if event.anchor:
            self.anchors[event.anchor] = None
        self.open.append((node, event.anchor))
        self.keys.append(None)

    def _end(self) -> None:
        node, anchor = self.open.pop()
        self.keys.pop()
        if node.kind == "mapping":
            self._merge(node)
        node.measure()
        self._check_size(node)
        if anchor:
            self.anchors[anchor] = node
        self._place(node)

    def _alias(self, event: Any) -> None:
        position = self._at(event)
        if event.anchor not in self.anchors:
            self._fatal(position, f'alias "*{_brief(event.anchor)}" has no anchor before it')
        node = self.anchors[event.anchor]
        if node is None:
            self._fatal(position, f'alias "*{_brief(event.anchor)}" stands inside what it names')
        self._place(node)

    def _place(self, node: Node | None) -> None:
        assert node is not None
        if not self.open:
            self.root = node
            return
        parent = self.open[-1][0]
        if parent.kind == "list":
            parent.items.append(node)
        elif self.keys[-1] is None:
            self.keys[-1] = (self._key(node), node.position)
        else:
            key, position = self.keys[-1]
            self.keys[-1] = None
            self._enter(parent, key, position, node)

    def _key(self, node: Node) -> str | None:
        if node.kind == "scalar" and isinstance(node.value, str):
            return node.value
        shown = f"a {node.kind}" if node.kind != "scalar" else _shown(node.value)
        self._problem(node.position, f"a key must be text, not {shown}; quote it")
        return None

    def _enter(self, parent: Node, key: str | None, position: Position, node: Node) -> None:
        if key is None:
            return
        if key in parent.entries:
            first = parent.entries[key][0]
            where = f"{first.line}:{first.column}"
            self._problem(position, f'duplicate key "{_brief(key)}"; it stands at {where} already')
            return
        parent.entries[key] = (position, node)

    def _merge(self, node: Node) -> None:
        """Take the keys of `<<: *other` or `<<: [*one, *two]`; the mapping's own keys win, then the first."""
        if "<<" not in node.entries:
            return
        _, merged = node.entries.pop("<<")
        sources = merged.items if merged.kind == "list" else [merged]
        if any(source.kind != "mapping" for source in sources):
            self._problem(merged.position, "<<: expected a mapping, or a list of mappings, to merge")
            return
        # Unlike aliases, merged keys are copied, so all merges together must stay small.
        self.merged += sum(len(source.entries) for source in sources)
        if self.merged > MAX_NODES:
            self._fatal(merged.position, f"expands to more than {MAX_NODES:,} nodes")
        for source in sources:
            for key, entry in source.entries.items():
                node.entries.setdefault(key, entry)

    def _check_size(self, node: Node) -> None:
        if node.size > MAX_NODES:
            self._fatal(node.position, f"expands to more than {MAX_NODES:,} nodes")
        if node.depth > MAX_DEPTH:
            self._fatal(node.position, _TOO_DEEP)

    def _syntax(self, error: Any) -> None:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = _one_line(error.problem or error.context or "not YAML")
        if "'\\t'" in message:
            message = "a tab where YAML allows only spaces"
        start = error.context_mark
        if start is not None and error.context and (start.line, start.column) != (line - 1, column - 1):
            message += f" ({_one_line(error.context)} that starts at {start.line + 1}:{start.column + 1})"
        self.problems.append(Problem(self.label, line, column, message))

    def _at(self, event: Any) -> Position:
        mark = event.start_mark
        self.last = Position(self.label, mark.line + 1, mark.column + 1)
        return self.last

    def _problem(self, position: Position, message: str) -> None:
        self.problems.append(Problem(*position, message))
        if len(self.problems) >= _MAX_PROBLEMS:
            self._stop_if_wrong()

    def _fatal(self, position: Position, message: str) -> None:
        self.problems.append(Problem(*position, message))
        self._stop_if_wrong()

    def _stop_if_wrong(self) -> None:
        if self.problems:
            raise ScenarioError(sorted(self.problems, key=lambda p: (p.line, p.column)))


def _events(text: str) -> Iterator[Any]:
    from ruamel.yaml import YAML

    # pure: the C parser dies of deep nesting instead of raising.
    reader = YAML(typ="safe", pure=True)
    reader.Scanner = _scanner()
    yield from reader.parse(text)


@cache
def _scanner() -> Any:
    from ruamel.yaml.scanner import Scanner, ScannerError

    class ShallowScanner(Scanner):
        """Stops at deep brackets itself: it would weigh a thousand more, each against all, first."""

        def fetch_flow_collection_start(self, *args: Any, **kwargs: Any) -> None:
            if len(self.flow_context) >= MAX_DEPTH:
                raise ScannerError(problem=_TOO_DEEP, problem_mark=self.reader.get_mark())
            super().fetch_flow_collection_start(*args, **kwargs)

    return ShallowScanner


def _tag(event: Any) -> str | None:
    return None if event.tag is None else str(event.tag)


def _one_line(text: str) -> str:
    return _brief(" ".join(text.split()), 160)


def _brief(text: str, length: int = 60) -> str:
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[: length + 1])
    return shown if len(text) <= length else shown[: length - 3] + "..."


def _shown(value: object) -> str:
    return "null" if value is None else repr(value).lower()
