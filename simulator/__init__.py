"""clustersim: a discrete-event simulator of clusters that train large models.

from simulator import load_scenario, simulate

result = simulate(load_scenario("scenarios/quickstart.yaml"))
print(result.tokens_per_s_per_gpu, result.bottlenecks[0])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.analysis import Result
    from simulator.run import simulate
    from simulator.scenario import Scenario, load_scenario
    from simulator.sweep import load_sweep

__all__ = ["Result", "Scenario", "load_scenario", "load_sweep", "simulate"]

_HOMES = {
    "Result": "simulator.analysis",
    "Scenario": "simulator.scenario",
    "load_scenario": "simulator.scenario",
    "load_sweep": "simulator.sweep",
    "simulate": "simulator.run",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that ``clustersim --help`` answers at once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
