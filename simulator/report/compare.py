"""Results side by side: what is different in the scenario, and what that did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simulator.documents import load_document
from simulator.errors import ClustersimError
from simulator.report.saved import SavedResult, load_result_folder
from simulator.report.text import shown

_METRICS: Final = (
    ("step_time_s", "time of a step [s]", 1.0),
    ("tokens_per_s", "tokens/s", 1.0),
    ("tokens_per_s_per_gpu", "tokens/s per GPU", 1.0),
    ("samples_per_s", "samples/s", 1.0),
    ("mfu", "MFU [%]", 100.0),
    ("hfu", "HFU [%]", 100.0),
    ("peak_memory_bytes", "peak memory [GiB]", 2.0**-30),
    ("num_gpus", "GPUs", 1.0),
    ("campaign.mean_s", "whole training [d]", 1 / 86400),
    ("campaign.goodput", "goodput [%]", 100.0),
    ("campaign.cost", "whole training [million USD]", 1e-6),
)
_FIGURES: Final = "figures"
"""Where hardware's figures come from: told with `catalog`, too long for a comparison."""
_FEW: Final = 4
"""Changed keys of a part that are told one by one though its name changed, too."""
MOST: Final = 8
"""Results that are compared at once."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Results beside one another, the first as the yardstick.

    Attributes:
        names: Of the results, made distinct.
        results: The results.
        changes: Key of the scenario -> its value in each result, where they differ.
        figures: What is measured -> its figure in each result, in the unit that its name says.
        breakdown: Cause -> seconds of the step in each result.
    """

    names: tuple[str, ...]
    results: tuple[SavedResult, ...]
    changes: Mapping[str, tuple[str, ...]]
    figures: Mapping[str, tuple[float | None, ...]]
    breakdown: Mapping[str, tuple[float, ...]]

    def told(self) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
        """The changes, of parts that are others altogether their names only; and how many more each has."""
        changes, left_out = dict(self.changes), dict[str, int]()
        for name in [key for key in self.changes if key.endswith(".name")]:
            part = name.removesuffix("name")
            inside = [key for key in changes if key.startswith(part) and key != name]
            if len(inside) > _FEW:
                left_out[part.removesuffix(".")] = len(inside)
                changes = {key: values for key, values in changes.items() if key not in inside}
        return changes, left_out


def compare_folders(folders: Sequence[Path]) -> Comparison:
    """Compares result folders.

    Raises:
        ClustersimError: Fewer than two, more than `MOST`, or one that holds no result.
        EnvironmentFailure: One cannot be read.
    """
    if not 2 <= len(folders) <= MOST:
        raise ClustersimError(f"compare: expected 2 to {MOST} result folders, not {len(folders)}")
    results = tuple(load_result_folder(folder) for folder in folders)
    scenarios = [dict(_leaves(_scenario(folder))) for folder in folders]
    keys = list(dict.fromkeys(key for scenario in scenarios for key in scenario))
    changes = {key: tuple(scenario.get(key, "-") for scenario in scenarios) for key in keys}
    causes = dict.fromkeys(cause for result in results for cause in result.values["breakdown"])
    return Comparison(
        names=_names(folders, results),
        results=results,
        changes={key: values for key, values in changes.items() if len(set(values)) > 1 and key != "name"},
        figures={
            words: tuple(_figure(result, key, scale) for result in results)
            for key, words, scale in _METRICS
            if any(_figure(result, key, scale) is not None for result in results)
        },
        breakdown={
            cause: tuple(float(result.values["breakdown"].get(cause, 0.0)) for result in results)
            for cause in causes
        },
    )


def _figure(result: SavedResult, key: str, scale: float) -> float | None:
    """A figure of result.json, or one of a part of it."""
    head, _, inside = key.partition(".")
    value = result.values.get(head)
    value = value.get(inside) if inside and isinstance(value, Mapping) else value
    return None if value is None else value * scale


def _names(folders: Sequence[Path], results: Sequence[SavedResult]) -> tuple[str, ...]:
    """Names of the results, or of their folders where two results have the same."""
    names = [shown(result.values["name"], 40) for result in results]
    if len(set(names)) < len(names):
        names = [shown(folder.resolve().name, 40) for folder in folders]
    if len(set(names)) < len(names):
        names = [shown(folder, 40) for folder in folders]
    return tuple(name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1))


def _scenario(folder: Path) -> Any:
    path = folder / "scenario.resolved.yaml"
    return load_document(path, what="resolved scenario", limit=16 * 1024 * 1024).data


def _leaves(data: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and value in words; one node group reads as the cluster itself."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if key != _FIGURES:
                yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(data, list) and any(isinstance(item, Mapping) for item in data):
        for index, item in enumerate(data):
            alone = prefix == "cluster.node_groups" and len(data) == 1
            yield from _leaves(item, "cluster" if alone else f"{prefix}.{index}")
    else:
        yield prefix, "none" if data is None else shown(data, 60)
