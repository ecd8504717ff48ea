"""A sweep's points as charts need them: which axes vary, what figures are called, in which units."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from simulator.errors import ClustersimError, UnitError
from simulator.report.text import cause_label, part_label, resource_label, shown
from simulator.units import Dimension, human, parse

if TYPE_CHECKING:
    import pandas as pd

_BASE_UNITS: Final = {
    "bytes": "B",
    "bandwidth": "B/s",
    "compute": "FLOP/s",
    "time": "s",
    "rate": "/s",
    "power": "W",
    "frequency": "Hz",
}
_PREFIXES: Final = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_BRIEF: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SMALL: Final = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))
_LASTING: Final = (("d", 1 / 86400), ("h", 1 / 3600), ("min", 1 / 60), ("s", 1.0))
_LONG: Final = 60
_DECADES: Final = 1e4
"""Largest over smallest value from which one unit suits both no more."""


class Measure(NamedTuple):
    """How a figure is told: words, unit, units per SI unit, and whether less of it is better.

    Where values of a dimension have `each` a unit of their own, none stands beside the words.
    """

    words: str
    unit: str
    scale: float = 1.0
    less_is_better: bool = False
    each: Dimension | None = None

    @property
    def label(self) -> str:
        """Words and unit, for an axis."""
        return f"{self.words} [{self.unit}]" if self.unit else self.words


_MEASURES: Final = {
    "tokens_per_s": Measure("throughput", "tokens/s"),
    "tokens_per_s_per_gpu": Measure("throughput", "tokens/s per GPU"),
    "samples_per_s": Measure("throughput", "samples/s"),
    "step_time_s": Measure("time of a step", "s", 1.0, True),
    "model_tflops_per_gpu": Measure("arithmetic of the model", "TFLOP/s per GPU"),
    "mfu": Measure("model FLOP utilisation", "%", 100.0),
    "hfu": Measure("hardware FLOP utilisation", "%", 100.0),
    "peak_memory_bytes": Measure("peak memory", "GiB per GPU", 2.0**-30, True),
    "memory_capacity_bytes": Measure("memory", "GiB per GPU", 2.0**-30),
    "num_gpus": Measure("GPUs", "", 1.0, True),
    "usd_per_hour": Measure("rent", "USD/h", 1.0, True),
    "usd_per_million_tokens": Measure("cost", "USD per million tokens", 1.0, True),
    "campaign.mean_s": Measure("mean time of the whole training", "d", 1 / 86400, True),
    "campaign.p5_s": Measure("whole training, 5 % of draws are below", "d", 1 / 86400, True),
    "campaign.p95_s": Measure("whole training, 95 % of draws are below", "d", 1 / 86400, True),
    "campaign.goodput": Measure("goodput of the whole training", "%", 100.0),
    "campaign.best_interval": Measure("best interval of checkpoints", "steps"),
    "campaign.gpu_hours": Measure("whole training", "million GPU-hours", 1e-6, True),
    "campaign.cost": Measure("cost of the whole training", "million USD", 1e-6, True),
}


_PARTS: Final[dict[str, tuple[str, Callable[[str], str], str, float]]] = {
    "breakdown": ("time of {}", cause_label, "s", 1.0),
    "limited_by": ("critical path limited by {}", resource_label, "%", 100.0),
    "utilization": ("use of {}", resource_label, "%", 100.0),
    "memory": ("memory of {}", part_label, "GiB", 2.0**-30),
}
"""First part of a column's name -> how such a figure is told: words, those of what is inside, unit, scale."""


@dataclass(frozen=True, slots=True, eq=False)
class SavedSweep:
    """What the charts of a sweep are drawn from.

    Attributes:
        name: Name of the sweep.
        model: Name of the base's model.
        keys: Keys of the axes, then the derived ones.
        derived: Of them, those that follow from others.
        sampled: Of them, those whose values were drawn.
        dimensions: Key -> what it measures, None without a unit.
        units: Key -> the unit in which the sweep file writes it, None where that is several or none.
        frame: A row a point: axes, ``status``, ``reason``, figures in SI units.
        plot: What the sweep file says of the first chart.
    """

    name: str
    model: str
    keys: tuple[str, ...]
    derived: frozenset[str]
    sampled: frozenset[str]
    dimensions: Mapping[str, str | None]
    units: Mapping[str, str | None]
    frame: pd.DataFrame
    plot: Mapping[str, str]

    @classmethod
    def of(cls, name: str, about: Mapping[str, Any], frame: pd.DataFrame) -> SavedSweep:
        """From a table of points and what its ledger says of it."""
        axes = about.get("axes", [])
        return cls(
            name=name,
            model=about.get("model", ""),
            keys=tuple(axis["key"] for axis in axes),
            derived=frozenset(axis["key"] for axis in axes if axis["derived"]),
            sampled=frozenset(axis["key"] for axis in axes if axis.get("sampled")),
            dimensions={axis["key"]: axis["dimension"] for axis in axes},
            units={axis["key"]: axis.get("unit") for axis in axes},
            frame=frame,
            plot=about.get("plot", {}),
        )

    @property
    def subject(self) -> str:
        """Of what a chart speaks."""
        count = f"{len(self.frame):,} point{'s' if len(self.frame) != 1 else ''}"
        model = "" if "model" in self.keys else f"{shown(self.model, 60)}, "
        return f"{model}{count}  ({shown(self.name, 60)})"

    def varying(self) -> list[str]:
        """Axes with more than one value; of axes that go together, the first."""
        free: list[str] = []
        for key in self.keys:
            if key in self.derived or self.frame[key].nunique(dropna=False) < 2:
                continue
            # Samples of several axes differ in all of them, and yet each axis is one of its own.
            if key in self.sampled or not any(_together(self.frame, key, other) for other in free):
                free.append(key)
        return free

    def scattered(self) -> bool:
        """Whether the points lie anywhere between several axes and not on a grid of their values."""
        return len(self.varying()) > 1 and any(key in self.sampled for key in self.varying())

    def require(self, key: str) -> str:
        """The axis of that name or the one that ends with it, or else the figure that does.

        Raises:
            ClustersimError: None of these, or several.
        """
        import difflib

        ends = [str(column) for column in self.frame.columns if str(column).endswith(f".{key}")]
        mine = [column for column in ends if column in self.keys]
        if key in self.frame.columns and (key in self.keys or not mine):
            return key
        ends = mine or ends
        if len(ends) == 1:
            return ends[0]
        if ends:
            raise ClustersimError(f'plot: "{shown(key, 60)}" may be {", ".join(ends[:6])}; name one of them')
        near = difflib.get_close_matches(key, [str(c) for c in self.frame.columns], 3, 0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ClustersimError(f'plot: the sweep has no column "{shown(key, 60)}"{hint}')

    def numeric(self, key: str) -> bool:
        """Whether a column holds numbers only."""
        from pandas.api.types import is_bool_dtype, is_numeric_dtype

        column = self.frame[key].dropna()
        return is_numeric_dtype(column) and not is_bool_dtype(column) and len(column) > 0

    def measure(self, key: str) -> Measure:
        """How a column is told."""
        known = _MEASURES.get(key)
        words = key_words(key, [k for k in self.keys if k != key])
        if known is not None:
            return known
        head, _, inside = key.partition(".")
        if head in _PARTS and key not in self.keys:
            told, label, unit, scale = _PARTS[head]
            return Measure(told.format(label(inside)), unit, scale, less_is_better=head != "utilization")
        if key.endswith("_s"):
            return Measure(words, "s", 1.0, True)
        if key.endswith("_bytes"):
            return Measure(words.removesuffix(" bytes"), "GiB", 2.0**-30, True)
        if not self.numeric(key):
            return Measure(words, "")
        dimension, written = self.dimensions.get(key), self.units.get(key)
        if dimension is not None and written is not None:
            with contextlib.suppress(UnitError):
                return Measure(words, written, 1 / parse(f"1 {written}", cast("Dimension", dimension)))
        unit, scale = _unit(dimension, [float(v) for v in self.frame[key].dropna()])
        return Measure(words, unit, scale)

    def listed(self, key: str) -> Measure:
        """How the values of a column are listed: each with its own unit where they span many decades."""
        measure, dimension = self.measure(key), self.dimensions.get(key)
        if dimension not in _BASE_UNITS or not self.numeric(key):
            return measure
        values = self.frame[key].dropna()
        if not values.min() > 0 or values.max() < _DECADES * values.min():
            return measure
        return measure._replace(unit="", each=cast("Dimension", dimension))

    def nothing(self) -> str | None:
        """Why there is nothing to draw; None if there is."""
        if self.frame.empty or "bottleneck" not in self.frame:
            return "no point of the sweep has a result"
        return None if self.varying() else "no axis of the sweep has more than one value"

    def best(self) -> str | None:
        """The best point by the figure that charts show, with what it is of the axes; None without any."""
        name = self.metric()
        if name not in self.frame or not self.frame[name].notna().any():
            return None
        measure = self.measure(name)
        row = self.frame.sort_values(name, ascending=measure.less_is_better, kind="stable").iloc[0]
        places = [
            f"{key_words(key)} {value_label(row[key], self.listed(key))} {self.listed(key).unit}".strip()
            for key in self.varying()
        ]
        text = f"{value_label(row[name], measure)} {measure.unit}".strip()
        return f"{text} with {', '.join(places)}" if places else text

    def metric(self) -> str:
        """The figure that a chart shows if nobody says which."""
        frame = self.frame
        if "samples_per_s" not in frame:
            return "step_time_s"
        if (frame["tokens_per_s"].dropna() == frame["samples_per_s"].dropna()).all():
            return "samples_per_s"
        return "tokens_per_s" if frame["num_gpus"].nunique() > 1 else "tokens_per_s_per_gpu"


def key_words(key: str, others: Sequence[str] = ()) -> str:
    """A key in words: ``cluster.accelerator.memory_bandwidth`` -> ``accelerator memory bandwidth``."""
    steps = [
        step for step in key.split(".") if step not in ("cluster", "node_groups") and not step.isdecimal()
    ]
    ends = {other.split(".")[-1] for other in others}
    short = (
        steps[-1:] if steps and steps[-1] not in ends and steps[0] in ("training", "parallelism") else steps
    )
    return shown(" ".join(short).replace("_", " ").replace("flops", "rate"), 60)


def others_note(words: str, keys: Sequence[str]) -> str:
    """What stands for the axes that a chart does not show: their names, or how many there are."""
    if not keys:
        return ""
    named = ", ".join(key_words(key) for key in keys) if len(keys) <= 2 else f"{len(keys)} other axes"
    return f"; {words} {named}"


def value_label(value: object, measure: Measure) -> str:
    """A value of an axis, as short as it can be told."""
    if value is None or value != value:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)) and measure.each is not None:
        return human(value, measure.each)
    if isinstance(value, (int, float)):
        scaled = value * measure.scale
        return f"{scaled:,.0f}" if float(scaled).is_integer() or abs(scaled) >= 1000 else f"{scaled:.3g}"
    return shown(value, _LONG)


def brief(value: float) -> str:
    """A figure in as few characters as three digits take: ``12.3k``, ``4.1M``, ``0.05``."""
    size, prefix = next(((s, p) for s, p in _BRIEF if abs(value) >= 0.9995 * s), (1.0, ""))
    scaled = value / size
    return f"{scaled:.0f}{prefix}" if abs(scaled) >= 99.95 else f"{scaled:.3g}{prefix}"


def _together(frame: pd.DataFrame, one: str, other: str) -> bool:
    pairs = len(frame[[one, other]].drop_duplicates())
    return bool(pairs == frame[one].nunique(dropna=False) == frame[other].nunique(dropna=False))


def _unit(dimension: str | None, values: list[float]) -> tuple[str, float]:
    if dimension == "money_rate":
        return "USD/h", 3600.0
    if dimension == "duration":
        return next((unit for unit in _LASTING if max(values, default=0.0) * unit[1] >= 1), _LASTING[-1])
    base = _BASE_UNITS.get(dimension or "")
    if base is None:
        return "", 1.0
    largest = max(map(abs, values), default=1.0) or 1.0
    steps = _SMALL if dimension == "time" else _PREFIXES
    size, prefix = next((step for step in steps if largest >= step[0]), steps[-1])
    return prefix + base, 1 / size
