"""The points of a sweep: products, zipped axes and samples, less what constraints leave out."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from simulator.errors import ClustersimError, Problem, ScenarioError
from simulator.sweep.axes import Span
from simulator.sweep.definition import Grid, Sample, Sweep
from simulator.sweep.expressions import Expression, ExpressionError
from simulator.sweep.keys import key_facts
from simulator.sweep.values import UnknownNameError, Values

MANY: Final = 24_000
"""Points beyond which a sweep must be asked for in so many words."""

MOST: Final = 10_000_000
"""Points that are enumerated at all."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point.

    Attributes:
        key: Identity: of the base, of what the point overrides, and of the version.
        overrides: Dotted key -> value: axes, then derived keys.
        wrong: Why it cannot be simulated, if that is known already.
    """

    key: str
    overrides: Mapping[str, Any]
    wrong: str | None = None


def points(sweep: Sweep, identity: str, *, limit: int | None = None, many: bool = False) -> list[Point]:
    """All points of a sweep, each once, in the order of its axes (the last one changes fastest).

    Args:
        sweep: The sweep.
        identity: What besides the overrides makes a result: base and version.
        limit: Points at most; the first ones.
        many: Whether more than `MANY` are wanted indeed.

    Raises:
        ScenarioError: An expression speaks of a key that the scenario does not have.
        ClustersimError: More points than are allowed, with the count, or none at all.
    """
    if limit is None and sweep.count > MOST:
        raise ClustersimError(
            f"{sweep.place}: {sweep.count:,} points; at most {MOST:,} can be enumerated "
            "(--limit N takes the first N)"
        )
    found: dict[str, Point] = {}
    values = Values(sweep, {})
    for overrides in _kept(sweep):
        point = _derived(sweep, overrides, identity, values)
        if point is not None:
            found.setdefault(point.key, point)
        if limit is not None and len(found) >= limit:
            break
    if len(found) > MANY and not many and limit is None:
        raise ClustersimError(
            f"{sweep.place}: {len(found):,} points; --yes runs them, --limit N takes the first N"
        )
    if not found:
        raise ClustersimError(f"{sweep.place}: none of {sweep.count:,} points meets the constraints in where")
    return list(found.values())


def point_key(identity: str, overrides: Mapping[str, Any]) -> str:
    """SHA-256, 32 hexadecimal digits, of what determines a point's result."""
    text = json.dumps([identity, overrides], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def _kept(sweep: Sweep) -> Iterator[dict[str, Any]]:
    for grid in sweep.grids:
        for combination in _grid_points(grid):
            yield {**combination, **{key: value for key, value in sweep.above.items() if key in combination}}


def _grid_points(grid: Grid) -> Iterator[dict[str, Any]]:
    groups = [
        [
            dict(zip((axis.key for axis in group), row, strict=True))
            for row in zip(*(a.values for a in group), strict=True)
        ]
        for group in grid.groups
    ]
    drawn: list[dict[str, Any]] = _drawn(grid.spans, grid.sample) if grid.sample else [{}]
    for parts in itertools.product(*groups, drawn):
        whole: dict[str, Any] = {}
        for part in parts:
            whole.update(part)
        yield whole


def _drawn(spans: tuple[Span, ...], sample: Sample) -> list[dict[str, Any]]:
    """Samples: random ones from numpy, the others from SciPy's quasi-Monte Carlo."""
    import warnings

    import numpy as np

    rng = np.random.default_rng(np.random.SeedSequence(sample.seed))
    if sample.method == "random":
        unit = rng.random((sample.points, len(spans)))
    else:
        from scipy.stats import qmc

        if sample.method == "sobol":
            with warnings.catch_warnings():
                # Balance needs a power of two; that any count is allowed is said in the README.
                warnings.simplefilter("ignore", UserWarning)
                unit = qmc.Sobol(len(spans), scramble=True, rng=rng).random(sample.points)
        else:
            unit = qmc.LatinHypercube(len(spans), rng=rng).random(sample.points)
    return [{span.key: span.drawn(float(u)) for span, u in zip(spans, row, strict=True)} for row in unit]


def _derived(sweep: Sweep, overrides: dict[str, Any], identity: str, values: Values) -> Point | None:
    """The point with its derived keys; None if a constraint leaves it out."""
    if not sweep.derive and not sweep.where:
        return Point(point_key(identity, overrides), overrides)
    values, wrong = values.at(overrides), None
    for key, expression in sweep.derive.items():
        if key in sweep.above:
            overrides[key] = sweep.above[key]
            continue
        try:
            overrides[key] = _assigned(key, _evaluated(sweep, ("derive", key), expression, values))
        except ExpressionError as error:
            wrong = f"{key}: {error}"
            break
    try:
        if wrong is None and not all(
            _evaluated(sweep, ("where", index), condition, values)
            for index, condition in enumerate(sweep.where)
        ):
            return None
    except ExpressionError as error:
        wrong = f"where: {error}"
    return Point(point_key(identity, overrides), overrides, wrong)


def _evaluated(sweep: Sweep, at: tuple[str | int, ...], expression: Expression, values: Values) -> Any:
    try:
        return expression.value(values.get)
    except UnknownNameError as error:
        name = ".".join(map(str, at))
        raise ScenarioError(Problem(sweep.label, 0, 0, f"{name}: {error}")) from None


def _assigned(key: str, value: Any) -> Any:
    facts = key_facts(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if facts.whole and not float(value).is_integer():
        raise ExpressionError(f"{value:g} is no whole number")
    return facts.written(value) if facts.numeric else value
