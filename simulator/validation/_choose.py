"""Which rows are predicted: all, those that a pattern finds, or a sample that is always the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b

from simulator.errors import ClustersimError


def pattern(only: str | None) -> re.Pattern[str] | None:
    """The pattern that a row's id or group must contain.

    Raises:
        ClustersimError: Not a regular expression.
    """
    if only is None:
        return None
    try:
        return re.compile(only)
    except (re.error, RecursionError, OverflowError) as error:
        raise ClustersimError(f'--only: "{only[:60]}" is not a regular expression: {error}') from None


def shares(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """How many of `total` rows each group sends: in proportion to its size, but no group none if that can be.

    Largest remainders, after one row for each group (the largest groups where there are more groups than
    rows); ties go to the larger group, then by name.

    Args:
        sizes: Rows of each group.
        total: Rows wanted; all are taken where there are fewer.
    """
    total = min(total, sum(sizes.values()))
    ranked = sorted(sizes, key=lambda name: (-sizes[name], name))
    given = {name: 1 if place < total else 0 for place, name in enumerate(ranked)}
    left = total - sum(given.values())
    everything = sum(sizes.values()) - len(sizes)
    if left > 0:
        exact = {name: left * (sizes[name] - 1) / everything for name in ranked}
        for name in ranked:
            given[name] += int(exact[name])
        left = total - sum(given.values())
        by_remainder = sorted(ranked, key=lambda name: (int(exact[name]) - exact[name], ranked.index(name)))
        for name in by_remainder[:left]:
            given[name] += 1
    return given


def sample(groups: Mapping[str, list[tuple[str, int]]], total: int) -> set[int]:
    """Places of the rows of a stratified sample.

    Within a group the rows with the smallest digests of their ids are taken: as good as random, the same on
    every machine, and a larger sample contains the smaller one's rows of a group.

    Args:
        groups: Group -> (id, place) of its rows.
        total: Rows wanted.
    """
    wanted = shares({name: len(rows) for name, rows in groups.items()}, total)
    chosen: set[int] = set()
    for name, rows in groups.items():
        ordered = sorted(rows, key=lambda row: (blake2b(row[0].encode(), digest_size=8).digest(), row[1]))
        chosen.update(place for _, place in ordered[: wanted[name]])
    return chosen
