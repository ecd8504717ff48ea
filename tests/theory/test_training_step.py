"""A whole training step against what theory says of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from simulator.run import run
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.specs.calibration import Calibration

LAYERS, HIDDEN, SEQUENCE, VOCABULARY = 16, 4096, 2048, 32000


def scenario(**changes: Any) -> Scenario:
    """A transformer on a machine whose figures are round; keys are dotted with double underscores."""
    link = {"name": "link", "bandwidth": "400 GB/s", "latency": "1 us"}
    mapping: dict[str, Any] = {
        "name": "theory",
        "cluster": {
            "nodes": 1,
            "gpus_per_node": 8,
            "accelerator": {
                "name": "round",
                "peak_flops": {"bf16": "1 PFLOP/s", "fp32": "100 TFLOP/s"},
                "vector_flops": "100 TFLOP/s",
                "memory_capacity": "200 GB",
                "memory_bandwidth": "4 TB/s",
                "num_compute_units": 128,
            },
            "scale_up": dict(link),
            "scale_out": dict(link, bandwidth="50 GB/s"),
            "host": {
                "name": "host",
                "cpu_cores": 64,
                "memory_capacity": "1 TB",
                "memory_bandwidth": "400 GB/s",
                "pcie_bandwidth": "64 GB/s",
                "storage_bandwidth": "50 GB/s",
            },
        },
        "model": {
            "kind": "transformer",
            "name": "theory",
            "num_hidden_layers": LAYERS,
            "hidden_size": HIDDEN,
            "intermediate_size": 4 * HIDDEN,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "head_dim": 128,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": SEQUENCE,
        },
        "training": {
            "sequence_length": SEQUENCE,
            "micro_batch_size": 1,
            "global_batch_size": 8,
            "gradient_clipping": False,
        },
        "parallelism": {},
    }
    for key, value in changes.items():
        block = mapping
        *path, last = key.split("__")
        for name in path:
            block = block[name]
        block[last] = value
    return scenario_from_mapping(mapping)


def test_model_arithmetic_is_megatrons_formula() -> None:
    """72 B s l h^2 (1 + s/6h + V/12lh) without recomputation; causal attention counts half of the scores."""
    result = run(scenario()).result
    assert result.model_tflops_per_gpu is not None
    counted = result.model_tflops_per_gpu * 1e12 * result.step_time_s
    layer = 72 * SEQUENCE * LAYERS * HIDDEN**2
    scores = 72 * SEQUENCE * LAYERS * HIDDEN**2 * SEQUENCE / (6 * HIDDEN) / 2
    head = 6 * SEQUENCE * HIDDEN * VOCABULARY
    assert math.isclose(counted, layer + scores + head, rel_tol=2e-3)


def test_full_recomputation_adds_a_forward_pass_of_the_layers() -> None:
    plain, again = (run(scenario(training__recompute=mode)).result for mode in ("none", "full"))
    assert plain.mfu is not None and plain.hfu is not None and again.hfu is not None and again.mfu is not None
    ratio = (again.hfu * again.step_time_s) / (plain.hfu * plain.step_time_s)
    head = 6 * SEQUENCE * HIDDEN * VOCABULARY
    layers = 72 * SEQUENCE * LAYERS * HIDDEN**2 * (1 + SEQUENCE / (12 * HIDDEN))
    assert math.isclose(ratio, (layers * 4 / 3 + head) / (layers + head), rel_tol=5e-3)
    assert math.isclose(again.mfu * again.step_time_s, plain.mfu * plain.step_time_s, rel_tol=1e-12)
    assert again.peak_memory_bytes < plain.peak_memory_bytes


@pytest.mark.parametrize(("stages", "micro_batches"), [(2, 4), (4, 4), (4, 16), (8, 8)])
def test_makespan_of_uniform_stages(stages: int, micro_batches: int) -> None:
    """m + p - 1 passes of equal stages, so a bubble of (p - 1)/(m + p - 1), and what theory leaves out.

    Theory knows no embedding, no head and no way from stage to stage: a vocabulary of 8 makes the former
    two small, and 2 (p - 1) sends of their known time are added.
    """
    outcome = run(
        scenario(
            model__vocab_size=8,
            parallelism__overlap_gradient_reduction=False,
            parallelism__pipeline_parallel=stages,
            parallelism__data_parallel=8 // stages,
            training__global_batch_size=micro_batches * (8 // stages),
        )
    )
    program, record = outcome.lowered.program, outcome.record
    labels = [program.classes.labels[cls] for cls in program.cls]
    length = record.end - record.start
    of_layers = np.array([label.cause.startswith("compute.") for label in labels])
    of_layers &= program.tags["layer"] >= 0
    busy = [int(length[of_layers & (program.tags["stage"] == stage)].sum()) for stage in range(stages)]
    assert len(set(busy)) == 1
    send = max(int(t) for t, label in zip(length, labels, strict=True) if label.cause == "communication.send")
    end = max(int(t) for t, label in zip(record.end, labels, strict=True) if label.phase == "backward")
    passes = busy[0] // micro_batches * (micro_batches + stages - 1)
    assert passes <= end <= 1.02 * passes + 4 * stages * send


def test_gradient_all_reduce_of_one_bucket_is_the_rings_time() -> None:
    """With nothing to hide behind, a reduction adds its own time: at least 2 (p - 1)/p bytes a link."""
    alone = run(scenario(cluster__gpus_per_node=1, training__global_batch_size=1)).result
    eight = run(scenario(parallelism__overlap_gradient_reduction=False)).result
    outcome = run(scenario(parallelism__overlap_gradient_reduction=False))
    gradients = outcome.lowered.states[0].parts["gradients"]
    extra = eight.step_time_s - alone.step_time_s
    fraction = Calibration.load().collectives.scale_up_fraction
    ideal = 2 * 7 / 8 * gradients / 400e9
    assert extra >= ideal
    assert extra <= 1.25 * ideal / fraction


def test_overlap_hides_the_reduction_but_never_costs() -> None:
    hidden = run(scenario()).result
    exposed = run(scenario(parallelism__overlap_gradient_reduction=False)).result
    alone = run(scenario(cluster__gpus_per_node=1, training__global_batch_size=1)).result
    assert alone.step_time_s <= hidden.step_time_s <= exposed.step_time_s


def test_sharding_the_optimizer_saves_its_state_and_no_arithmetic() -> None:
    whole = run(scenario()).result
    shared = run(scenario(parallelism__data_parallel_sharding="optimizer")).result
    assert shared.memory_by_part["optimizer"] == -(-whole.memory_by_part["optimizer"] // 12 // 8) * 12
    assert shared.mfu is not None and whole.mfu is not None
    assert math.isclose(shared.mfu * shared.step_time_s, whole.mfu * whole.step_time_s, rel_tol=1e-12)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("attention", ["fused", "unfused"])
def test_kept_activations_follow_korthikanti(recompute: str, attention: str) -> None:
    """s b h (34 + 5 a s/h) bytes a layer with dropout, 34 when the core is recomputed, 2 when the layer is.

    Source: Korthikanti et al., arXiv:2205.05198, equations 1 and 4; the fused core keeps 4 bytes a row of
    statistics in place of the scores.
    """
    outcome = run(
        scenario(training__recompute=recompute, training__attention=attention, training__dropout=True)
    )
    program = outcome.lowered.program
    kept = 0
    for activity in range(program.num_activities):
        cls = program.cls[activity]
        if program.tags["layer"][activity] == 0 and program.classes.labels[cls].phase == "forward":
            for row in range(program.classes.pool_ptr[cls], program.classes.pool_ptr[cls + 1]):
                kept += int(program.classes.pool_take[row] - outcome.lowered.facts.transient[cls])
    tokens_hidden = SEQUENCE * HIDDEN
    scores = 5 * 32 * SEQUENCE**2
    statistics = 4 * 32 * SEQUENCE
    expected = {
        ("none", "fused"): 34 * tokens_hidden + statistics,
        ("none", "unfused"): 34 * tokens_hidden + scores,
        ("selective", "fused"): 34 * tokens_hidden + statistics,
        ("selective", "unfused"): 34 * tokens_hidden,
        ("full", "fused"): 2 * tokens_hidden,
        ("full", "unfused"): 2 * tokens_hidden,
    }
    assert kept == expected[recompute, attention]


@pytest.mark.parametrize("kind", ["tensor", "memory_bandwidth", "scale_up"])
def test_more_of_a_capacity_is_never_slower(kind: str) -> None:
    from simulator.advise import rank_bottlenecks

    result = rank_bottlenecks(run(scenario(parallelism__tensor_parallel=2)))
    elasticity = {b.resource: b.elasticity for b in result.bottlenecks}[kind]
    assert elasticity is not None
    assert 0.0 < elasticity <= 1.0


def test_elasticities_of_a_step_without_latency_add_up_to_one() -> None:
    """Twice as fast everything is twice as fast: to first order the elasticities and latency share it out."""
    from simulator.advise import rank_bottlenecks

    result = rank_bottlenecks(run(scenario(cluster__gpus_per_node=1, training__global_batch_size=1)))
    bought = sum(b.elasticity or 0.0 for b in result.bottlenecks)
    latency = sum(b.share for b in result.bottlenecks if b.resource.endswith("latency"))
    assert math.isclose(bought / 0.95 + latency, 1.0, abs_tol=0.06)


def test_what_limits_nothing_on_the_critical_path_is_worth_nothing() -> None:
    from simulator.advise import rank_bottlenecks
    from simulator.advise.elasticity import elasticity

    outcome = run(scenario(parallelism__tensor_parallel=2))
    idle = [b.resource for b in rank_bottlenecks(outcome).bottlenecks if not b.share]
    assert idle
    assert all(abs(elasticity(outcome, kind)) < 1e-3 for kind in idle)
