"""Device memory against the published formulas, against measured peaks, and against itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.advise import remedies
from simulator.advise.remedies import MOST, changed
from simulator.analysis import Result
from simulator.errors import ScenarioError
from simulator.run import Outcome, run, simulate
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.specs.software import SoftwareSpec
from simulator.validation import scenario_mapping
from simulator.workload import (
    Shard,
    head_block,
    largest_transient,
    layer_block,
    placeholder_bytes,
    transients,
)

LAYERS, HIDDEN, SEQUENCE, VOCABULARY, HEADS = 8, 2048, 1024, 32000, 16
STREAM = SEQUENCE * HIDDEN
"""Elements of the residual stream of one sequence: s b h with b = 1."""
GIB = 2**30


def scenario(**changes: Any) -> Scenario:
    """A GPT on one node of eight H100; blocks and keys are joined by double underscores."""
    mapping: dict[str, Any] = {
        "name": "memory",
        "cluster": {"system": "dgx-h100", "nodes": 1},
        "software": "megatron-core",
        "model": {
            "kind": "transformer",
            "name": "gpt",
            "num_hidden_layers": LAYERS,
            "hidden_size": HIDDEN,
            "intermediate_size": 4 * HIDDEN,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "head_dim": HIDDEN // HEADS,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": SEQUENCE,
            "norm": "layernorm",
            "position_embedding": "learned",
            "attention_bias": True,
            "attention_output_bias": True,
            "mlp_bias": True,
        },
        "training": {
            "sequence_length": SEQUENCE,
            "micro_batch_size": 1,
            "global_batch_size": 16,
            "dropout": True,
        },
        "parallelism": {},
    }
    for key, value in changes.items():
        block, _, name = key.partition("__")
        if name:
            mapping[block][name] = value
        else:
            mapping[block] = value
    return scenario_from_mapping(mapping)


def shard(**changes: Any) -> Shard:
    given: dict[str, Any] = {
        "micro_batch_size": 1,
        "sequence_length": SEQUENCE,
        "tensor_parallel": 1,
        "sequence_parallel": False,
        "precision": "bf16",
        "attention": "fused",
        "gradient_bytes": 4,
    }
    return Shard(**{**given, **changes})


def software(**mechanisms: Any) -> SoftwareSpec:
    return SoftwareSpec(name="test", **mechanisms)


@pytest.mark.parametrize(
    ("sharding", "expected"),
    [
        ("none", (2.0, 2.0, 12.0)),
        ("optimizer", (2.0, 2.0, 12.0 / 8)),
        ("gradients", (2.0, 2.0 / 8, 12.0 / 8)),
        ("parameters", (2.0 / 8, 2.0 / 8, 12.0 / 8)),
    ],
)
def test_state_follows_the_table_of_zero(sharding: str, expected: tuple[float, float, float]) -> None:
    """(2 + 2 + 12) bytes a parameter, the shared parts over the number of replicas.

    Source: Rajbhandari et al., ZeRO, arXiv:1910.02054, figure 1.
    """
    outcome = run(
        scenario(
            parallelism__data_parallel_sharding=sharding,
            parallelism__reduce_each_micro_batch=sharding in ("gradients", "parameters"),
            training__gradient_precision="bf16",
        )
    )
    parameters = LAYERS * LAYER + OUTSIDE_LAYERS
    parts = outcome.lowered.states[0].parts
    held = tuple(parts[name] / parameters for name in ("parameters", "gradients", "optimizer"))
    assert held == pytest.approx(expected, rel=1e-5)


LAYER = 12 * HIDDEN**2 + 13 * HIDDEN
"""Parameters of a layer."""
OUTSIDE_LAYERS = 2 * VOCABULARY * HIDDEN + SEQUENCE * HIDDEN + 2 * HIDDEN
"""Parameters of embedding, positions, last norm and head."""


def test_frozen_parameters_of_a_flat_tensor_have_gradients() -> None:
    """Of layers with an adapter all parameters do, bf16, over 8 GPUs; of embedding and head, frozen, none."""
    rank = 4
    sizes = {}
    for flat in (False, True):
        outcome = run(
            scenario(
                software={"base": "pytorch-fsdp", "flat_parameters": flat},
                parallelism__data_parallel_sharding="parameters",
                training__lora_rank=rank,
                training__lora_targets=["mlp.up"],
                training__gradient_precision="bf16",
            )
        )
        sizes[flat] = outcome.lowered.states[0].parts["gradients"]
    adapter = rank * 5 * HIDDEN
    assert sizes[False] == 2 * LAYERS * adapter // 8
    assert sizes[True] == 2 * LAYERS * (LAYER + adapter) // 8


@pytest.mark.parametrize(("bucket", "expected"), [("100 MB", 100 * 10**6), ("100 GB", None)])
def test_gradients_are_laid_side_by_side_and_reduced_through_a_bucket(
    bucket: str, expected: int | None
) -> None:
    """A copy of all gradients, and as much of a bucket as there are of them; no copy once they are shared."""
    software = {"base": "megatron-deepspeed", "sharding_buckets": bucket, "flat_gradients": True}
    gradients = 4 * (LAYERS * LAYER + OUTSIDE_LAYERS)
    through = gradients if expected is None else expected
    sizes = [
        run(scenario(software=software, parallelism__data_parallel_sharding=sharding))
        .lowered.states[0]
        .parts["gradient_buckets"]
        for sharding in ("none", "optimizer", "gradients")
    ]
    assert sizes == [0, gradients + through, through]


@pytest.mark.parametrize(("gpus", "expected"), [(8, 1), (1, 0)])
def test_ddp_reduces_in_buckets_beside_the_gradients(gpus: int, expected: int) -> None:
    """As much again as the gradients, unless one GPU has nothing to reduce."""
    parts = run(scenario(software="pytorch-ddp", cluster__gpus_per_node=gpus)).lowered.states[0].parts
    assert parts["gradient_buckets"] == expected * parts["gradients"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training__recompute": "full"},
        {"training__recompute": "selective", "training__attention": "unfused"},
        {"parallelism__pipeline_parallel": 4},
        {"parallelism__pipeline_parallel": 4, "parallelism__pipeline_schedule": "zb-1p"},
        {"parallelism__pipeline_parallel": 2, "parallelism__virtual_pipeline": 2},
        {"parallelism__tensor_parallel": 2, "parallelism__sequence_parallel": True},
        {"parallelism__data_parallel_sharding": "parameters"},
        {"software": "megatron-deepspeed", "parallelism__data_parallel_sharding": "optimizer"},
        {"software": "oneflow"},
    ],
    ids=str,
)
def test_parts_add_up_and_everything_is_given_back(changes: dict[str, Any]) -> None:
    outcome = run(scenario(**changes))
    result, record, pools = outcome.result, outcome.record, outcome.lowered.program.pools
    assert sum(result.memory_by_part.values()) == result.peak_memory_bytes == max(result.memory_by_stage)
    assert all(size > 0 for size in result.memory_by_part.values())
    assert sum(result.memory_by_operator.values()) == result.memory_by_part["activations"]
    assert list(record.pool_final) == list(pools.initial)
    kinds = result.memory_by_kind
    assert kinds["allocated"] <= kinds["reserved"] <= kinds["nvidia-smi"] == result.peak_memory_bytes
    timeline = result.memory_timeline
    assert timeline["bytes"].max() == result.peak_memory_bytes
    moment = result.peak_moment
    assert moment is not None and moment.running
    highest = timeline[timeline["stage"] == moment.stage]
    at = highest.loc[highest["bytes"].idxmax()]
    assert at["time_s"] == pytest.approx(moment.time_s)


def test_operators_at_the_peak_keep_what_korthikanti_counts() -> None:
    """With the loss running, every layer keeps 34 s b h and the row statistics, the head 4 s b h and logits.

    Source: Korthikanti et al., arXiv:2205.05198, equation 1 and section 4.1.
    """
    kept = run(scenario(software="pytorch-ddp")).result.memory_by_operator
    layers = sum(size for name, size in kept.items() if name.startswith(("attention", "mlp")))
    statistics = 4 * HEADS * SEQUENCE
    assert layers == LAYERS * (34 * STREAM + statistics)
    assert kept["mlp.up"] == LAYERS * 8 * STREAM
    assert kept["attention.qkv"] == LAYERS * 6 * STREAM
    assert kept["head.norm"] == 4 * STREAM


@pytest.mark.parametrize("schedule", ["1f1b", "gpipe"])
def test_a_static_graph_has_room_for_twice_as_many_micro_batches_as_stages(schedule: str) -> None:
    """Nine slots of 4 stages, less those in use at most: P - p under 1F1B, all eight under GPipe."""
    outcome = run(
        scenario(
            software={"base": "oneflow", "pipeline_slots": 2},
            parallelism__pipeline_parallel=4,
            parallelism__pipeline_schedule=schedule,
            training__recompute="full",
        )
    )
    inputs, mask = LAYERS // 4 * 2 * STREAM, STREAM
    in_use = (4, 3, 2) if schedule == "1f1b" else (8, 8, 8)
    expected = [(9 - number) * inputs for number in in_use] + [0]
    expected[0] += (9 - in_use[0]) * mask
    assert [state.parts["pipeline_slots"] for state in outcome.lowered.states] == expected


@pytest.mark.parametrize("recompute", ["full", "none"])
def test_passes_of_a_static_graph_share_no_memory(recompute: str) -> None:
    """Dropout of the scores: they and what is left of them, 2 + 2 + 1 bytes, beside the residual stream.

    What is kept for the backward pass has its slots; then scores are left, with queries, keys and values.
    """
    outcome = run(
        scenario(software="oneflow", parallelism__pipeline_parallel=4, training__recompute=recompute)
    )
    scores = HEADS * SEQUENCE**2
    expected = {"full": 2 * STREAM + 5 * scores, "none": 6 * STREAM + 2 * scores}[recompute]
    sizes = [state.parts["forward_workspace"] for state in outcome.lowered.states]
    assert sizes == [expected] * 3 + [0]


@pytest.mark.parametrize(
    ("changes", "gradients", "copies", "buckets"),
    [
        ({"training__global_batch_size": 8}, 2, 0, 2),
        ({"training__global_batch_size": 16}, 4, 4, 4),
        ({"training__global_batch_size": 4, "parallelism__tensor_parallel": 2}, 2, 0, 0),
        ({"training__global_batch_size": 8, "parallelism__tensor_parallel": 2}, 4, 4, 4),
        ({"training__global_batch_size": 8, "training__precision": "bf16"}, 4, 0, 4),
    ],
    ids=str,
)
def test_gradients_of_a_static_graph(
    changes: dict[str, Any], gradients: int, copies: int, buckets: int
) -> None:
    """Bytes a parameter: fp16, or added in fp32 beside those of a micro-batch; reduced ones have their place.

    With tensor parallelism and one micro-batch reductions are part of the compute stream.
    """
    settings = {"software": "oneflow", "training__precision": "fp16", **changes}
    state = run(scenario(**settings)).lowered.states[0]
    parts, held = state.parts, state.held_gradients
    names = ("gradients", "gradient_copies", "gradient_buckets")
    assert [parts[name] for name in names] == [each * held for each in (gradients, copies, buckets)]


def test_a_transport_of_its_own_needs_no_communicator_along_the_pipeline() -> None:
    """Stages and replicas: one for each and one for all, or that of the replicas alone."""
    sizes = [
        run(scenario(software={"base": "oneflow", "own_transfers": own}, parallelism__pipeline_parallel=4))
        .lowered.states[0]
        .parts["communication_buffers"]
        for own in (False, True)
    ]
    assert sizes[0] == pytest.approx(3 * sizes[1], rel=1e-6)


def test_old_libraries_load_the_code_of_all_kernels() -> None:
    """900 MB of it beside a context of 450 MB, as the calibration has them; today's load what they use."""
    sizes = [
        run(scenario(software={"base": "megatron-core", "loads_all_kernels": everything}))
        .lowered.states[0]
        .parts["framework"]
        for everything in (False, True)
    ]
    assert sizes == [450_000_000, 1_350_000_000]


def test_passes_wait_for_what_is_being_reduced() -> None:
    """Over slow links: at most n buckets of gradients are unreduced; fewer cost time, more cost memory.

    A bucket is a layer here, for those are larger than what fills one, and the largest is the embedding's.
    """
    outcomes = {
        number: run(
            scenario(
                software={"base": "megatron-core", "reductions_in_flight": number},
                cluster={
                    "system": "dgx-h100",
                    "nodes": 1,
                    "scale_up": {"base": "NVLink4", "bandwidth": "1 GB/s"},
                },
                parallelism__data_parallel_sharding="gradients",
                parallelism__gradient_bucket="100 MB",
            )
        )
        for number in (1, 2, 3, 100)
    }
    buckets = {number: unreduced(outcome) for number, outcome in outcomes.items()}
    assert {number: max(counts) for number, counts in buckets.items() if number < 100} == {1: 1, 2: 2, 3: 3}
    assert max(buckets[100]) > 3
    peaks = [outcome.result.peak_memory_bytes for outcome in outcomes.values()]
    assert peaks == sorted(peaks) and peaks[-1] > peaks[0]
    times = [outcome.result.step_time_s for outcome in outcomes.values()]
    assert times[0] > max(times[1:])


def unreduced(outcome: Outcome) -> list[int]:
    """When a layer's backward pass begins: buckets that are being filled or reduced, its own included."""
    program, record = outcome.lowered.program, outcome.record
    names = np.array([label.name for label in program.classes.labels])[program.cls]
    begun = [a for a in range(program.num_activities) if names[a] == "mlp.down.input_gradient"]
    done = np.sort(record.end[names == "gradients.reduce_scatter"])
    # The head is a bucket before the layers' in each pass, the embedding one behind them.
    per_pass = LAYERS + 2
    return [
        number // LAYERS * per_pass
        + number % LAYERS
        + 2
        - int(np.searchsorted(done, record.start[a], side="right"))
        for number, a in enumerate(begun)
    ]


def test_full_recomputation_keeps_the_layers_inputs() -> None:
    result = run(scenario(training__recompute="full")).result
    assert result.memory_by_operator["layer.input"] == LAYERS * 2 * STREAM


def test_stages_of_1f1b_differ_by_one_micro_batch() -> None:
    """Stage p holds P - p micro-batches: neighbouring inner stages differ by what one of them keeps."""
    outcome = run(scenario(parallelism__pipeline_parallel=4))
    stages = outcome.result.memory_by_stage
    one = LAYERS // 4 * (34 * STREAM + 4 * HEADS * SEQUENCE)
    assert stages[1] - stages[2] == one


@pytest.mark.parametrize(
    ("mechanisms", "kept_bytes", "peak"),
    [
        ({"fused_cross_entropy": False}, 6, 10),
        ({"fused_cross_entropy": True}, 2, 6),
        ({"fused_cross_entropy": True, "loss_chunks": 8}, 2, 2.5),
        ({"fused_cross_entropy": False, "allocator": "planned"}, 4, 6),
    ],
    ids=str,
)
def test_bytes_a_logit_while_the_loss_runs(mechanisms: dict[str, Any], kept_bytes: int, peak: float) -> None:
    """Logits 2; an fp32 copy and probabilities 4 + 4, or one fp32 copy, a part at a time; or in place.

    Planned ahead, the logits are gone once they are converted.
    """
    mine = shard(software=software(**mechanisms))
    block = head_block(scenario().model, mine, shares_embedding=False)
    loss = next(i for i, node in enumerate(block.forward) if node.op.name == "loss")
    logits = SEQUENCE * VOCABULARY
    kept = sum(node.kept_bytes for node in block.forward[: loss + 1]) - 4 * STREAM
    assert kept == kept_bytes * logits
    assert kept + transients(block, mine).forward[loss] == peak * logits


def test_a_gathered_sequence_is_needed_in_full_and_kept_in_parts() -> None:
    model = scenario().model
    mine = shard(tensor_parallel=8, sequence_parallel=True)
    block = layer_block(model, mine)
    needs = dict(zip((node.op.name for node in block.forward), transients(block, mine).forward, strict=True))
    assert needs["mlp.all_gather"] == needs["mlp.up"] == 2 * STREAM
    assert needs["mlp.down"] == 2 * STREAM


def test_weight_gradients_take_room_unless_the_product_adds_them() -> None:
    model = scenario().model
    sizes = {}
    for fused in (False, True):
        mine = shard(software=software(fused_gradient_accumulation=fused))
        block = layer_block(model, mine)
        needs = transients(block, mine).backward
        up = next(i for i, node in enumerate(block.backward) if node.op.name == "mlp.up.weight_gradient")
        sizes[fused] = needs[up]
    assert sizes[False] - sizes[True] == 2 * 4 * HIDDEN**2


def test_placeholders_are_one_of_each_shape() -> None:
    """Matrices h x 3h, h x h, h x 4h and 4h x h in bf16."""
    mine = shard(software=software(gradient_placeholders=True))
    block = layer_block(scenario().model, mine)
    assert placeholder_bytes((block, block), mine) == 2 * (3 + 1 + 4 + 4) * HIDDEN**2
    assert placeholder_bytes((block,), shard()) == 0


def test_what_comes_once_a_pass_fragments() -> None:
    model, mine = scenario().model, shard()
    head = head_block(model, mine, shares_embedding=False)
    assert largest_transient((layer_block(model, mine),), mine) == 0
    assert largest_transient((head,), mine) == max(
        transients(head, mine).forward + transients(head, mine).backward
    )


@pytest.mark.parametrize(
    ("tensor", "data", "pipeline", "allocated", "reserved"),
    [(2, 4, 1, 81.59, 84.7), (4, 2, 1, 52.89, 54.65), (1, 4, 2, 87.08, 92.26)],
)
def test_measured_peaks_of_llama_405b(
    tensor: int, data: int, pipeline: int, allocated: float, reserved: float
) -> None:
    """Four layers of Llama 3 405B on eight B200 under Megatron-Core, peaks in GiB.

    Source: SimuMax, https://github.com/MooreThreads/SimuMax.
    """
    cells = {
        "id": "llama3-405b-l4", "family": "decoder", "model": "llama3-405b", "num_hidden_layers": "4",
        "hidden_size": "16384", "num_attention_heads": "128", "num_key_value_heads": "8", "head_dim": "128",
        "intermediate_size": "53248", "gated_mlp": "true", "vocab_size": "128256",
        "sequence_length": "4096", "micro_batch_size": "1", "global_batch_size": str(4 * data),
        "gpu": "B200-180GB", "num_gpus": "8", "gpus_per_node": "8", "precision": "bf16",
        "tensor_parallel": str(tensor), "pipeline_parallel": str(pipeline), "data_parallel": str(data),
        "data_parallel_sharding": "optimizer", "sequence_parallel": str(tensor > 1).lower(),
        "flash_attention": "true", "framework": "Megatron-Core", "optimizer": "adam",
    }  # fmt: skip
    kinds = simulate(scenario_from_mapping(scenario_mapping(cells))).memory_by_kind
    assert kinds["allocated"] / GIB == pytest.approx(allocated, rel=0.02)
    assert kinds["reserved"] / GIB == pytest.approx(reserved, rel=0.03)


def too_large() -> Outcome:
    outcome = run(
        scenario(
            training__sequence_length=16384,
            training__micro_batch_size=8,
            training__global_batch_size=64,
            model__max_position_embeddings=16384,
        )
    )
    assert not outcome.result.fits
    return outcome


def test_remedies_fit_when_they_are_simulated() -> None:
    outcome = too_large()
    told: list[str] = []
    found = remedies(outcome, progress=lambda _part, what: told.append(what))
    assert found and len(told) <= MOST
    assert [remedy.step_time_s for remedy in found] == sorted(remedy.step_time_s for remedy in found)
    assert {remedy.num_gpus for remedy in found} == {outcome.result.num_gpus}
    for remedy in found:
        again: Result = simulate(changed(outcome.scenario, remedy.change))
        assert again.fits and again.peak_memory_bytes == remedy.peak_memory_bytes <= 80 * GIB
        gain = outcome.result.step_time_s / again.step_time_s - 1
        assert gain == pytest.approx(remedy.throughput_change)


def test_remedies_are_taken_together_where_none_is_enough() -> None:
    wide = {"model__hidden_size": 16384, "model__intermediate_size": 65536, "model__num_attention_heads": 128,
            "model__num_key_value_heads": 128}  # fmt: skip
    outcome = run(scenario(training__micro_batch_size=2, parallelism__tensor_parallel=2, **wide))
    assert not outcome.result.fits
    found = remedies(outcome)
    assert found and all(remedy.fits for remedy in found)
    assert len([value for value in found[0].change.values() if value is not None]) > 1


def test_changes_that_are_not_needed_are_left_out_again() -> None:
    """What is taken together fits as a whole and, without any one of the changes, does not or is slower."""
    wide = {"model__hidden_size": 8192, "model__intermediate_size": 32768, "training__micro_batch_size": 64}
    outcome = run(scenario(training__global_batch_size=64, cluster__gpus_per_node=1, **wide))
    found = remedies(outcome)
    kept = {key: value for key, value in found[0].change.items() if value is not None}
    assert len(kept) > 1
    for key in kept:
        rest = {other: value for other, value in found[0].change.items() if other != key}
        try:
            again = simulate(changed(outcome.scenario, rest))
        except ScenarioError:  # gradients leave with the optimizer's state only
            continue
        assert not again.fits or again.step_time_s > found[0].step_time_s


def test_a_larger_cluster_is_named_with_what_it_takes() -> None:
    """Where all that one node can do is too slow or not enough."""
    wide = {"model__hidden_size": 16384, "model__intermediate_size": 65536, "model__num_attention_heads": 128,
            "model__num_key_value_heads": 128, "model__num_hidden_layers": 32}  # fmt: skip
    outcome = run(scenario(training__global_batch_size=2, parallelism__tensor_parallel=8, **wide))
    *_, last = remedies(outcome)
    assert last.num_gpus > 8 and simulate(changed(outcome.scenario, last.change)).fits


def test_what_fits_needs_no_remedy() -> None:
    outcome = run(scenario())
    assert remedies(outcome) == []
    assert outcome.result.peak_moment is not None and outcome.result.peak_moment.over_s is None


def test_a_verdict_says_when_memory_runs_out() -> None:
    """Up to that moment the fullest stage has room; at it, no more."""
    outcome = too_large()
    moment, limit = outcome.result.peak_moment, outcome.result.memory_capacity_bytes
    assert moment is not None and moment.over_s is not None and 0 < moment.over_s <= moment.time_s
    course = outcome.result.memory_timeline
    mine = course[course["stage"] == moment.stage]
    before, after = mine[mine["time_s"] < moment.over_s], mine[mine["time_s"] <= moment.over_s]
    assert before["bytes"].max() <= limit < after["bytes"].max()


def test_players_agree_on_the_peak() -> None:
    results = [
        simulate(scenario(parallelism__pipeline_parallel=2, simulation={"player": player}))
        for player in ("reference", "compiled")
    ]
    assert results[0].memory_by_part == results[1].memory_by_part
    assert results[0].peak_moment == results[1].peak_moment
    assert np.array_equal(results[0].memory_by_stage, results[1].memory_by_stage)
