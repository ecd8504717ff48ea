"""The plainest YAML read line by line, ten times as fast as by the parser, which is left all the rest.

What is read here: ASCII lines of ``key: value`` and ``- value``, nested by their indentation, with comments;
values that are unquoted, quoted, folded (``>-``), or lists and mappings in brackets on one line. Whatever is
not surely one of these, mistakes above all, ends the reading, and the parser begins anew.
"""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple, NoReturn

from simulator.documents._node import Node, Position
from simulator.documents._scalars import ScalarError, read_plain

_ASCII: Final = re.compile(r"[\n -~]*")
_SAFE: Final = "[A-Za-z0-9_./+()-]"
_ENTRY: Final = re.compile(rf'([A-Za-z0-9_.]{_SAFE}*(?: {_SAFE}+)*|"[^"\\]*"):(?:$| +(.*))')
_ITEM: Final = re.compile(r"-( +)(\S.*)")
_QUOTED: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'")
_PLAIN_START: Final = re.compile(r"[A-Za-z0-9_./+(]|-[A-Za-z0-9.]")
_IN_BRACKETS: Final = re.compile(rf"-?[A-Za-z0-9_.+(]{_SAFE}*(?: +{_SAFE}+)*")
_LONGEST_KEY: Final = 100
_DEEPEST: Final = 20


class _Line(NamedTuple):
    number: int
    indent: int
    text: str


class _OtherwiseError(Exception):
    """The text holds something that is for the parser."""


def read_lines(text: str, label: str) -> Node | None:
    """The tree that `compose` gives for this text; None where it is not of the plainest kind."""
    if not _ASCII.fullmatch(text):
        return None
    reader = _Reader(text, label)
    try:
        return reader.document()
    except _OtherwiseError:
        return None


class _Reader:
    def __init__(self, text: str, label: str) -> None:
        self.label = label
        self.raw = text.split("\n")
        self.lines = [
            _Line(number, len(line) - len(bare), bare.rstrip(" "))
            for number, line in enumerate(self.raw)
            if (bare := line.lstrip(" ")) and bare[0] != "#"
        ]
        self.next = 0

    def document(self) -> Node:
        if not self.lines:
            _otherwise()
        root = self.block(-1, 0)
        if self.next < len(self.lines):
            _otherwise()
        return root

    def block(self, above: int, depth: int) -> Node:
        """The mapping or list that begins with the next line, which stands further in than `above`."""
        line = self.peek()
        if line is None or depth > _DEEPEST or line.indent <= above:
            _otherwise()
        listed = line.text.startswith("- ")
        node = Node("list" if listed else "mapping", self.at(line, line.indent))
        while (here := self.peek()) is not None and here.indent >= line.indent:
            if here.indent > line.indent or here.text.startswith("- ") != listed:
                # A list may stand as far in as the key that it belongs to, and ends with the next key.
                if listed and here.indent == line.indent:
                    break
                _otherwise()
            if listed:
                node.items.append(self.item(here, depth))
            else:
                self.entry(here, node, depth)
        node.measure()
        return node

    def item(self, line: _Line, depth: int) -> Node:
        found = _ITEM.fullmatch(line.text)
        if found is None:
            _otherwise()
        column = line.indent + 1 + len(found[1])
        inner = _Line(line.number, column, found[2])
        if _ENTRY.fullmatch(inner.text):
            self.lines[self.next] = inner
            return self.block(line.indent, depth + 1)
        self.next += 1
        return self.value(inner, 0, line.indent)

    def entry(self, line: _Line, node: Node, depth: int) -> None:
        found = _ENTRY.fullmatch(line.text)
        if found is None:
            _otherwise()
        key = found[1][1:-1] if found[1][0] == '"' else plain(found[1])
        if not isinstance(key, str) or len(key) > _LONGEST_KEY or key in node.entries or key == "<<":
            _otherwise()
        self.next += 1
        place = self.at(line, line.indent)
        if found[2] and found[2][0] != "#":
            node.entries[key] = place, self.value(line, found.start(2), line.indent)
            return
        below = self.peek()
        same = below is not None and below.indent == line.indent and below.text.startswith("- ")
        node.entries[key] = place, self.block(line.indent - same, depth + 1)

    def value(self, line: _Line, start: int, indent: int) -> Node:
        """The value on the rest of a line."""
        rest = line.text[start:]
        place = self.at(line, line.indent + start)
        if rest == ">-":
            return _scalar(place, text := self.folded(line, indent), text)
        if rest[0] in "[{":
            node, end = self.brackets(line, start, 0)
        elif rest[0] in "\"'":
            node, end = _quoted(place, line.text, start)
        else:
            shown = rest.split(" #")[0].rstrip(" ")
            if not _PLAIN_START.match(shown) or ": " in shown or shown[-1] == ":":
                _otherwise()
            node, end = _scalar(place, plain(shown), shown), start + len(shown)
        after = line.text[end:]
        if (after and not after.lstrip(" ").startswith("#")) or after.startswith("#"):
            _otherwise()
        below = self.peek()
        if below is not None and below.indent > indent:
            _otherwise()  # the text goes on there, or it is a mistake
        return node

    def folded(self, line: _Line, indent: int) -> str:
        """The text of the lines below that stand further in."""
        parts: list[str] = []
        below = self.peek()
        inner = below.indent if below is not None else 0
        for number in range(line.number + 1, len(self.raw)):
            text = self.raw[number].lstrip(" ")
            within = len(self.raw[number]) - len(text)
            if not text:
                break
            if within <= indent:
                break
            if within != inner or text[-1] == " " or text[0] == "#":
                _otherwise()
            parts.append(text)
            self.next += 1
        if not parts or ((below := self.peek()) is not None and below.indent > indent):
            _otherwise()
        return " ".join(parts)

    def brackets(self, line: _Line, start: int, depth: int) -> tuple[Node, int]:
        """A list or mapping in brackets, and where it ends."""
        text, mapping = line.text, line.text[start] == "{"
        node = Node("mapping" if mapping else "list", self.at(line, line.indent + start))
        here = _blanks(text, start + 1)
        close = "}" if mapping else "]"
        while depth < _DEEPEST and text[here : here + 1] != close:
            place = self.at(line, line.indent + here)
            key: object = None
            if mapping:
                found, here = self.single(line, here)
                key = found.value
                if not isinstance(key, str) or key in node.entries or text[here : here + 2] != ": ":
                    _otherwise()
                here = _blanks(text, here + 2)
            inside = text[here : here + 1] in ("[", "{")
            value, here = self.brackets(line, here, depth + 1) if inside else self.single(line, here)
            if isinstance(key, str):
                node.entries[key] = place, value
            else:
                node.items.append(value)
            here = _blanks(text, here)
            if text[here : here + 1] == close:
                break
            if text[here : here + 2] != ", ":
                _otherwise()
            here = _blanks(text, here + 2)
            if text[here : here + 1] == close:
                _otherwise()
        if text[here : here + 1] != close:
            _otherwise()
        node.measure()
        return node, here + 1

    def single(self, line: _Line, start: int) -> tuple[Node, int]:
        """A scalar inside brackets, and where it ends."""
        place = self.at(line, line.indent + start)
        if line.text[start : start + 1] in ('"', "'"):
            return _quoted(place, line.text, start)
        found = _IN_BRACKETS.match(line.text, start)
        if found is None:
            _otherwise()
        return _scalar(place, plain(found[0]), found[0]), found.end()

    def peek(self) -> _Line | None:
        return self.lines[self.next] if self.next < len(self.lines) else None

    def at(self, line: _Line, column: int) -> Position:
        return Position(self.label, line.number + 1, column + 1)


def plain(text: str) -> object:
    """The value of an unquoted scalar; what is refused is for the parser to tell."""
    try:
        return read_plain(text)
    except ScalarError:
        _otherwise()


def _quoted(place: Position, text: str, start: int) -> tuple[Node, int]:
    found = _QUOTED.match(text, start)
    if found is None or text[found.end() : found.end() + 1] == "'":
        _otherwise()
    value = found[0][1:-1]
    if "\\" in value and found[0][0] == '"':
        try:
            value = json.loads(found[0])  # every escape of JSON is one of YAML, and means the same
        except ValueError:
            _otherwise()
        if not value.isprintable():
            _otherwise()
    return _scalar(place, value, value), found.end()


def _scalar(place: Position, value: object, text: str) -> Node:
    return Node("scalar", place, value, size=1 + len(text) // 100)


def _blanks(text: str, start: int) -> int:
    while text[start : start + 1] == " ":
        start += 1
    return start


def _otherwise() -> NoReturn:
    raise _OtherwiseError
