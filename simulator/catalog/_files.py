"""Finds and reads the files of the catalogue, one at a time."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, Literal, get_args

from simulator.documents import parse_document
from simulator.errors import ClustersimError

Kind = Literal["accelerators", "interconnects", "hosts", "storage", "systems", "models", "software"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""The kinds of entry, which are also the folders under ``data``."""

_SUFFIX: Final = ".yaml"
_ALIASES: Final = "aliases"


class UnknownEntry(ClustersimError, LookupError):
    """No entry of this kind has this name.

    Attributes:
        kind: Where it was looked for.
        name: What was looked for.
        suggestions: Canonical names that come nearest, best first; may be empty.
    """

    def __init__(self, kind: str, name: str, suggestions: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.suggestions = tuple(suggestions)
        hint = f"; did you mean {', '.join(self.suggestions)}?" if self.suggestions else ""
        super().__init__(f'no entry "{name[:60]}" among the {kind} of the catalogue{hint}')


def names(kind: Kind) -> list[str]:
    """Canonical names of a kind, sorted without regard to case; reads no file."""
    return sorted(_canonical(kind).values(), key=str.casefold)


def entry(kind: Kind, name: str) -> dict[str, object]:
    """The entry as a plain mapping in the form of its spec, quantities as text with units.

    Args:
        kind: One of `KINDS`.
        name: Canonical name or alias; case, hyphens, underscores and spaces do not matter.

    Returns:
        A copy that the caller may change.

    Raises:
        UnknownEntry: No such name.
    """
    return copy.deepcopy(_read(kind, _resolve(kind, name)))


def path(kind: Kind, name: str) -> Traversable:
    """The file that holds an entry.

    Raises:
        UnknownEntry: No such name.
    """
    return _folder(kind) / (_resolve(kind, name) + _SUFFIX)


def figure(block: Mapping[str, object], key: str) -> dict[str, str] | None:
    """What one figure of an entry rests on.

    The longest dotted prefix of `key` among the entry's ``figures`` speaks for it
    (``peak_flops`` for ``peak_flops.bf16``), else ``default``.

    Args:
        block: An entry, as `entry` returns it.
        key: Dotted key, such as ``peak_flops.bf16``.

    Returns:
        ``{"basis": ..., "source": ...}``, or None where the entry does not say.
    """
    figures = block.get("figures")
    if not isinstance(figures, Mapping):
        return None
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        found = figures.get(".".join(parts[:length]))
        if found is not None:
            return dict(found)
    found = figures.get("default")
    return None if found is None else dict(found)


def _resolve(kind: Kind, name: str) -> str:
    if kind not in KINDS:
        raise ValueError(f'"{kind}" is no kind of the catalogue; there are {", ".join(KINDS)}')
    key = _key(name)
    canonical = _canonical(kind)
    found = canonical.get(key) or _alias_keys(kind).get(key)
    if found is None:
        raise UnknownEntry(kind, name, _nearest(key, canonical | _alias_keys(kind)))
    return found


def _nearest(key: str, known: Mapping[str, str]) -> list[str]:
    close = difflib.get_close_matches(key, known, n=6, cutoff=0.6)
    starting = sorted(other for other in known if len(key) >= 3 and other.startswith(key))
    return list(dict.fromkeys(known[other] for other in [*starting[:3], *close]))[:3]


def _key(name: str) -> str:
    """What two spellings of one name have in common; a dot within a number counts (1.3b is not 13b)."""
    return re.sub(r"[-_\s]|(?<!\d)\.|\.(?!\d)", "", name.casefold())


def _folder(kind: Kind) -> Traversable:
    return resources.files("simulator.catalog") / "data" / kind


@cache
def _canonical(kind: Kind) -> dict[str, str]:
    files = sorted(item.name for item in _folder(kind).iterdir())
    stems = [name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)]
    return _index(kind, ((stem, stem) for stem in stems if stem != _ALIASES))


@cache
def _alias_keys(kind: Kind) -> dict[str, str]:
    listed = _parse(kind, _ALIASES)
    stems = set(_canonical(kind).values())
    pairs = [(stem, stem) for stem in sorted(stems)]
    for stem, aliases in listed.items():
        if stem not in stems:
            raise ValueError(f"{kind}/{_ALIASES}{_SUFFIX} names {stem}, which has no file")
        if not isinstance(aliases, list):
            raise ValueError(f"{kind}/{_ALIASES}{_SUFFIX}: {stem}: a list of names is wanted")
        pairs += [(str(alias), stem) for alias in aliases]
    return _index(kind, pairs)


def _index(kind: Kind, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Entries by key; one key for two of them is a mistake that names both."""
    found: dict[str, str] = {}
    for name, stem in pairs:
        other = found.setdefault(_key(name), stem)
        if other != stem:
            raise ValueError(f'"{name}" names both {kind}/{other}{_SUFFIX} and {kind}/{stem}{_SUFFIX}')
    return found


@cache
def _read(kind: Kind, stem: str) -> dict[str, object]:
    return _parse(kind, stem)


def _parse(kind: Kind, stem: str) -> dict[str, object]:
    file = _folder(kind) / (stem + _SUFFIX)
    label = f"catalog/{kind}/{stem}{_SUFFIX}"
    data: dict[str, object] = parse_document(file.read_text(encoding="utf-8"), label, what="entry").data
    return data
