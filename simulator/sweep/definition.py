"""What a sweep is: a base scenario, grids of axes over it, constraints and derived keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.scenario import Scenario
from simulator.sweep.axes import Axis, Span
from simulator.sweep.expressions import Expression


@dataclass(frozen=True, slots=True)
class Sample:
    """How samples are drawn from the intervals of a grid."""

    method: str
    points: int
    seed: int


@dataclass(frozen=True, slots=True)
class Grid:
    """A product of groups of axes and of samples.

    Attributes:
        groups: Axes that go together in each group; groups are crossed.
        spans: Intervals that samples are drawn from.
        sample: How, None without intervals.
    """

    groups: tuple[tuple[Axis, ...], ...]
    spans: tuple[Span, ...] = ()
    sample: Sample | None = None

    @property
    def count(self) -> int:
        """Points before any constraint."""
        count = self.sample.points if self.sample else 1
        for group in self.groups:
            count *= len(group[0].values)
        return count

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all axes."""
        return (*(axis.key for group in self.groups for axis in group), *(span.key for span in self.spans))


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """What a sweep file says.

    Attributes:
        name: Name of the sweep.
        label: The file as the user named it.
        place: Where in it the axes stand: file, line and column.
        data: The base scenario as its file writes it.
        folder: Folder that paths in the base are relative to.
        scenario: The base scenario, resolved, `fixed` and `above` applied.
        fixed: Overrides beneath the axes.
        above: Overrides above the axes (the command line's).
        grids: Grids, one after the other.
        where: Constraints that a point must meet.
        derive: Key -> expression that gives it.
        plot: What the default chart shows, as far as the file says.
    """

    name: str
    label: str
    place: str
    data: Mapping[str, Any]
    folder: Path
    scenario: Scenario
    fixed: Mapping[str, Any]
    above: Mapping[str, Any]
    grids: tuple[Grid, ...]
    where: tuple[Expression, ...] = ()
    derive: Mapping[str, Expression] = field(default_factory=dict)
    plot: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all axes, then the derived ones."""
        swept = dict.fromkeys(key for grid in self.grids for key in grid.keys)
        return (*swept, *(key for key in self.derive if key not in swept))

    @property
    def count(self) -> int:
        """Points before constraints and duplicates."""
        return sum(grid.count for grid in self.grids)
