"""Sweep files: a scenario, axes over its keys, and what ties them; every mistake told with its place."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from simulator.documents import Document, KeyPath, load_document
from simulator.errors import ConflictError, Problem, ScenarioError
from simulator.scenario import Scenario, load_scenario, scenario_from_mapping
from simulator.sweep.axes import Axis, AxisError, Span, read_axis
from simulator.sweep.definition import Grid, Sample, Sweep
from simulator.sweep.expressions import Expression, ExpressionError, read_expression
from simulator.sweep.keys import key_facts
from simulator.sweep.plots import KINDS, column_complaint
from simulator.sweep.values import UnknownNameError, Values

_KEYS: Final = (
    "name",
    "scenario",
    "base",
    "set",
    "axes",
    "zip",
    "sample",
    "grids",
    "where",
    "derive",
    "plot",
)
_GRID_KEYS: Final = ("axes", "zip", "sample")
_SAMPLE_KEYS: Final = ("method", "points", "seed")
_METHODS: Final = ("sobol", "latin_hypercube", "random")
_PLOT_KEYS: Final = ("x", "y", "by", "kind")
_MOST_PROBED: Final = 1_000
_MOST_TOLD: Final = 10
MAX_SAMPLES: Final = 1_000_000


def load_sweep_file(path: str | os.PathLike[str], overrides: Mapping[str, object] | None = None) -> Sweep:
    """Read a sweep file.

    Precedence: catalogue < scenario file < ``set`` < axes and ``derive`` < overrides.

    Args:
        path: YAML file.
        overrides: Dotted key -> value, above the axes; an axis that is overridden takes this one value.

    Raises:
        ScenarioError: Every mistake in the file or its scenario, with line and column.
        EnvironmentFailure: The system would not let a file be read.
    """
    return _Reader(load_document(path, what="sweep"), Path(path), dict(overrides or {})).sweep()


class _Reader:
    def __init__(self, document: Document, path: Path, above: dict[str, object]) -> None:
        self.document, self.path, self.above = document, path, above
        self.data: Mapping[str, Any] = document.data
        self.problems: list[Problem] = []

    def sweep(self) -> Sweep:
        self._known(self.data, (), _KEYS)
        name = self.data.get("name", self.path.stem)
        if not isinstance(name, str) or not name.strip():
            self._add(("name",), "expected some text")
        fixed = self._mapping(("set",))
        grids = self._grids()
        where, derive = self._where(), self._derive()
        plot, whole = self._plot(), not self.problems
        try:
            data, folder, scenario = self._base(fixed)
        except ScenarioError as error:
            self.problems += error.problems
            self._stop()
            raise
        place = str(Problem(*self.document.position((self._grown(),), "key"), "")).removesuffix(": ")
        label = self.document.label
        sweep = Sweep(
            name, label, place, data, folder, scenario, fixed, self.above, grids, where, derive, plot
        )
        self._probe(sweep)
        if not whole:
            self._stop()  # what is said of an axis that could not be read would be wrong
        self._check_names(sweep)
        for key in ("x", "y", "by"):
            complaint = column_complaint(plot[key], sweep.keys) if key in plot else None
            if complaint is not None:
                self._add(("plot", key), complaint)
        self._stop()
        return sweep

    def _grown(self) -> str:
        """The key under which most points come about."""
        return next((key for key in ("grids", "axes", "zip") if key in self.data), "axes")

    def _base(self, fixed: Mapping[str, Any]) -> tuple[Mapping[str, Any], Path, Scenario]:
        """The base's data, its folder, and the resolved base."""
        given = [key for key in ("scenario", "base") if key in self.data]
        if len(given) != 1:
            raise ScenarioError(
                self.document.problem(
                    (), 'give "scenario" (path of a scenario file) or "base" (one written here)'
                )
            )
        overrides = {**fixed, **self.above}
        value = self.data[given[0]]
        if given == ["base"]:
            folder = self.path.parent
            if not isinstance(value, Mapping):
                raise ScenarioError(
                    self.document.problem(("base",), "expected a mapping, as in a scenario file")
                )
            try:
                made = scenario_from_mapping(value, overrides, label=self.path.stem, folder=folder)
            except ScenarioError as error:
                raise ScenarioError(self._placed(p, ("base",)) for p in error.problems) from None
            return value, folder, made
        if not isinstance(value, str):
            raise ScenarioError(self.document.problem(("scenario",), "expected the path of a scenario file"))
        file = self.path.parent / value
        if not file.is_file():
            raise ScenarioError(self.document.problem(("scenario",), f"no file {file}"))
        try:
            made = load_scenario(file, overrides)
        except ScenarioError as error:
            raise ScenarioError(self._placed(p, ()) for p in error.problems) from None
        document = load_document(file, what="scenario", includes=True)
        return {"name": file.stem, **document.data}, file.parent, made

    def _placed(self, problem: Problem, above: KeyPath) -> Problem:
        """A mistake in the base or in `set`, with its place in this file where it has none of its own."""
        if problem.line:
            return problem
        dotted, _, _ = problem.message.partition(":")
        for key in self._mapping(("set",)):
            if problem.file == "--set" and (dotted == key or dotted.startswith(f"{key}.")):
                return Problem(*self.document.position(("set", key)), problem.message)
        if problem.file == "--set":
            return problem
        steps = [int(step) if step.isdecimal() else step for step in dotted.split(".")]
        return Problem(*self.document.position((*above, *steps)), problem.message)

    def _grids(self) -> tuple[Grid, ...]:
        common = self._grid(())
        listed = self.data.get("grids")
        if listed is None:
            if not common.keys and not self.problems:
                self._add((), 'no axes; give "axes", "zip" or "grids"')
            return (common,)
        if not isinstance(listed, list) or not listed:
            self._add(("grids",), "expected a list of mappings with axes, zip or sample")
            return ()
        grids = []
        for index, data in enumerate(listed):
            at = ("grids", index)
            if not isinstance(data, Mapping):
                self._add(at, "expected a mapping with axes, zip or sample")
                continue
            self._known(data, at, _GRID_KEYS)
            grid = self._grid(at)
            if common.sample and grid.sample:
                self._add((*at, "sample"), "samples are drawn above already")
            whole = Grid(
                (*common.groups, *grid.groups), common.spans + grid.spans, common.sample or grid.sample
            )
            self._distinct(whole, at)
            grids.append(whole)
        return tuple(grids)

    def _grid(self, at: tuple[str | int, ...]) -> Grid:
        sample = self._sample(at)
        groups: list[tuple[Axis, ...]] = []
        spans: list[Span] = []
        for key, written in self._mapping((*at, "axes")).items():
            axis = self._axis((*at, "axes", key), key, written, sampled=sample is not None)
            if isinstance(axis, Axis):
                groups.append((axis,))
            elif axis is not None:
                spans.append(axis)
        groups += self._zips(at)
        if sample is not None and not spans:
            self._add(
                (*at, "sample"), "no axis is a range without points, so there is nothing to sample", "key"
            )
        grid = Grid(tuple(groups), tuple(spans), sample)
        self._distinct(grid, at)
        return grid

    def _distinct(self, grid: Grid, at: KeyPath) -> None:
        keys = grid.keys
        for key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
            self._add((*at, "axes", key), "is an axis twice", "key")

    def _zips(self, at: tuple[str | int, ...]) -> list[tuple[Axis, ...]]:
        listed = self._at((*at, "zip"))
        if listed is None:
            return []
        # One group may stand without a list around it.
        single = isinstance(listed, Mapping)
        groups = []
        for index, data in enumerate([listed] if single else listed if isinstance(listed, list) else [None]):
            here = (*at, "zip") if single else (*at, "zip", index)
            if not isinstance(data, Mapping) or not data:
                self._add(here, "expected a mapping of keys to lists of the same length")
                continue
            axes = [self._axis((*here, key), key, written, sampled=False) for key, written in data.items()]
            whole = tuple(axis for axis in axes if isinstance(axis, Axis))
            lengths = {axis.key: len(axis.values) for axis in whole}
            if len(whole) == len(axes) and len(set(lengths.values())) > 1:
                told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
                self._add(here, f"axes that go together need as many values each; {told}")
            elif len(whole) == len(axes):
                groups.append(whole)
        return groups

    def _axis(self, at: KeyPath, key: str, written: object, *, sampled: bool) -> Axis | Span | None:
        try:
            return read_axis(key, written, sampled=sampled)
        except AxisError as error:
            self._add((*at, error.at) if error.at else at, str(error))
            return None

    def _sample(self, at: tuple[str | int, ...]) -> Sample | None:
        here = (*at, "sample")
        if self._at(here) is None:
            return None
        data = self._mapping(here)
        self._known(data, here, _SAMPLE_KEYS)
        method, points, seed = data.get("method", "sobol"), data.get("points"), data.get("seed", 0)
        if method not in _METHODS:
            self._add((*here, "method"), f"must be one of {', '.join(_METHODS)}")
        elif method != "random" and importlib.util.find_spec("scipy") is None:
            self._add(here, f'{method} needs SciPy: install "clustersim[search]", or use method: random')
        if type(points) is not int or not 1 <= points <= MAX_SAMPLES:
            self._add((*here, "points"), f"expected a whole number from 1 to {MAX_SAMPLES:,}")
            points = 1
        if type(seed) is not int or not 0 <= seed < 2**63:
            self._add((*here, "seed"), "expected a whole number from 0")
            seed = 0
        return Sample(str(method), points, seed)

    def _where(self) -> tuple[Expression, ...]:
        listed = self.data.get("where", [])
        if isinstance(listed, str):
            listed = [listed]
        if not isinstance(listed, list):
            self._add(("where",), "expected a list of conditions, such as num_gpus <= 4096")
            return ()
        read = [self._expression(("where", index), text) for index, text in enumerate(listed)]
        return tuple(expression for expression in read if expression)

    def _derive(self) -> dict[str, Expression]:
        read = {
            key: self._expression(("derive", key), text) for key, text in self._mapping(("derive",)).items()
        }
        return {key: expression for key, expression in read.items() if expression}

    def _expression(self, at: KeyPath, text: object) -> Expression | None:
        if not isinstance(text, (str, int, float)):
            self._add(at, "expected an expression, such as 8 * num_gpus")
            return None
        try:
            return read_expression(str(text))
        except ExpressionError as error:
            self._add(at, str(error))
            return None

    def _plot(self) -> dict[str, str]:
        data = self._mapping(("plot",))
        self._known(data, ("plot",), _PLOT_KEYS)
        for key, value in data.items():
            if not isinstance(value, str):
                self._add(("plot", key), "expected some text")
            elif key == "kind" and value not in KINDS:
                self._add(("plot", key), f"must be one of {', '.join(KINDS)}")
        return {key: str(value) for key, value in data.items()}

    def _probe(self, sweep: Sweep) -> None:
        """Tries every value of every axis alone on the base: unknown keys, malformed values."""
        for at, key, values in self._axis_places():
            wrong = 0
            for index, value in values:
                try:
                    scenario_from_mapping(sweep.data, {**sweep.fixed, key: value}, folder=sweep.folder)
                except ConflictError:
                    continue
                except ScenarioError as error:
                    place = (*at, index) if index is not None and self.document.has((*at, index)) else at
                    # The base is right by itself, so an unknown key is one that the axis brought in.
                    mine = [p for p in error.problems if p.file == "--set" or "unknown key" in p.message]
                    of: Literal["key", "value"] = "value"
                    if any("unknown key" in p.message for p in mine):
                        of = "key"
                    self.problems += [
                        Problem(*self.document.position(at if of == "key" else place, of), p.message)
                        for p in mine
                    ]
                    wrong += bool(mine)
                    if of == "key" or wrong == _MOST_TOLD:
                        break

    def _check_names(self, sweep: Sweep) -> None:
        """Names in expressions and what is derived must be keys; quoted text measures what its key does."""
        placed: list[tuple[KeyPath, Expression]] = [(("derive", key), e) for key, e in sweep.derive.items()]
        placed += [(("where", index), e) for index, e in enumerate(sweep.where)]
        values = Values(sweep, {})
        for at, expression in placed:
            for name in expression.names:
                try:
                    if name not in sweep.keys:
                        values.get(name)
                except UnknownNameError as error:
                    self._add(at, str(error))
                except ExpressionError as error:
                    self._add(at, str(error))
            for name, text in expression.compared():
                facts = key_facts(name)
                if facts.dimension is not None and facts.number(text) is None:
                    wanted = f"a {facts.dimension.replace('_', ' ')} with its unit"
                    self._add(at, f'{name} is compared with "{text[:40]}"; {wanted} is wanted')
        for key in sweep.derive:
            if any(key in grid.keys for grid in sweep.grids):
                self._add(("derive", key), "is an axis already", "key")
            try:
                scenario_from_mapping(sweep.data, {**sweep.fixed, key: 1}, folder=sweep.folder)
            except ScenarioError as error:
                # That it may not be 1 is nothing; that there is no such key is found before anything runs.
                unknown = [p.message for p in error.problems if "unknown key" in p.message]
                place = self.document.position(("derive", key), "key")
                self.problems += [Problem(*place, message) for message in unknown]

    def _axis_places(self) -> list[tuple[KeyPath, str, list[tuple[int | None, Any]]]]:
        tops: list[tuple[str | int, ...]] = [()]
        grids = self.data.get("grids")
        tops += [("grids", index) for index in range(len(grids) if isinstance(grids, list) else 0)]
        found: list[tuple[KeyPath, str, list[tuple[int | None, Any]]]] = []
        for top in tops:
            zips = self._at((*top, "zip"))
            zips = zips if isinstance(zips, (Mapping, list)) else []
            blocks = [(*top, "axes"), *([(*top, "zip")] if isinstance(zips, Mapping) else [])]
            blocks += [] if isinstance(zips, Mapping) else [(*top, "zip", i) for i in range(len(zips))]
            for block in blocks:
                for key, written in self._mapping(block).items():
                    try:
                        read = read_axis(key, written, sampled=True)
                    except AxisError:
                        continue  # told already
                    values = list(read.values) if isinstance(read, Axis) else [read.at(0.0), read.at(1.0)]
                    listed = isinstance(written, list)
                    chosen = (
                        enumerate(values[:_MOST_PROBED])
                        if listed
                        else [(None, v) for v in values[:: max(1, len(values) - 1)]]
                    )
                    found.append(((*block, key), key, list(chosen)))
        return found

    def _at(self, path: KeyPath) -> Any:
        found: Any = self.data
        for step in path:
            if isinstance(found, Mapping):
                found = found.get(step)
            elif isinstance(found, list) and isinstance(step, int) and step < len(found):
                found = found[step]
            else:
                return None
        return found

    def _mapping(self, path: KeyPath) -> Mapping[str, Any]:
        found = self._at(path)
        if found is None:
            return {}
        if not isinstance(found, Mapping):
            self._add(path, "expected a mapping")
            return {}
        return found

    def _known(self, data: Mapping[str, Any], at: KeyPath, known: tuple[str, ...]) -> None:
        import difflib

        for key in data:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(known)}"
                self._add((*at, key), f"unknown key; {hint}", "key")

    def _add(self, path: KeyPath, message: str, of: Any = "value") -> None:
        self.problems.append(self.document.problem(path, message, of))

    def _stop(self) -> None:
        if self.problems:
            raise ScenarioError(sorted(dict.fromkeys(self.problems)))
