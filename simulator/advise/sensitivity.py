"""Sensitivity: what every figure of the hardware would be worth if it were better or worse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from simulator.analysis import Result
from simulator.errors import PlanError, ScenarioError
from simulator.run import simulate
from simulator.scenario import Scenario
from simulator.specs._base import Quantity
from simulator.units import render

FACTORS: Final = (0.5, 0.9, 1.1, 2.0)
"""Times the figure: what is tried of each."""

_PARTS: Final = ("accelerator", "scale_up", "scale_out", "host")
_LESS_IS_BETTER: Final = frozenset({"latency", "oversubscription"})
_OF_NO_SPEED: Final = frozenset({"price_per_hour", "num_links", "boost_clock"})
"""Figures that no time rests on, or that say where others hold: peak rates, at the boost clock."""
_OVERSUBSCRIPTION: Final = "cluster.fabric.oversubscription"
_FURTHEST: Final = 64.0
"""How far a figure is improved in search of what limits next."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Effect:
    """What one figure is worth.

    Attributes:
        key: Its key in the scenario.
        value: As it is, with its unit.
        less_is_better: Whether a smaller figure is the better one.
        change: Factor on the figure -> relative change of throughput; None where the model does not fit,
            or the plan is refused. Factors that leave a whole number as it is are left out.
    """

    key: str
    value: str
    less_is_better: bool
    change: dict[float, float | None]

    @property
    def elasticity(self) -> float:
        """Percent of throughput for one percent of the figure, from the smallest change that helps."""
        helpful = (0.9, 0.5) if self.less_is_better else (1.1, 2.0)
        factor = next((factor for factor in helpful if factor in self.change), 1.1)
        return (self.change.get(factor) or 0.0) / abs(factor - 1)

    @property
    def reach(self) -> float:
        """The largest change of throughput that any factor makes; what ranks figures."""
        return max((abs(c) if c is not None else 1.0 for c in self.change.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class Turning:
    """How far what limits must improve before something else does.

    Attributes:
        key: The figure that is worth most.
        limits: Kind of capacity that limits now.
        factor: Times the figure, at which something else limits first.
        value: The figure there, with its unit.
        next: What limits there; None if it is still the same at 64 times the figure.
        speedup: Throughput there over that of now.
    """

    key: str
    limits: str
    factor: float
    value: str
    next: str | None
    speedup: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Figures ranked by what they are worth, and what would have to improve by how much.

    Attributes:
        result: The scenario as it is.
        effects: The most valuable figure first.
        turning: None where no figure helps.
    """

    result: Result
    effects: tuple[Effect, ...]
    turning: Turning | None


@dataclass(frozen=True, slots=True)
class _Figure:
    """A figure and how it is told."""

    key: str
    value: float
    dimension: Any

    @property
    def less_is_better(self) -> bool:
        return self.key.rpartition(".")[2] in _LESS_IS_BETTER

    def times(self, factor: float) -> float:
        """The figure times a factor; what is counted stays a whole number."""
        return _times(self.value, factor)

    def told(self, factor: float = 1.0) -> str:
        value = float(f"{self.times(factor):.4g}") if factor != 1.0 else self.value
        return render(value, self.dimension) if self.dimension else f"{value:g}"


def sensitivity(scenario: Scenario, *, progress: Progress | None = None) -> Sensitivity:
    """Simulates the scenario with every hardware figure at half, -10 %, +10 % and twice its value.

    Everything is planned and priced again each time, so that what a figure changes anywhere is counted:
    latencies, whether the model fits, which algorithm a collective takes.

    Args:
        scenario: From `load_scenario`; several node groups change together.
        progress: Told the part done and the figure that is tried.

    Raises:
        ScenarioError: The scenario itself cannot be simulated.
    """
    tell, scenario = progress or (lambda _, __: None), _repeated(scenario.changed({"campaign": None}))
    base, figures = simulate(scenario), list(_figures(scenario))
    effects = []
    for number, figure in enumerate(figures):
        tell(number / (len(figures) + 1), figure.key)
        factors = [factor for factor in FACTORS if figure.times(factor) != figure.value]
        change = {factor: _change(base, _tried(scenario, figure, factor)) for factor in factors}
        effects.append(Effect(figure.key, figure.told(), figure.less_is_better, change))
    order = sorted(
        range(len(effects)), key=lambda i: (-effects[i].elasticity, -effects[i].reach, figures[i].key)
    )
    tell(len(figures) / (len(figures) + 1), "what limits next")
    best = order[0] if order and effects[order[0]].elasticity > 0 else None
    turning = _turning(scenario, base, figures[best]) if best is not None else None
    return Sensitivity(base, tuple(effects[i] for i in order), turning)


def _figures(scenario: Scenario) -> Iterator[_Figure]:
    """Every figure of the hardware that has a number, of the first node group as the others follow it."""
    group = scenario.cluster.node_groups[0]
    for part in _PARTS:
        spec: BaseModel = getattr(group, part)
        for name, value, dimension in _numbers(spec):
            if name.startswith("peak_flops.") and name != f"peak_flops.{scenario.training.precision}":
                continue
            yield _Figure(f"cluster.{part}.{name}", value, dimension)
    for key in ("storage", "drives"):
        stored = getattr(scenario.cluster, key)
        if stored is not None:
            for name, value, dimension in _numbers(stored):
                yield _Figure(f"cluster.{key}.{name}", value, dimension)
    if scenario.cluster.fabric.oversubscription > 1:
        over = scenario.cluster.fabric.oversubscription
        yield _Figure(_OVERSUBSCRIPTION, over, None)


def _numbers(spec: BaseModel) -> Iterator[tuple[str, float, Any]]:
    for name, field in type(spec).model_fields.items():
        value = getattr(spec, name)
        if name in _OF_NO_SPEED or isinstance(value, (bool, str)) or value is None:
            continue
        dimension = _dimension(field)
        if isinstance(value, dict) and dimension is not None:
            yield from ((f"{name}.{inner}", float(v), dimension) for inner, v in value.items())
        elif isinstance(value, (int, float)) and value > 0:
            yield name, value, dimension


def _dimension(field: Any) -> Any:
    from typing import get_args

    waiting: list[Any] = [*field.metadata, field.annotation]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Quantity):
            return part.dimension
        waiting += [*get_args(part), *getattr(part, "__metadata__", ())]
    return None


def _tried(scenario: Scenario, figure: _Figure, factor: float) -> Result | None:
    """The result with one figure changed, in all node groups that have it; None if the plan is refused."""

    def scaled(value: float) -> float:
        return max(1.0, value * factor) if figure.key == _OVERSUBSCRIPTION else _times(value, factor)

    try:
        return simulate(scenario.changed({figure.key: scaled}))
    except (ScenarioError, PlanError):
        return None


def _times(value: float, factor: float) -> float:
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor


def _change(base: Result, other: Result | None) -> float | None:
    """Relative change of throughput, by the time of a step."""
    if other is None or not other.fits:
        return None
    return base.step_time_s / other.step_time_s - 1 + 0.0


def _turning(scenario: Scenario, base: Result, figure: _Figure) -> Turning | None:
    """Improves a figure until another kind of capacity limits more of the critical path; within 1 %."""
    limits = base.bottlenecks[0].resource

    def at(factor: float) -> Result | None:
        return _tried(scenario, figure, 1 / factor if figure.less_is_better else factor)

    low, high = 1.0, 2.0
    found = at(high)
    while found is not None and found.bottlenecks[0].resource == limits and high < _FURTHEST:
        low, high = high, high * 2
        found = at(high)
    if found is None:
        return None
    if found.bottlenecks[0].resource != limits:
        while high / low > 1.01:
            middle = (low * high) ** 0.5
            tried = at(middle)
            if tried is not None and tried.bottlenecks[0].resource != limits:
                high, found = middle, tried
            else:
                low = middle
    following = found.bottlenecks[0].resource
    factor = 1 / high if figure.less_is_better else high
    return Turning(
        key=figure.key,
        limits=limits,
        factor=max(ratio := figure.times(factor) / figure.value, 1 / ratio),
        value=figure.told(factor),
        next=following if following != limits else None,
        speedup=base.step_time_s / found.step_time_s,
    )


def _repeated(scenario: Scenario) -> Scenario:
    """The scenario on the compiled player, whose loading many simulations in a row pay for."""
    if scenario.simulation.player != "auto":
        return scenario
    return scenario.changed({"simulation.player": "compiled"})
