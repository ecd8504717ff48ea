"""Jitter and slow GPUs: draws, exactness against the unfolded Program, and what is reported."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from simulator.analysis import StepTimes
from simulator.engine import play
from simulator.engine.vectors import contention, plan_vectors, sweep_vectors
from simulator.errors import ScenarioError
from simulator.program import Lowered, lower, unfold
from simulator.run import run, simulate
from simulator.scenario import Scenario, load_scenario, scenario_from_mapping
from simulator.specs import DistributionSpec
from simulator.variation import Draws, assign_rows, disturbed
from simulator.variation.draws import _sample
from simulator.variation.spread import _alone, shared_capacities
from support.inputs import shipped

JITTER = {
    "simulation.jitter.kernels.sigma": "5 %",
    "simulation.jitter.links.sigma": "10 %",
    "simulation.jitter.nodes.sigma": "3 %",
}
PLAIN = {
    "training.global_batch_size": "16",
    "data": "null",
    "parallelism.tensor_parallel": "1",
    "parallelism.sequence_parallel": "false",
    "parallelism.overlap_gradient_reduction": "false",
}
"""One GPU a replica, reductions after the backward pass: nothing overlaps."""


def quickstart(**changes: str) -> Scenario:
    return load_scenario(shipped("quickstart"), {k.replace("__", "."): v for k, v in changes.items()})


def swept(scenario: Scenario, lowered: Lowered, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends of all activities of all replicas by the vector sweep, and the factors."""
    rows = assign_rows(lowered, each_pass=True)
    factors = Draws(scenario, lowered.plan, rows).factors(range(draws))
    ends = np.zeros((lowered.program.num_activities, factors.shape[1]))
    sweep_vectors(
        plan_vectors(lowered.program),
        _alone(lowered.program),
        factors,
        row=rows.row,
        meet=rows.meet,
        groups=rows.groups,
        mark=np.full(lowered.program.num_activities, -1, np.int32),
        marks=1,
        ends=ends,
    )
    return ends, factors


def mismatches(scenario: Scenario, player: str, draws: int = 3) -> tuple[str, int]:
    """Why vectors may not be used, and how many ends differ from those of the unfolded Program."""
    lowered = lower(scenario)
    replicas = lowered.plan.data_parallel
    ends, factors = swept(scenario, lowered, draws)
    every = unfold(lowered, "replica", shared="whole")
    row = np.where(every.copy >= 0, assign_rows(lowered, each_pass=True).row[every.origin], -1)
    real, wrong = every.copy >= 0, 0
    for draw in range(draws):
        table = factors[:, draw * replicas : (draw + 1) * replicas]
        program = disturbed(every.lowered.program, np.where(row >= 0, table[row, every.copy], 1.0))
        record = play(program, player)  # type: ignore[arg-type]
        mine = ends[every.origin[real], draw * replicas + every.copy[real]]
        wrong += int((mine != record.end[real]).sum())
    return contention(lowered.program, shared_capacities(lowered.program)), wrong


@pytest.mark.parametrize("player", ["reference", "compiled"])
def test_vectors_give_the_times_of_the_unfolded_program_exactly(player: str) -> None:
    few = PLAIN | {"training.global_batch_size": "8"} if player == "reference" else PLAIN
    why, wrong = mismatches(quickstart(**few, **JITTER), player, draws=1 if player == "reference" else 3)
    assert why == ""
    assert wrong == 0


def test_loading_that_storage_can_serve_is_swept_exactly() -> None:
    fast = {"cluster.storage.read_iops": "1000000000 IOPS", "cluster.storage.read_bandwidth": "1 TB/s"}
    loading = {name: value for name, value in PLAIN.items() if name != "data"}
    why, wrong = mismatches(quickstart(**loading, **fast, **JITTER), "compiled")
    assert (why, wrong) == ("", 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"parallelism.tensor_parallel": "2", "parallelism.sequence_parallel": "true"},
        {"parallelism.pipeline_parallel": "2", "cluster.scale_up.bandwidth": "5 GB/s"},
        {"parallelism.data_parallel_sharding": "parameters"},
        {"parallelism.overlap_gradient_reduction": "true"},
    ],
)
def test_what_contends_is_not_swept(changes: dict[str, str]) -> None:
    why, wrong = mismatches(quickstart(**(PLAIN | changes), **JITTER), "compiled")
    assert "contend for" in why
    assert wrong > 0


def test_contended_replicas_take_the_same_times_on_both_players() -> None:
    scenario = quickstart(**{"training.global_batch_size": "4", "data": "null"}, **JITTER)
    lowered = lower(scenario)
    every = unfold(lowered, "replica", shared="whole")
    factor = np.exp(0.05 * np.random.default_rng(1).standard_normal(len(every.origin)))
    program = disturbed(every.lowered.program, np.where(every.copy >= 0, factor, 1.0))
    reference, compiled = play(program, "reference"), play(program, "compiled")
    assert len(compiled.segment_start) > 0
    assert np.array_equal(reference.start, compiled.start)
    assert np.array_equal(reference.end, compiled.end)


def test_a_stretched_activity_takes_its_factor_to_the_picosecond() -> None:
    lowered = lower(quickstart(**PLAIN))
    factor = np.exp(0.3 * np.random.default_rng(2).standard_normal(lowered.program.num_activities))
    record = play(disturbed(lowered.program, factor), "compiled")
    assert np.array_equal(record.end - record.start, np.ceil(factor * _alone(lowered.program)))


def test_factors_of_one_change_nothing() -> None:
    lowered = lower(quickstart())
    same = play(disturbed(lowered.program, np.ones(lowered.program.num_activities)), "compiled")
    assert np.array_equal(same.end, play(lowered.program, "compiled").end)


@pytest.mark.parametrize("kind", ["lognormal", "gamma", "uniform"])
@pytest.mark.parametrize("sigma", [0.01, 0.3])
def test_distributions_have_mean_one_and_their_sigma(kind: str, sigma: float) -> None:
    spec = DistributionSpec(distribution=kind, sigma=sigma)  # type: ignore[arg-type]
    drawn = _sample(spec, np.random.Generator(np.random.SFC64(7)), (400_000,))
    assert drawn.min() > 0
    assert drawn.mean() == pytest.approx(1.0, abs=5 * sigma / np.sqrt(400_000))
    assert drawn.std() == pytest.approx(sigma, rel=0.01)


def test_draws_are_independent_of_how_many_and_of_one_another() -> None:
    scenario = quickstart(**PLAIN, **JITTER)
    lowered = lower(scenario)
    rows = assign_rows(lowered, each_pass=True)
    draws = Draws(scenario, lowered.plan, rows)
    every, third = draws.factors(range(4)), draws.factors([2])
    assert np.array_equal(every[:, 16:24], third)
    assert not np.array_equal(every[:, :8], third)
    without = quickstart(**PLAIN, **{k: v for k, v in JITTER.items() if "links" not in k})
    kernels_only = Draws(without, lowered.plan, rows).factors([2])
    assert np.array_equal(kernels_only[: rows.passes], third[: rows.passes])
    assert (kernels_only[rows.passes :] == 1).all()


def spread(scenario: Scenario) -> StepTimes:
    times = simulate(scenario).step_times
    assert times is not None
    return times


def test_a_slow_gpu_slows_the_step_by_its_kernels() -> None:
    """All replicas wait for the slow one: the step grows by the slowdown of its kernels, and nothing else."""
    slow = {"cluster.slow_gpus.ranks": "[5]", "cluster.slow_gpus.slowdown": "20 %"}
    outcome = run(quickstart(**PLAIN, **slow))
    times, lowered = outcome.result.step_times, outcome.lowered
    assert times is not None
    causes = [label.cause for label in lowered.program.classes.labels]
    kernel = np.array([c.startswith("compute.") or c == "optimizer" for c in causes])[lowered.program.cls]
    kernels = int((outcome.record.end - outcome.record.start)[kernel].sum()) / 1e12
    assert times.mean_s - times.undisturbed_s == pytest.approx(0.2 * kernels, rel=0.02)
    assert times.slowest_replica_s == pytest.approx(7 / 8 * (times.mean_s - times.undisturbed_s), rel=0.02)
    assert times.p50_s == times.p99_s == times.mean_s
    assert outcome.result.breakdown["stragglers"] == pytest.approx(times.mean_s - times.undisturbed_s)
    assert outcome.result.step_time_s == pytest.approx(times.mean_s, rel=1e-12)


def test_the_median_step_is_the_median_of_the_slowest_node() -> None:
    """Nodes vary alone and each holds a replica: the step follows the largest of 16 lognormal factors."""
    one_gpu_nodes = {"cluster.nodes": "16", "cluster.gpus_per_node": "1", "simulation.seeds": "4000"}
    sigma = 0.05
    changes = PLAIN | one_gpu_nodes | {"simulation.jitter.nodes.sigma": str(sigma)}
    outcome = run(quickstart(**changes))
    times = outcome.result.step_times
    assert times is not None
    transfers = sum(v for k, v in outcome.result.breakdown.items() if k.startswith(("communication", "host")))
    kernels = times.undisturbed_s - transfers
    deviation = np.sqrt(np.log1p(sigma**2))
    for part, found in ((0.5, times.p50_s), (0.95, times.p95_s)):
        largest = np.exp(deviation * NormalDist().inv_cdf(part ** (1 / 16)) - deviation**2 / 2)
        assert found == pytest.approx(transfers + kernels * largest, rel=0.003)


def test_undisturbed_lengths_are_near_the_exact_ones() -> None:
    changes = {"training.global_batch_size": "8", "data": "null", "simulation.seeds": "4"}
    changes |= {"simulation.jitter.kernels.sigma": "1 %", "simulation.player": "compiled"}
    exact = spread(quickstart(**changes))
    near = spread(quickstart(**changes, **{"simulation.jitter.contention": "undisturbed"}))
    assert exact.method.startswith("every replica played by events")
    assert near.method.startswith("replicas swept as vectors with the lengths")
    # 1 % jitter moves overlaps by as little: what that changes is of second order.
    assert near.mean_s == pytest.approx(exact.mean_s, rel=1e-3)
    assert near.undisturbed_s == exact.undisturbed_s


def test_percentiles_rise_and_more_jitter_costs_more() -> None:
    base = PLAIN | {"simulation.seeds": "50"}
    small = spread(quickstart(**base, **{"simulation.jitter.kernels.sigma": "1 %"}))
    large = spread(quickstart(**base, **{"simulation.jitter.kernels.sigma": "5 %"}))
    for times in (small, large):
        assert times.samples == 50
        assert times.p50_s <= times.p95_s <= times.p99_s
        assert times.method.startswith("replicas swept as vectors, exact")
        assert 0 < times.slowest_replica_s < times.mean_s
    assert large.slowest_replica_s > 3 * small.slowest_replica_s


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cluster.slow_gpus.ranks": "[8]", "cluster.slow_gpus.slowdown": "0.5"}, "there is no rank 8"),
        ({"cluster.slow_gpus.count": "9", "cluster.slow_gpus.slowdown": "0.5"}, "9 of 8 GPUs"),
        ({"cluster.slow_gpus.slowdown": "0.5"}, 'either "ranks" or "count"'),
        ({"cluster.slow_gpus.ranks": "[]", "cluster.slow_gpus.slowdown": "0.5"}, "at least one rank"),
        ({"cluster.slow_gpus.ranks": "[3, 3]", "cluster.slow_gpus.slowdown": "0.5"}, "each once"),
        ({"simulation.seeds": "10"}, "every draw would be the same"),
        ({"simulation.seeds": "10", "simulation.jitter": "{}"}, "every draw would be the same"),
        ({"simulation.jitter.kernels.sigma": "-1 %"}, "more than 0"),
        ({"simulation.jitter.kernels.sigma": "nan %"}, "finite"),
        ({"simulation.jitter.kernels": "{distribution: uniform, sigma: 0.9}"}, "57.7 %"),
        ({"simulation.jitter.kernels.sigma": "1 %", "simulation.seeds": "100000"}, "undisturbed"),
    ],
)
def test_what_makes_no_sense_or_takes_too_long_is_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        simulate(quickstart(**changes))


@pytest.mark.parametrize("changes", [{}, {"parallelism.pipeline_parallel": "2"}])
def test_lengths_of_the_undisturbed_run_give_its_times_back(changes: dict[str, str]) -> None:
    lowered = lower(quickstart(**changes))
    record, count = play(lowered.program, "compiled"), lowered.program.num_activities
    assert len(record.segment_start) > 0
    rows, replicas = assign_rows(lowered, each_pass=False), lowered.plan.data_parallel
    ends = np.zeros((count, replicas))
    sweep_vectors(
        plan_vectors(lowered.program),
        (record.end - record.start).astype(np.float64),
        np.ones((rows.count, replicas)),
        row=rows.row,
        meet=rows.meet,
        groups=rows.groups,
        mark=np.full(count, -1, np.int32),
        marks=1,
        ends=ends,
    )
    assert (ends == record.end[:, None]).all()


def two_ways(**simulation: object) -> Scenario:
    """Four stages at both ends of which the model lies, two replicas."""
    return scenario_from_mapping(
        {
            "name": "two ways",
            "cluster": {"system": "dgx-h100", "nodes": 1, "slow_gpus": simulation.pop("slow_gpus", None)},
            "model": {"base": "gpt2-124m", "num_hidden_layers": 4},
            "training": {"sequence_length": 512, "micro_batch_size": 1, "global_batch_size": 16},
            "parallelism": {"pipeline_parallel": 4, "pipeline_schedule": "dualpipe"},
            "simulation": simulation,
        }
    )


def test_replicas_that_hold_the_model_twice_differ_and_meet() -> None:
    """Without jitter as when every rank stands for itself; a slow GPU holds up both replicas."""
    alone = run(two_ways(fold="off")).result.step_time_s
    slow = run(two_ways(slow_gpus={"ranks": [0], "slowdown": "100 %"})).result.step_times
    assert slow is not None and slow.undisturbed_s == pytest.approx(alone, rel=1e-9)
    assert slow.undisturbed_s < slow.mean_s < 2.2 * slow.undisturbed_s
    everyone = run(two_ways(slow_gpus={"ranks": list(range(8)), "slowdown": "100 %"})).result.step_times
    assert everyone is not None and slow.mean_s <= everyone.mean_s
    spread = run(two_ways(jitter={"kernels": {"sigma": "10 %"}}, seeds=20)).result.step_times
    assert spread is not None and spread.p50_s > spread.undisturbed_s
    assert spread.slowest_replica_s > 0


def test_both_ends_that_meet_are_not_swept() -> None:
    jitter = {"kernels": {"sigma": "10 %"}, "contention": "undisturbed"}
    with pytest.raises(ScenarioError, match="dualpipe holds the model at both ends of the pipeline"):
        run(two_ways(jitter=jitter))
