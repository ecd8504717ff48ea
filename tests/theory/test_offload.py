"""Offloading against its arithmetic: bytes over bandwidth where that limits, nothing where nothing does."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.advise import remedies
from simulator.advise.bounds import bounds
from simulator.advise.remedies import changed
from simulator.errors import PlanError, ScenarioError
from simulator.run import Outcome, check, run
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.specs.calibration import Calibration
from support.laws import assert_folds, play_on_both

LAYERS, HIDDEN, VOCABULARY, SEQUENCE = 8, 2048, 32000, 2048
LAYER = 12 * HIDDEN**2 + 2 * HIDDEN
ENDS = 2 * VOCABULARY * HIDDEN + HIDDEN
PARAMETERS = LAYERS * LAYER + ENDS
"""Four attention matrices, an MLP of four times the width and two norms a layer; embedding, head and norm."""
GB = 10**9


def scenario(
    offload: dict[str, Any] | None = None,
    *,
    pcie: str = "1000 TB/s",
    host: str = "100000 TB/s",
    drives: tuple[str, str] = ("1000 TB/s", "1000 TB/s"),
    gpus: int = 1,
    training: dict[str, Any] | None = None,
    **blocks: Any,
) -> Scenario:
    """One node of GPUs whose memory never limits, of a host that does not either unless it is told."""
    mapping = {
        "name": "offload",
        "cluster": {
            "system": "dgx-h100",
            "nodes": 1,
            "gpus_per_node": gpus,
            "accelerator": {"base": "H100-SXM5-80GB", "memory_bandwidth": "100000 TB/s"},
            "host": {"base": "dgx-h100", "pcie_bandwidth": pcie, "memory_bandwidth": host},
            "storage": {
                "base": "nvme-gen4",
                "read_bandwidth": drives[0],
                "write_bandwidth": drives[1],
                "latency": "0 s",
            },
        },
        "model": {
            "name": "small",
            "num_hidden_layers": LAYERS,
            "hidden_size": HIDDEN,
            "intermediate_size": 4 * HIDDEN,
            "num_attention_heads": 16,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": SEQUENCE,
            "norm": "rmsnorm",
            "position_embedding": "rotary",
        },
        "training": {
            "sequence_length": SEQUENCE,
            "micro_batch_size": 1,
            "global_batch_size": gpus,
            "gradient_precision": "bf16",
            "offload": offload or {},
            **(training or {}),
        },
        "parallelism": {},
        "software": {"base": "megatron-core", "cuda_graphs": True},
        "simulation": {"warmup_steps": 0},
    }
    return scenario_from_mapping({**mapping, **blocks})


def outcome(offload: dict[str, Any] | None = None, **changes: Any) -> Outcome:
    return run(scenario(offload, **changes))


def step(offload: dict[str, Any] | None = None, **changes: Any) -> float:
    return outcome(offload, **changes).result.step_time_s


def kept(result: Any) -> int:
    """Activations that layers keep at the peak of a plan that keeps them all."""
    return sum(
        size for name, size in result.memory_by_operator.items() if name.startswith(("attention", "mlp"))
    )


@pytest.mark.parametrize("place", ["host", "nvme"])
@pytest.mark.parametrize(
    "what", [{"activations": ""}, {"parameters": "", "optimizer": ""}, {"parameters": ""}], ids=str
)
def test_behind_an_endless_host_a_step_takes_what_it_takes_without(what: dict[str, str], place: str) -> None:
    """But for the update, which the GPU has no part in where the state lies elsewhere."""

    def without_update(found: Outcome) -> float:
        result = found.result
        return result.step_time_s - result.breakdown.get("optimizer", 0.0)

    found = outcome(dict.fromkeys(what, place))
    assert without_update(found) == pytest.approx(without_update(outcome()), rel=2e-3)


def test_where_pcie_limits_activations_go_out_and_come_back_at_its_rate() -> None:
    """A byte out in the forward pass, a byte in in the backward pass: 2 bytes / bandwidth."""
    moved = kept(outcome().result)
    for rate in (1, 2):
        taken = step({"activations": "host"}, pcie=f"{rate} GB/s")
        # A layer is computed before its copy can begin, on both ways.
        assert 2 * moved / (rate * GB) < taken < 2 * moved / (rate * GB) + 0.3 * step()


def test_only_the_layers_that_are_asked_for_leave() -> None:
    moved = kept(outcome().result)
    taken = step({"activations": "host", "activation_layers": 4}, pcie="1 GB/s")
    assert moved / GB < taken < moved / GB + 1.1 * step()


def test_recomputed_layers_send_their_inputs() -> None:
    """s b h numbers of two bytes a layer, there and back."""
    inputs = LAYERS * SEQUENCE * HIDDEN * 2
    taken = step({"activations": "host"}, pcie="1 GB/s", training={"recompute": "full"})
    assert 2 * inputs / GB < taken < 2 * inputs / GB + step(training={"recompute": "full"})
    half = step(
        {"activations": "host"},
        pcie="1 GB/s",
        training={"recompute": "full", "recompute_method": "uniform", "recompute_num_layers": 2},
    )
    assert inputs / GB < half < inputs / GB + step(training={"recompute": "full"})


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_parameters_come_in_for_either_pass_of_every_micro_batch(micro_batches: int) -> None:
    """2 bytes a parameter for each pass; the step ends with all of them back on the host."""
    training = {"global_batch_size": micro_batches}
    taken = step({"parameters": "host", "optimizer": "host"}, pcie="1 GB/s", training=training)
    bound = 2 * micro_batches * 2 * PARAMETERS / GB
    gradients = 2 * PARAMETERS / GB
    assert bound + gradients < taken < bound + gradients + 1.2 * step(training=training)


def test_the_hosts_update_takes_what_its_memory_takes() -> None:
    """Adam reads 2 + 12 and writes 12 + 2 bytes a parameter; copies of 2 + 2 bytes pass through besides.

    Copies of all tiles but the first and the last lie beside the update and share the memory with it.
    """
    parts = 28 + 2 + 2
    taken = step({"optimizer": "host"}, host="10 GB/s")
    assert taken - step() == pytest.approx(parts * PARAMETERS / (10 * GB), rel=0.02)


def test_the_gpus_update_takes_what_pcie_takes() -> None:
    """12 bytes of state a parameter in and out, at the same time but for the ends of the tiles."""
    taken = step({"optimizer": "host", "optimizer_step": "gpu"}, pcie="1 GB/s") - step()
    one_way = 12 * PARAMETERS / GB
    assert one_way < taken < 1.3 * one_way


@pytest.mark.parametrize("way", ["host", "gpu"])
def test_state_on_drives_takes_what_they_take(way: str) -> None:
    """12 bytes a parameter are read, then written; drives write at half the rate that they read at."""
    found = outcome({"optimizer": "nvme", "optimizer_step": way}, drives=("2 GB/s", "1 GB/s"))
    read, written = 12 * PARAMETERS / (2 * GB), 12 * PARAMETERS / GB
    assert written < found.result.step_time_s - step() < read + written
    assert found.result.drives_by_part == {"optimizer": 12 * PARAMETERS}


def test_four_tiles_of_state_are_between_the_drives_and_the_update() -> None:
    """12 bytes for each of at most 128 Mi parameters; they come and go at the pace of the writes."""
    model = {"model": {**scenario().model.model_dump(exclude_none=True), "num_hidden_layers": 4 * LAYERS}}
    count = 4 * LAYERS * LAYER + ENDS
    found = outcome({"optimizer": "nvme"}, drives=("2 GB/s", "1 GB/s"), **model)
    tile = 12 * count / -(-count // (128 * 2**20))
    assert found.result.host_memory_by_part["activations_and_buffers"] == pytest.approx(4 * tile, rel=1e-6)
    taken = found.result.step_time_s - step(**model)
    assert 12 * count / GB < taken < 12 * count / GB + 2 * tile / GB


def test_a_part_of_the_state_takes_a_part_of_the_time() -> None:
    whole, half = (
        step({"optimizer": "host", "optimizer_fraction": part}, host="10 GB/s") for part in (1.0, 0.5)
    )
    assert half - step() == pytest.approx((whole - step()) / 2, rel=0.02)


def test_gradients_leave_as_they_are_completed() -> None:
    """2 bytes a parameter go out beside the backward pass; the host adds those of several micro-batches."""
    offload = {"optimizer": "host", "gradients": "host"}
    taken = step(offload, pcie="1 GB/s")
    assert 2 * 2 * PARAMETERS / GB < taken < 2 * 2 * PARAMETERS / GB + step()
    found = outcome(offload, training={"global_batch_size": 3})
    labels = found.lowered.program.classes.labels
    names = [labels[cls].name for cls in found.lowered.program.cls]
    assert names.count("gradients.to_host") == names.count("gradients.accumulate") > 3


def test_device_memory_holds_what_is_left() -> None:
    def parts(offload: dict[str, Any] | None = None, **changes: Any) -> dict[str, int]:
        return outcome(offload, **changes).result.memory_by_part

    whole = parts()
    assert (whole["parameters"], whole["optimizer"]) == (2 * PARAMETERS, 12 * PARAMETERS)
    assert "optimizer" not in parts({"optimizer": "host"})
    assert parts({"optimizer": "host", "optimizer_fraction": 0.25})["optimizer"] == 9 * PARAMETERS
    assert "gradients" not in parts({"optimizer": "host", "gradients": "host"})
    assert "parameters" not in parts({"parameters": "host"})


@pytest.mark.parametrize("sharding", ["none", "parameters"])
@pytest.mark.parametrize(
    "offload", [{}, {"parameters": "host"}, {"optimizer": "host", "gradients": "host"}], ids=str
)
def test_what_passes_through_is_told_from_activations(sharding: str, offload: dict[str, Any]) -> None:
    """Inputs of all layers stay whatever else does; two buckets or layers pass at a time."""
    gpus = 4 if sharding == "parameters" else 1
    result = outcome(
        offload,
        gpus=gpus,
        training={"recompute": "full"},
        parallelism={
            "data_parallel_sharding": sharding,
            **({"gradient_bucket": "1 MB"} if sharding == "none" else {}),
        },
    ).result
    assert result.memory_by_operator["layer.input"] == LAYERS * SEQUENCE * HIDDEN * 2
    assert all(size > 0 for size in result.memory_by_part.values())
    buffers = result.memory_by_part.get("parameter_buffers", 0)
    assert (buffers > 0) == (bool(offload) or gpus > 1)
    assert buffers <= 2 * 3 * 2 * VOCABULARY * HIDDEN


def test_two_layers_of_activations_are_on_the_gpu_at_a_time() -> None:
    """The one that is computed and the one that is copied; in the backward pass the one that is fetched."""
    small = {"model": {**scenario().model.model_dump(exclude_none=True), "vocab_size": 1000}}
    every = outcome(**small).result
    layer = kept(every) / LAYERS
    for pcie in ("1 GB/s", "1000 TB/s"):
        some = outcome({"activations": "host"}, pcie=pcie, **small).result
        assert some.memory_by_part["activations"] < every.memory_by_part["activations"] - (LAYERS - 4) * layer
        held = some.host_memory_by_part["activations_and_buffers"]
        assert held == pytest.approx(kept(every), rel=1e-6)


def test_the_gpus_of_a_node_share_its_memory() -> None:
    """Eight GPUs move eight times as much through the one host: 8 x 2 bytes / bandwidth each way."""
    moved = kept(outcome().result)
    taken = step({"activations": "host"}, host="8 GB/s", gpus=8)
    assert 2 * moved / GB < taken < 2 * moved / GB + step(gpus=8)


def test_the_stages_of_a_node_share_its_memory() -> None:
    """Four stages of one node write at the same time what one GPU would write alone."""
    plan = {"pipeline_parallel": 4}
    training = {"global_batch_size": 4}
    alone = step({"optimizer": "host"}, host="10 GB/s", training=training)
    four = step({"optimizer": "host"}, host="10 GB/s", gpus=4, parallelism=plan, training=training)
    without = step(gpus=4, parallelism=plan, training=training)
    assert four - without == pytest.approx(alone - step(training=training), rel=0.05)


def test_copies_contend_with_the_loader() -> None:
    """Samples pass through the host's memory twice; beside copies that fill it, both take their time."""
    data = {"data": {"sample_size": "50 MB"}}
    moved = kept(outcome().result)
    samples = 2 * 50e6
    alone, both = (
        outcome(offload, host="1 GB/s", training={"steps": 4}, **data).result
        for offload in ({}, {"activations": "host"})
    )
    assert both.step_time_s > (2 * moved + samples) / GB
    assert both.step_time_s > alone.step_time_s
    assert both.bottlenecks[0].resource == "host_memory"
    assert both.utilization["host_memory"] > 0.9


def test_the_hosts_memory_is_part_of_the_verdict() -> None:
    """12 bytes of state and 2 of gradients a parameter, eight GPUs with a copy each."""
    offload = {"optimizer": "host"}
    found = outcome(offload, gpus=8).result
    assert found.fits
    assert found.host_memory_by_part == {"optimizer": 8 * 12 * PARAMETERS}
    assert found.host_memory_bytes == 8 * 12 * PARAMETERS
    cluster = scenario(offload, gpus=8).cluster.model_dump(mode="json")
    cluster["node_groups"][0]["host"]["memory_capacity"] = "16 GiB"
    short = outcome(offload, gpus=8, cluster=cluster).result
    assert not short.fits and short.tokens_per_s is None
    assert short.peak_memory_bytes <= short.memory_capacity_bytes
    assert short.host_memory_bytes > short.host_memory_capacity_bytes == 16 * 2**30


def test_replicas_share_the_state_out_on_their_host() -> None:
    plan = {"data_parallel_sharding": "parameters"}
    offload = {"parameters": "host", "optimizer": "host", "gradients": "host"}
    found = outcome(offload, gpus=8, parallelism=plan).result
    for name, size in (("parameters", 2), ("gradients", 2), ("optimizer", 12)):
        assert found.host_memory_by_part[name] == pytest.approx(size * PARAMETERS, rel=1e-3)


def lacking(memory: str) -> Outcome:
    """The plan on GPUs of so much memory, which does not suffice."""
    cluster = scenario().cluster.model_dump(mode="json")
    cluster["node_groups"][0]["accelerator"]["memory_capacity"] = memory
    found = outcome(cluster=cluster)
    assert not found.result.fits
    return found


def test_offloading_is_a_remedy_for_state_that_does_not_fit() -> None:
    found = {tuple(sorted(remedy.change)): remedy for remedy in remedies(lacking("8 GiB"))}
    one = found["training.offload.optimizer",]
    both = found["training.offload.gradients", "training.offload.optimizer"]
    assert one.fits and both.fits and both.peak_memory_bytes < one.peak_memory_bytes
    short = lacking("3 GiB")
    assert [sorted(remedy.change) for remedy in remedies(short)] != []
    for remedy in remedies(short):
        assert run(changed(short.scenario, remedy.change)).result.fits


def test_some_layers_are_recomputed_where_that_is_enough() -> None:
    training = {"micro_batch_size": 8, "global_batch_size": 8}
    whole = outcome(training=training).result
    cluster = scenario().cluster.model_dump(mode="json")
    cluster["node_groups"][0]["accelerator"]["memory_capacity"] = f"{whole.peak_memory_bytes * 0.85:.0f} B"
    found = remedies(outcome(training=training, cluster=cluster))
    half = next(r for r in found if r.change.get("training.recompute_num_layers") == LAYERS // 2)
    every = next(r for r in found if r.change == {"training.recompute": "full"})
    assert every.peak_memory_bytes < half.peak_memory_bytes
    assert half.throughput_change > every.throughput_change


@pytest.mark.parametrize(
    "offload", [{"activations": "host"}, {"activations": "host", "activation_layers": 3}]
)
def test_no_peak_is_below_its_bound(offload: dict[str, Any]) -> None:
    made = scenario(offload, gpus=4, parallelism={"pipeline_parallel": 4} if len(offload) == 1 else {},
                    training={"global_batch_size": 8})  # fmt: skip
    found, result = bounds(made, Calibration.load()), run(made).result
    assert found.memory_bytes <= result.peak_memory_bytes
    assert found.step_s <= result.step_time_s


EVERYTHING = {"activations": "nvme", "parameters": "nvme", "gradients": "host", "optimizer": "nvme"}
OFFLOADS = [
    {"activations": "host"},
    {"parameters": "host"},
    {"optimizer": "host", "optimizer_fraction": 0.5},
    {"optimizer": "nvme", "optimizer_step": "gpu"},
    EVERYTHING,
]


@pytest.mark.parametrize("offload", OFFLOADS, ids=str)
@pytest.mark.parametrize("gpus", [1, 4])
def test_every_byte_comes_back_on_both_players(offload: dict[str, Any], gpus: int) -> None:
    changes: dict[str, Any] = {"pcie": "20 GB/s", "host": "50 GB/s", "drives": ("6 GB/s", "3 GB/s")}
    made = scenario(
        offload,
        gpus=gpus,
        training={"global_batch_size": 2 * gpus},
        parallelism={"data_parallel_sharding": "parameters"} if gpus > 1 else {},
        **changes,
    )
    lowered = check(made)
    program, facts = lowered.program, lowered.facts
    play_on_both(program)
    taken, given = facts.host[program.cls].sum(axis=0)
    assert taken == given
    assert (taken > 0) == ("activations" in offload or "nvme" in offload.values())


@pytest.mark.parametrize("offload", OFFLOADS, ids=str)
def test_folded_and_unfolded_take_the_same_time(offload: dict[str, Any]) -> None:
    made = scenario(
        offload,
        gpus=8,
        pcie="20 GB/s",
        host="50 GB/s",
        drives=("6 GB/s", "3 GB/s"),
        training={"global_batch_size": 8},
        parallelism={"data_parallel_sharding": "parameters", "pipeline_parallel": 2},
    )
    assert_folds(check(made))


@pytest.mark.parametrize(
    "offload",
    [{"activations": "host"}, {"parameters": "host", "optimizer": "host", "gradients": "host"}],
    ids=str,
)
def test_a_teacher_stays_on_the_gpu(offload: dict[str, str]) -> None:
    teacher = {"distillation": {"teacher": scenario().model.model_dump(exclude_none=True)}}
    found = outcome(offload, training={"recompute": "full"}, **teacher)
    assert found.result.memory_by_part["teacher"] == 2 * PARAMETERS
    assert list(found.record.pool_final) == list(found.lowered.program.pools.initial)
    program = found.lowered.program
    names = [program.classes.labels[cls].name for cls in program.cls.tolist()]
    inputs = LAYERS * SEQUENCE * HIDDEN * 2
    if "parameters" in offload:
        assert names.count("parameters.to_gpu") == 2 * (LAYERS + 2)
        assert found.result.host_memory_by_part["parameters"] == 2 * PARAMETERS
    else:
        assert found.result.host_memory_by_part["activations_and_buffers"] == inputs


SCHEDULES: list[dict[str, Any]] = [
    *({"pipeline_schedule": name} for name in ("gpipe", "1f1b", "zb-1p", "zb-2p", "zb-v", "dualpipe")),
    {"virtual_pipeline": 2},
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize(
    "training",
    [
        {"recompute": "full", "recompute_num_layers": 1, "frozen_layers": 3},
        {"recompute": "selective", "attention": "unfused"},
    ],
    ids=str,
)
def test_every_schedule_goes_with_all_savers_folded_and_not(
    schedule: dict[str, Any], training: dict[str, Any]
) -> None:
    made = scenario(
        {"activations": "host", "optimizer": "host", "gradients": "host"},
        gpus=8,
        pcie="20 GB/s",
        host="200 GB/s",
        training={"global_batch_size": 16, "lora_rank": 8, **training},
        parallelism={"data_parallel_sharding": "gradients", "pipeline_parallel": 4, **schedule},
    )
    lowered = check(made)
    play_on_both(lowered.program)
    assert_folds(lowered)


@pytest.mark.parametrize(
    ("offload", "changes", "message"),
    [
        ({"gradients": "host"}, {}, "gradients: needs offload.optimizer: host or nvme"),
        ({"optimizer_fraction": 0.5}, {}, "optimizer_fraction: needs offload.optimizer"),
        ({"optimizer_step": "gpu"}, {}, "optimizer_step: needs offload.optimizer"),
        ({"activation_layers": 2}, {}, "activation_layers: does nothing without offload.activations"),
        ({"activations": "host", "activation_layers": 9}, {}, "9 layers, but the largest of 1 parts"),
        ({"activations": "disk"}, {}, "activations"),
        ({"optimiser": "host"}, {}, 'did you mean "optimizer"?'),
        ({"parameters": "host"}, {"gpus": 8}, "each of 8 replicas would fetch all of them"),
        (
            {"optimizer": "host", "gradients": "host"},
            {"gpus": 8},
            "each of 8 replicas would send all of them",
        ),
        (
            {"optimizer": "host", "gradients": "host", "optimizer_fraction": 0.5},
            {},
            "the GPU's part of the update would have to fetch them",
        ),
        ({"optimizer": "host"}, {"training": {"optimizer": "muon"}}, "muon makes matrices orthogonal"),
        (
            {"optimizer": "host", "optimizer_step": "gpu", "optimizer_fraction": 0.5},
            {"training": {"optimizer": "muon"}},
            "which matrices would stay on the GPU is not modelled for muon",
        ),
        (
            {"optimizer": "host", "optimizer_step": "gpu"},
            {"training": {"optimizer": "muon"}, "gpus": 2, "parallelism": {"tensor_parallel": 2}},
            "tile by tile that are split over GPUs",
        ),
        (
            {"optimizer": "host", "optimizer_step": "gpu"},
            {
                "training": {"optimizer": "muon"},
                "gpus": 2,
                "parallelism": {"data_parallel_sharding": "parameters"},
            },
            "shared out (data_parallel_sharding: parameters)",
        ),
        (
            {"optimizer": "host"},
            {"training": {"optimizer": "sgd", "precision": "fp32"}},
            "sgd keeps no state of these parameters",
        ),
        ({"parameters": "host"}, {"training": {"precision": "fp8"}}, "not modelled in fp8"),
        (
            {"optimizer": "host", "gradients": "host"},
            {"parallelism": {"reduce_each_micro_batch": False}},
            "false keeps gradients on the GPU",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_offloaded_is_refused(
    offload: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((PlanError, ScenarioError)) as refused:
        outcome(offload, **changes)
    assert message in str(refused.value)


def test_drives_must_be_in_the_node() -> None:
    cluster = scenario().cluster.model_dump(mode="json")
    cluster["storage"]["kind"] = "shared"
    with pytest.raises(ScenarioError, match="nvme needs drives in every node"):
        outcome({"optimizer": "nvme"}, cluster=cluster)


def with_drives(shared: str = "10 TB/s", drives: str = "1 GB/s", **figures: Any) -> dict[str, Any]:
    """The cluster with shared storage, and drives in its node besides."""
    cluster = scenario().cluster.model_dump(mode="json", exclude_none=True)
    rates = {"read_bandwidth": drives, "write_bandwidth": drives, "latency": "0 s"}
    cluster["storage"] |= {"kind": "shared", "read_bandwidth": shared, "write_bandwidth": shared}
    return {**cluster, "drives": {"base": "nvme-gen4", **rates, **figures}}


def test_drives_and_shared_storage_do_not_wait_for_one_another() -> None:
    """State at the drives' rate, samples at the storage's; neither takes from the other."""
    offload, data = {"optimizer": "nvme"}, {"sample_size": "1 GB", "prefetch": 0}
    state = step(offload, cluster=with_drives())
    assert state == step(offload, drives=("1 GB/s", "1 GB/s"))
    samples = step(cluster=with_drives("1 GB/s"), data=data, simulation={"warmup_steps": 0}) - step()
    assert samples == pytest.approx(1.0, rel=0.01)
    both = step(offload, cluster=with_drives("1 GB/s"), data=data)
    assert both == pytest.approx(state + samples, rel=0.01)


@pytest.mark.parametrize("place", ["optimizer", "activations"])
def test_what_drives_cannot_hold_does_not_fit(place: str) -> None:
    """12 bytes a parameter; what layers keep between their passes, each stage's as long as it waits."""
    held = sum(outcome({place: "nvme"}, cluster=with_drives()).result.drives_by_part.values())
    if place == "optimizer":
        assert held == 12 * PARAMETERS
    else:
        assert 0.5 * kept(outcome().result) < held <= kept(outcome().result)
    for room, fits in ((held // 2 + 1, True), (held // 2 - 1, False)):
        drives = with_drives(servers=2, capacity=f"{room} B")
        result = outcome({place: "nvme"}, cluster=drives).result
        assert (result.fits, result.drives_capacity_bytes) == (fits, 2 * room)


def test_drives_are_those_of_nodes_and_not_there_twice() -> None:
    with pytest.raises(ScenarioError, match="is shared by all nodes; drives are of kind: local"):
        scenario(cluster=with_drives(kind="shared"))
    cluster = with_drives()
    cluster["storage"]["kind"] = "local"
    with pytest.raises(ScenarioError, match=r"cluster\.storage is drives in every node already"):
        scenario(cluster=cluster)


@pytest.mark.parametrize("place", ["host", "nvme"])
def test_whole_matrices_are_made_orthogonal_between_the_ways_of_their_state(place: str) -> None:
    """8 bytes of state a parameter, 12 of what is no matrix of a layer; the same products as on the GPU."""
    muon = {"training": {"optimizer": "muon"}}
    offload = {"optimizer": place, "optimizer_step": "gpu"}
    away, here = outcome(offload, pcie="1 GB/s", **muon), outcome(**muon)
    parts = away.result.host_memory_by_part if place == "host" else away.result.drives_by_part
    outside = ENDS
    assert parts["optimizer"] == 8 * PARAMETERS + 4 * outside

    def products(found: Outcome) -> int:
        program, facts = found.lowered.program, found.lowered.facts
        chosen = [label.name.startswith("optimizer.muon") for label in program.classes.labels]
        return sum(int(facts.flops[cls]) for cls in program.cls if chosen[cls])

    assert products(away) == products(here) > 0
    taken = away.result.step_time_s - here.result.step_time_s
    assert parts["optimizer"] / GB < taken < 1.4 * parts["optimizer"] / GB
    play_on_both(away.lowered.program)
