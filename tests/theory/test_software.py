"""What the mechanisms of a software profile change in a step, each against its own arithmetic."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import catalog
from simulator.cost.step import attention_slowdown
from simulator.engine import Record
from simulator.program import Lowered
from simulator.run import run
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.specs import AcceleratorSpec
from simulator.specs.calibration import Calibration
from simulator.workload.kernels import AttentionShape, Kernel

LAYERS, HIDDEN = 4, 1024


def scenario(software: object = "megatron-core", **changes: Any) -> Scenario:
    """A small GPT on a node of H100."""
    mapping: dict[str, Any] = {
        "name": "software",
        "cluster": {"system": "dgx-h100", "nodes": 1},
        "model": {
            "kind": "transformer",
            "name": "gpt",
            "num_hidden_layers": LAYERS,
            "hidden_size": HIDDEN,
            "intermediate_size": 4 * HIDDEN,
            "num_attention_heads": 16,
            "vocab_size": 50304,
            "max_position_embeddings": 1024,
            "gated_mlp": False,
            "norm": "layernorm",
            "hidden_act": "gelu",
            "position_embedding": "learned",
        },
        "training": {"sequence_length": 1024, "micro_batch_size": 1, "global_batch_size": 64},
        "parallelism": {},
        "software": software,
    }
    for key, value in changes.items():
        block, name = key.split("__")
        mapping[block] = {**mapping[block], name: value}
    return scenario_from_mapping(mapping)


def changed(**mechanisms: object) -> dict[str, object]:
    return {"base": "megatron-core", **mechanisms}


def host_seconds(lowered: Lowered, record: Record) -> float:
    """What the launching thread of the first stage did in all [s]."""
    names = [label.name for label in lowered.program.classes.labels]
    launching = [a for a, c in enumerate(lowered.program.cls) if names[c] == "launch"]
    return float(sum(int(record.end[a] - record.start[a]) for a in launching)) / 1e12


def test_a_small_model_takes_as_long_as_its_launching() -> None:
    """Kernels of microseconds wait for a thread that needs tens of them for each."""
    outcome = run(scenario(training__global_batch_size=64))
    assert outcome.result.step_time_s == pytest.approx(host_seconds(outcome.lowered, outcome.record), rel=0.1)
    assert outcome.result.step_time_s > host_seconds(outcome.lowered, outcome.record)


def test_graphs_leave_nothing_to_launch() -> None:
    eager, graphs = run(scenario()), run(scenario(changed(cuda_graphs=True)))
    assert host_seconds(graphs.lowered, graphs.record) == 0.0
    assert graphs.result.step_time_s < 0.5 * eager.result.step_time_s


def test_a_large_model_hides_its_launching() -> None:
    """Once kernels are long the thread is far ahead, and graphs are worth almost nothing."""
    large: dict[str, Any] = {"model__hidden_size": 8192, "model__intermediate_size": 32768}
    eager = run(scenario(training__micro_batch_size=8, **large)).result.step_time_s
    graphs = run(
        scenario(changed(cuda_graphs=True), training__micro_batch_size=8, **large)
    ).result.step_time_s
    assert graphs <= eager < 1.01 * graphs


def test_gradients_added_by_kernels_of_their_own_are_read_and_written_once_more() -> None:
    """A weight's gradient is written and read in the precision of the passes: 2 x 2 B a parameter, a pass."""

    def traffic(fused: bool) -> float:
        lowered = run(scenario(changed(fused_gradient_accumulation=fused, gradients="fp32"))).lowered
        labels, traffic = lowered.program.classes.labels, lowered.facts.traffic
        return float(sum(traffic[c] for c in lowered.program.cls if labels[c].phase == "backward"))

    passes = 8
    weights = 12 * LAYERS * HIDDEN**2 + 50304 * HIDDEN
    more = traffic(fused=False) - traffic(fused=True)
    assert more > passes * weights * 4
    assert more < passes * (weights * 4 + (50304 + 1024) * HIDDEN * 12 + LAYERS * 20 * HIDDEN * 12)


def test_blocking_sends_cost_what_they_last() -> None:
    """A stage that waits for its sends is later by about each of them; one that does not, by none."""
    pipeline: dict[str, Any] = {
        "parallelism__pipeline_parallel": 4,
        "training__global_batch_size": 32,
        "training__micro_batch_size": 2,
    }
    free = run(scenario(changed(cuda_graphs=True), **pipeline))
    held = run(scenario(changed(cuda_graphs=True, blocking_sends=True), **pipeline))
    names = [label.name for label in held.lowered.program.classes.labels]
    stage = held.lowered.program.tags["stage"]
    sends = sum(
        int(held.record.end[a] - held.record.start[a])
        for a, c in enumerate(held.lowered.program.cls)
        if names[c].startswith("send.") and stage[a] == 1
    )
    later = held.result.step_time_s - free.result.step_time_s
    assert 0.2 * sends / 1e12 < later < 1.5 * sends / 1e12


def test_a_scenario_overrides_what_the_software_defaults_to() -> None:
    made = scenario("megatron-lm-2021", training__attention="fused", training__dropout=False)
    names = {label.name for label in run(made).lowered.program.classes.labels}
    assert "attention.core" in names and "attention.dropout" not in names
    plain = {label.name for label in run(scenario("megatron-lm-2021")).lowered.program.classes.labels}
    assert {"attention.scores", "attention.dropout", "mlp.up.weight_gradient.accumulate"} <= plain


@pytest.mark.parametrize(
    ("name", "least", "most"), [("A100-SXM4-80GB", 1.0, 1.0), ("H100-SXM5-80GB", 1.5, 2.0)]
)
def test_attention_of_the_second_generation_is_slow_only_where_newer_instructions_are(
    name: str, least: float, most: float
) -> None:
    """FlashAttention-3 is 1.5 to 2.0 times as fast as FlashAttention-2 on H100 (Shah et al., 2024)."""
    card = AcceleratorSpec.model_validate(catalog.entry("accelerators", name))
    calibration = Calibration.load()
    shape = AttentionShape(2, 16, 16, 8192, 8192, 128, causal=False)
    kernel = Kernel("attention", "attention", 4 * 2 * 16 * 8192**2 * 128, 0, 0, "fp16", shape)
    second = attention_slowdown(kernel, "second", card, calibration)
    assert least <= second <= most
    first = attention_slowdown(kernel, "first", card, calibration)
    assert 1.7 <= first / second <= 2.1  # "around 2x", Dao, FlashAttention-2
    assert attention_slowdown(kernel, "native", card, calibration) == 1.0


@pytest.mark.parametrize("name", ["B200-SXM-180GB", "GB300", "MI300X", "MI355X", "TPU-v5p", "Gaudi3"])
def test_accelerators_without_the_instructions_of_2020_run_kernels_of_their_own(name: str) -> None:
    card = AcceleratorSpec.model_validate(catalog.entry("accelerators", name))
    shape = AttentionShape(2, 16, 16, 8192, 8192, 128, causal=False)
    kernel = Kernel("attention", "attention", 4 * 2 * 16 * 8192**2 * 128, 0, 0, "bf16", shape)
    assert attention_slowdown(kernel, "second", card, Calibration.load()) == 1.0


def moved(precision: str, name: str, **changes: Any) -> int:
    """What one activity of a name asks of the slot that it asks most of: bytes, at rates that both share."""
    parallel = {"tensor_parallel": 4, "sequence_parallel": True, "data_parallel": 2}
    mapping = {f"parallelism__{key}": value for key, value in parallel.items()}
    made = scenario(training__precision=precision, **mapping, **changes)
    classes = run(made).lowered.program.classes
    place = next(place for place, label in enumerate(classes.labels) if label.name == name)
    return int(max(classes.demand_amount[classes.demand_ptr[place] : classes.demand_ptr[place + 1]]))


@pytest.mark.parametrize(
    "name", ["mlp.all_gather", "attention.all_gather", "mlp.input.all_gather", "mlp.gradient.all_gather"]
)
def test_operands_of_fewer_bits_are_gathered_as_such(name: str) -> None:
    """In fp8 a byte a number instead of two: the slices are cast before they are sent."""
    sizes: dict[str, Any] = {"training__micro_batch_size": 8}
    half = moved("bf16", name, **sizes) / 2
    assert moved("fp8", name, **sizes) == pytest.approx(half, rel=1e-6)
    # The sum of partial results is taken in full precision.
    reduced = f"{name.partition('.')[0]}.reduce_scatter"
    assert moved("fp8", reduced, **sizes) == moved("bf16", reduced, **sizes)


def test_each_gpu_casts_its_slice() -> None:
    """A quarter of the numbers on four GPUs: two bytes read and two of one written."""
    tokens = 8 * 1024
    constants = Calibration.load().kernels
    traffic = tokens // 4 * HIDDEN * (2 + 2) / constants.memory_fraction
    assert moved("fp8", "mlp.cast", training__micro_batch_size=8) == pytest.approx(traffic, rel=1e-6)
