"""Plan search against brute force, and its bounds against what they bound."""

import json
import math

import pytest

from simulator import load_scenario, simulate
from simulator.advise import plan_space, planned_scenario, plans, search_plans
from simulator.advise.bounds import Prices, bounds
from simulator.cli import main
from simulator.errors import ClustersimError, PlanError
from simulator.specs.calibration import Calibration
from support.inputs import shipped

QUICKSTART = shipped("quickstart")


def job(**changes):
    small = {
        "model": {"base": "llama3-8b", "num_hidden_layers": 4},
        "training.sequence_length": 2048,
        "training.global_batch_size": 8,
        "simulation.warmup_steps": 0,
        "simulation.player": "compiled",
        # Room for some plans only.
        "cluster.accelerator.memory_capacity": "14 GiB",
    }
    return load_scenario(
        QUICKSTART, {**small, **{key.replace("__", "."): value for key, value in changes.items()}}
    )


@pytest.fixture(scope="module")
def brute():
    """Every plan of a small space, simulated."""
    scenario, found = job(), []
    for number, overrides in enumerate(plan_space(scenario, 8)):
        try:
            found.append((number, overrides, simulate(planned_scenario(scenario, overrides))))
        except ClustersimError:
            continue
    return scenario, found


@pytest.mark.parametrize("objective", ["throughput", "throughput_per_gpu"])
def test_the_search_finds_what_brute_force_finds(brute, objective):
    scenario, every = brute
    fitting = [(n, o, r) for n, o, r in every if r.fits]
    assert 10 < len(fitting) < len(every)
    per = (
        (lambda r: r.samples_per_s / r.num_gpus) if objective != "throughput" else (lambda r: r.samples_per_s)
    )
    ranked = sorted(fitting, key=lambda plan: (-per(plan[2]), plan[2].num_gpus, plan[0]))[:10]
    found = search_plans(scenario, 8, objective=objective)
    assert [plan.overrides for plan in found.best] == [overrides for _, overrides, _ in ranked]
    assert [plan.result.step_time_s for plan in found.best] == [r.step_time_s for *_, r in ranked]
    assert found.simulated < len(every), "nothing was pruned"
    counted = found.illegal + found.without_memory + found.bounded + found.simulated
    assert counted == found.enumerated == sum(1 for _ in plan_space(scenario, 8))


def test_no_step_is_shorter_than_its_bound_and_no_peak_below_its_own(brute):
    scenario, every = brute
    calibration, prices = Calibration.load(), {}
    ratios = []
    for _, overrides, result in every:
        bound = bounds(planned_scenario(scenario, overrides), calibration, prices)
        assert bound.memory_bytes <= result.peak_memory_bytes
        if not bound.can_fit:
            assert not result.fits
        if bound.can_fit:
            ratios.append(bound.step_s / result.step_time_s)
    assert len(ratios) > 20 and max(ratios) <= 1.0
    assert min(ratios) > 0.5, "a bound that says little prunes little"


def test_layers_that_do_not_divide_are_spread_and_the_search_is_exact():
    scenario = job(
        model={"base": "llama3-8b", "num_hidden_layers": 5},
        cluster__gpus_per_node=4,
        cluster__accelerator__memory_capacity="40 GiB",
        parallelism__tensor_parallel=1,
        parallelism__sequence_parallel=False,
    )
    every = []
    for number, overrides in enumerate(plan_space(scenario, 4)):
        planned = planned_scenario(scenario, overrides)
        try:
            result = simulate(planned)
        except ClustersimError:
            continue
        bound = bounds(planned, Calibration.load(), Prices())
        assert bound.step_s <= result.step_time_s * (1 + 1e-9), overrides
        if result.fits:
            every.append((-result.samples_per_s, number, overrides))
    uneven = [o for *_, o in every if o["parallelism.pipeline_parallel"] in (2, 4)]
    assert uneven, "pipelines of 5 layers over 2 and 4 stages are in the space"
    found = search_plans(scenario, 4)
    assert [plan.overrides for plan in found.best] == [o for *_, o in sorted(every, key=lambda p: p[:2])[:10]]
    assert found.own is not None
    assert found.own.samples_per_s == pytest.approx(simulate(scenario).samples_per_s)


def test_prices_that_are_kept_change_no_bound(brute):
    scenario, every = brute
    calibration, prices = Calibration.load(), {}
    for _, overrides, _ in every[::7]:
        changed = planned_scenario(scenario, overrides)
        assert bounds(changed, calibration, prices) == bounds(changed, calibration)


def test_plans_of_the_space_are_the_scenarios_that_their_overrides_make(brute):
    every = brute[1]
    _, overrides, result = every[len(every) // 2]
    assert simulate(job(**overrides)).step_time_s == result.step_time_s


def test_a_plan_says_what_undoes_the_scenarios_own():
    """What the scenario says of its own plan, and another decides otherwise, is among the settings."""
    own = {"parallelism.data_parallel": 2, "parallelism.pipeline_schedule": "gpipe"}
    scenario = job(**{"parallelism.tensor_parallel": 2, "parallelism.pipeline_parallel": 2, **own})
    best = search_plans(scenario, 8).best[0]
    assert best.settings == {**best.overrides, **dict.fromkeys(own)}
    assert simulate(scenario.changed(best.settings)).step_time_s == best.result.step_time_s
    assert search_plans(job(), 8).best[0].settings == best.overrides


def test_where_no_plan_fits_the_least_that_one_needs_is_told():
    scenario = job(**{"cluster.accelerator.memory_capacity": "1 GB"})
    found = search_plans(scenario, 8)
    assert not found.best
    needs = []
    for overrides in plan_space(scenario, 8):
        try:
            needs.append(simulate(planned_scenario(scenario, overrides)).peak_memory_bytes)
        except ClustersimError:
            continue
    assert 1e9 < found.least_bytes <= min(needs)


def test_plans_that_overfill_a_nodes_memory_are_not_found():
    """Replicas that share nothing out each have their own optimizer's state in the node's memory."""
    away = {
        "cluster.accelerator.memory_capacity": "80 GB",
        "training.offload.optimizer": "host",
        "parallelism.data_parallel_sharding": "none",
    }
    scenario = job(**away, cluster__host__memory_capacity="30 GB")
    found = search_plans(scenario, 8)
    assert found.too_large > 0
    assert found.best and all(plan.result.fits for plan in found.best)
    assert not simulate(scenario).fits and simulate(job(**away)).fits


def test_illegal_plans_are_told_by_the_planner():
    with pytest.raises(PlanError):
        bounds(job(parallelism__tensor_parallel=3), Calibration.load())


def test_a_limit_below_one_node_is_refused():
    with pytest.raises(ClustersimError, match="4 GPUs are less than one node of 8"):
        search_plans(job(), 4)


def test_prices_that_are_kept_tell_who_passes_the_core_together():
    """The ring of a split sequence leaves the node; more stages, fewer GPUs that pass the core at a time."""
    spread = {
        "cluster__nodes": 2,
        "cluster__fabric__oversubscription": 64.0,
        "cluster__accelerator__memory_capacity": "80 GB",
        "parallelism__tensor_parallel": 4,
        "parallelism__context_parallel": 2,
        "parallelism__order": ["tensor", "pipeline", "data", "context"],
    }
    jobs = [job(**spread, parallelism__pipeline_parallel=stages) for stages in (1, 2)]
    calibration = Calibration.load()
    for order in (jobs, jobs[::-1]):
        prices = Prices()
        for each in order:
            found = bounds(each, calibration, prices)
            assert found == bounds(each, calibration)
            assert 0 < found.step_s <= simulate(each).step_time_s


MODELS = {
    "dense": {},
    "tied": {"model": {"base": "llama3-8b", "num_hidden_layers": 4, "tie_word_embeddings": True}},
    "experts": {
        "model": {"base": "mixtral-8x7b", "num_hidden_layers": 4},
        "cluster.accelerator.memory_capacity": "80 GB",
        "parallelism.expert_parallel": 2,
    },
    "split sequences": {"parallelism.context_parallel": 2},
    "adapters": {"training.lora_rank": 8},
    "other order": {"parallelism.order": ["data", "tensor", "context", "pipeline"]},
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("objective", ["throughput", "throughput_per_gpu"])
def test_a_rough_bound_promises_no_less_than_a_close_one(objective, kind):
    scenario, known = job(training__global_batch_size=16, **MODELS[kind]), Prices()
    looked = 0
    for roughly, gpus, _, overrides in plans._Waiting(scenario, 16, objective).plans:
        try:
            found = bounds(planned_scenario(scenario, overrides), Calibration.load(), known)
        except PlanError:
            continue
        if found.can_fit:
            score = 16 / found.step_s / (gpus if objective == "throughput_per_gpu" else 1)
            assert -math.inf < roughly <= -score, overrides
            looked += 1
    assert looked > 20


def test_the_command_takes_the_scenarios_gpus_if_none_are_given(capsys):
    known = []
    for more in ([], ["--max-gpus", "8"]):
        assert main(["plan", str(QUICKSTART), "--json", *more]) == 0
        told = json.loads(capsys.readouterr().out)
        known.append({key: value for key, value in told.items() if not key.endswith("_s")})
    assert known[0] == known[1]
