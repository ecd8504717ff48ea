"""A Program does not depend on what was simulated before: kept drafts and drafts made anew are equal."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.engine import Program
from simulator.errors import PlanError
from simulator.program import Lowered, lower
from simulator.program.drafting.drafts import DRAFTS
from simulator.run import run
from simulator.scenario import Scenario, load_scenario
from simulator.specs.calibration import Calibration
from support.inputs import SHIPPED, shipped

SMALL = shipped("quickstart")

FIGURES: dict[str, tuple[Any, ...]] = {
    "cluster.accelerator.memory_bandwidth": ("2 TB/s", "3.35 TB/s", "9 TB/s"),
    "cluster.accelerator.memory_capacity": ("40 GB", "192 GB"),
    "cluster.accelerator.vector_flops": ("20 TFLOP/s", "67 TFLOP/s"),
    "cluster.accelerator.num_compute_units": (None, 100),
    "cluster.scale_up.bandwidth": ("50 GB/s", "900 GB/s"),
    "cluster.scale_up.latency": ("1 us", "9 us"),
    "cluster.scale_out.bandwidth": ("5 GB/s", "100 GB/s"),
    "cluster.fabric.oversubscription": (1.0, 2.0, 8.0),
}
PLANS: dict[str, tuple[Any, ...]] = {
    "training.steps": (1, 2),
    "training.recompute": ("none", "selective", "full"),
    "training.gradient_clipping": (True, False),
    "parallelism.tensor_parallel": (1, 2, 4),
    "parallelism.sequence_parallel": (True, False),
    "parallelism.pipeline_parallel": (1, 2),
    "parallelism.data_parallel_sharding": ("none", "optimizer", "parameters"),
    "software.cuda_graphs": (True, False),
    "training.micro_batch_size": (1, 2),
    "training.attention": ("fused", "unfused"),
    "parallelism.context_parallel": (1, 2),
    "parallelism.virtual_pipeline": (1, 2),
    "cluster.nodes": (1, 2),
}


def arrays(lowered: Lowered) -> dict[str, Any]:
    """Everything that a player or the analysis can see of a Program."""
    program, facts = lowered.program, lowered.facts
    found: dict[str, Any] = {"step_ends": lowered.step_ends, "checkpoint": lowered.checkpoint}
    parts = (program, program.capacities, program.lanes, program.pools, program.classes, facts)
    for part in parts:
        for name in part.__slots__:
            if name not in ("capacities", "lanes", "pools", "classes", "structure"):
                found[f"{type(part).__name__}.{name}"] = getattr(part, name)
    found["states"] = [state.parts for state in lowered.states]
    return found


def assert_equal(one: Lowered, other: Lowered) -> None:
    """Array for array."""
    mine, theirs = arrays(one), arrays(other)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == theirs[name].dtype, name
            assert np.array_equal(value, theirs[name]), name
        elif name == "Program.tags":
            assert value.keys() == theirs[name].keys()
            assert all(np.array_equal(value[tag], theirs[name][tag]) for tag in value), name
        else:
            assert value == theirs[name], name


def drawn(rng: random.Random, choices: dict[str, tuple[Any, ...]], count: int) -> dict[str, Any]:
    """Some keys, each with one of its values."""
    keys = rng.sample(sorted(choices), count)
    return {key: rng.choice(choices[key]) for key in keys}


def anew(scenario: Scenario) -> Lowered:
    """Lowered as in a fresh process."""
    DRAFTS.clear()
    return lower(scenario)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_changed_figures_give_what_a_fresh_process_gives(path: Path) -> None:
    rng = random.Random(path.stem)
    # Without compute units, collectives hold none: prices have another form, too.
    units: dict[str, Any] = {"cluster.accelerator.num_compute_units": None}
    changes = {**drawn(rng, FIGURES, 2), "cluster.accelerator.memory_bandwidth": "4 TB/s", **units}
    changed = load_scenario(path, changes)
    fresh = anew(changed)
    DRAFTS.clear()
    first = lower(load_scenario(path))
    assert_equal(lower(changed), fresh)
    # And back again, with the prices of the changed one in memory.
    assert_equal(lower(load_scenario(path)), first)


def test_any_walk_through_plans_and_figures_gives_what_fresh_processes_give() -> None:
    rng = random.Random(0)
    seen: list[tuple[Scenario, Lowered]] = []
    while len(seen) < 48:
        changes = {**drawn(rng, PLANS, 4), **drawn(rng, FIGURES, 2)}
        try:
            scenario = load_scenario(SMALL, changes)
            seen.append((scenario, anew(scenario)))
        except PlanError:
            continue
    DRAFTS.clear()
    for scenario, fresh in rng.sample(seen, len(seen)) + rng.sample(seen, len(seen)):
        assert_equal(lower(scenario), fresh)


def test_whatever_was_laid_out_just_before_changes_nothing() -> None:
    """Blocks, what they do in a pass and prices are kept for plans that have them in common alone."""
    across = {"cluster.nodes": 2, "parallelism.pipeline_parallel": 2}
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"model.num_key_value_heads": 16},
        {"model.tie_word_embeddings": True, "parallelism.pipeline_parallel": 2},
        {"model": "mixtral-8x7b", "parallelism.expert_parallel": 2},
        {"training.lora_rank": 16},
        {"training.frozen_layers": 4},
        {"software.fused_optimizer": False},
        {"training.precision": "fp8"},
        {"training.communication_precision": "bf16"},
        # The same tensor parallelism inside of nodes, across them, and through a core that limits.
        {**across, "parallelism.order": ["data", "context", "pipeline", "tensor"]},
        {**across, "cluster.fabric.oversubscription": 4.0},
    )
    scenarios = [load_scenario(SMALL, each) for each in changes]
    fresh = [anew(scenario) for scenario in scenarios]
    assert len({lowered.program.num_activities for lowered in fresh}) > 3
    for one, other in itertools.permutations(range(len(scenarios)), 2):
        DRAFTS.clear()
        lower(scenarios[one])
        assert_equal(lower(scenarios[other]), fresh[other])


def test_results_are_the_same_bytes_whatever_was_simulated_before() -> None:
    paths = (shipped("quickstart"), shipped("starved_vision"), shipped("mlp_adam"))
    scenarios = [load_scenario(path, {"simulation.player": "reference"}) for path in paths]
    scenarios.append(
        load_scenario(SMALL, {"simulation.player": "reference", "cluster.scale_up.bandwidth": "100 GB/s"})
    )

    def said(scenario: Scenario) -> str:
        result = run(scenario).result
        return repr(
            {name: getattr(result, name) for name in result.__slots__ if name not in ("_tables", "wall_s")}
        )

    fresh = []
    for scenario in scenarios:
        DRAFTS.clear()
        fresh.append(said(scenario))
    assert [said(scenario) for scenario in reversed(scenarios)] == fresh[::-1]
    assert len(set(fresh)) == len(fresh)


def test_programs_of_one_outline_share_their_activities_and_nobody_can_change_them() -> None:
    programs: list[Program] = [
        lower(load_scenario(SMALL, {"cluster.accelerator.memory_bandwidth": speed})).program
        for speed in ("2 TB/s", "3 TB/s")
    ]
    one, other = programs
    assert one.structure is other.structure
    assert one.lane is other.lane
    assert not np.array_equal(one.capacities.rates, other.capacities.rates)
    shared: list[Any] = [one.lane, one.cls, one.dep_ptr, one.dep, *one.tags.values(), one.classes.pool_take]
    for array in shared:
        with pytest.raises(ValueError, match="read-only"):
            array[:1] = 0


@pytest.mark.parametrize(("constant", "kept"), [("memory_fraction", True), ("driver_context", False)])
def test_a_calibration_lays_out_anew_only_what_device_memory_depends_on(constant: str, kept: bool) -> None:
    scenario, calibration = load_scenario(SMALL), Calibration.load()
    other = calibration.with_values(**{constant: calibration.constants[constant].value * 0.9})
    DRAFTS.clear()
    fresh = lower(scenario, other)
    DRAFTS.clear()
    first = lower(scenario, calibration)
    changed = lower(scenario, other)
    assert_equal(changed, fresh)
    assert (changed.program.structure is first.program.structure) == kept
    assert len(DRAFTS) == 2 - kept


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    size = lower(load_scenario(SMALL)).program.num_activities
    DRAFTS.clear()
    monkeypatch.setattr(DRAFTS, "most_activities", 3 * size)
    kept = []
    for changes in ({}, {"training.steps": 2}, {"training.gradient_clipping": False}):
        lower(load_scenario(SMALL, changes))
        kept.append(len(DRAFTS))
    assert kept == [1, 2, 2]
    monkeypatch.setattr(DRAFTS, "most_activities", size - 1)
    lower(load_scenario(SMALL))
    assert len(DRAFTS) == 0
