"""Nothing that is accepted is ignored: every key of a plan and of training changes a result somewhere."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from simulator.run import run
from simulator.scenario import scenario_from_mapping
from simulator.specs import (
    CheckpointSpec,
    CommunicationPrecisionSpec,
    DataSpec,
    MixtureSpec,
    OffloadSpec,
    OptimizerPrecisionSpec,
    ParallelismSpec,
    StorageSpec,
    TrainingSpec,
)
from simulator.specs._base import Spec

Changes = dict[str, Any]

EXPERTS: Changes = {
    "model.mixture": {"num_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
}
NORMED: Changes = {
    "model.mixture": {
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 256,
        "n_group": 4,
    },
    "parallelism.expert_parallel": 16,
    "software": {"base": "megatron-core", "expert_dispatch": "deduplicated"},
}
STACKS: Changes = {
    "model.family": "encoder-decoder",
    "model.num_encoder_layers": 4,
    "model.num_decoder_layers": 4,
    "model.num_hidden_layers": 8,
    "training.decoder_sequence_length": 128,
}
PIPELINE: Changes = {"parallelism.pipeline_parallel": 4}
SHARDED: Changes = {"parallelism.data_parallel_sharding": "parameters"}
SLOW: Changes = {"cluster.scale_out": {"bandwidth": "1 GB/s"}, "parallelism.gradient_bucket": "1 MB"}
OUTSIDE: Changes = {"training.offload": {"optimizer": "host"}}
SAMPLES: Changes = {"data": {"sample_size": "20 MB", "loader_workers": 1}, "training.steps": 3}
EIGHT: Changes = {"training.precision": "fp8", "training.parameter_precision": "fp8"}
SPLIT: Changes = {"parallelism.tensor_parallel": 2, "parallelism.sequence_parallel": True}
DRIVES: Changes = {"training.offload": {"optimizer": "nvme"}}
STORED: Changes = {"checkpoint": {"interval": 1}, **SAMPLES}

CASES: dict[str, tuple[Changes, Any]] = {
    "training.sequence_length": ({}, 512),
    "training.decoder_sequence_length": (STACKS, 256),
    "training.micro_batch_size": ({}, 2),
    "training.global_batch_size": ({}, 128),
    "training.precision": ({}, "fp8"),
    "training.parameter_precision": ({}, "fp32"),
    "training.master_parameters": ({}, False),
    "training.optimizer_precision": ({}, "bf16"),
    "training.optimizer_precision.first_moment": ({}, "bf16"),
    "training.optimizer_precision.second_moment": ({}, "bf16"),
    "training.optimizer_precision.master": (EIGHT, "bf16"),
    "training.communication_precision": ({}, "bf16"),
    "training.communication_precision.gradients": ({}, "bf16"),
    "training.communication_precision.parameters": (SHARDED, "fp8"),
    "training.communication_precision.tensor": (SPLIT | {"training.precision": "fp8"}, "bf16"),
    "training.communication_precision.dispatch": (EXPERTS | {"parallelism.expert_parallel": 4}, "fp8"),
    "training.communication_precision.combine": (EXPERTS | {"parallelism.expert_parallel": 4}, "fp8"),
    "training.lora_rank": ({}, 8),
    "training.lora_targets": ({"training.lora_rank": 8}, ["mlp.up"]),
    "training.frozen_layers": ({}, 2),
    "training.frozen": ({}, ["*.mlp"]),
    "training.optimizer": ({}, "sgd"),
    "training.gradient_precision": ({}, "bf16"),
    "training.activation_input_precision": ({"model.gated_mlp": True, "training.precision": "fp8"}, "fp8"),
    "training.recompute": ({}, "full"),
    "training.recompute_modules": ({"training.recompute": "selective"}, ["mlp"]),
    "training.recompute_num_layers": ({"training.recompute": "full"}, 1),
    "training.recompute_method": (
        {"training.recompute": "full", "training.recompute_num_layers": 2},
        "uniform",
    ),
    "training.attention": ({}, "unfused"),
    "training.dropout": ({}, False),
    "training.predicted_share": ({"model.family": "encoder"}, 0.2),
    "training.offload": ({}, {"activations": "host"}),
    "training.offload.activations": ({}, "host"),
    "training.offload.activation_layers": ({"training.offload": {"activations": "host"}}, 1),
    "training.offload.parameters": (SHARDED, "host"),
    "training.offload.gradients": (SHARDED | OUTSIDE, "host"),
    "training.offload.optimizer": ({}, "host"),
    "training.offload.optimizer_fraction": (OUTSIDE, 0.5),
    "training.offload.optimizer_step": (OUTSIDE, "gpu"),
    "training.gradient_clipping": ({}, False),
    "training.steps": ({}, 2),
    "parallelism.tensor_parallel": ({}, 2),
    "parallelism.sequence_parallel": ({"parallelism.tensor_parallel": 2}, True),
    "parallelism.pipeline_parallel": ({}, 2),
    "parallelism.encoder_pipeline_parallel": (STACKS | PIPELINE, 1),
    "parallelism.virtual_pipeline": ({"parallelism.pipeline_parallel": 2}, 2),
    "parallelism.pipeline_schedule": (PIPELINE, "gpipe"),
    "parallelism.pipeline_order": (
        {"parallelism.pipeline_parallel": 2, "training.global_batch_size": 16},
        ["F0 F1 B0 B1", "F0 F1 B0 B1"],
    ),
    "parallelism.pipeline_layers": (PIPELINE, [1, 3, 2, 2]),
    "parallelism.overlap_point_to_point": (PIPELINE, False),
    "parallelism.optimizer_post_validation": (PIPELINE | {"training.steps": 2}, True),
    "parallelism.context_parallel": ({}, 2),
    "parallelism.context_parallel_method": ({"parallelism.context_parallel": 2}, "all_to_all"),
    "parallelism.expert_parallel": (EXPERTS, 4),
    "parallelism.expert_tensor_parallel": (EXPERTS, 2),
    "parallelism.expert_capacity_factor": (EXPERTS, 1.5),
    "parallelism.overlap_expert_exchange": (EXPERTS | PIPELINE | {"parallelism.expert_parallel": 4}, True),
    "parallelism.expert_imbalance": (EXPERTS | {"parallelism.expert_parallel": 4}, 1.5),
    "parallelism.data_parallel": ({}, None),
    "parallelism.data_parallel_sharding": ({}, "optimizer"),
    "parallelism.sharding_group_size": (SHARDED, 4),
    "parallelism.reshard_after_forward": (SHARDED, False),
    "parallelism.gather_prefetch": (SHARDED, 0),
    "parallelism.gather_prefetch_backward": (SHARDED, 4),
    "parallelism.reduce_each_micro_batch": ({"parallelism.data_parallel_sharding": "gradients"}, False),
    "parallelism.gradient_bucket": ({}, "1 MB"),
    "parallelism.overlap_gradient_reduction": (SLOW, False),
    "parallelism.order": ({"parallelism.tensor_parallel": 2}, ["data", "tensor", "context", "pipeline"]),
    "data.sample_size": (SAMPLES, "40 MB"),
    "data.samples_per_file": (
        {"data": {"sample_size": "10 kB", "prefetch": 0}, "cluster.storage.latency": "1 s"},
        1000,
    ),
    "data.read_size": ({"data": {"sample_size": "1 MB", "prefetch": 0}}, "1 kB"),
    "data.decode_time": (SAMPLES, "1 s"),
    "data.loader_workers": ({"data": {"sample_size": "1 MB", "decode_time": "1 s"}}, 8),
    "data.prefetch": (SAMPLES, 0),
    "checkpoint.interval": (STORED, 100),
    "checkpoint.asynchronous": (STORED, True),
    "model.mixture.num_experts": (EXPERTS, 8),
    "model.mixture.num_experts_per_tok": (EXPERTS, 4),
    "model.mixture.moe_intermediate_size": (EXPERTS, 512),
    "model.mixture.num_shared_experts": (EXPERTS, 1),
    "model.mixture.first_k_dense_replace": (EXPERTS, 1),
    "model.mixture.decoder_sparse_step": (EXPERTS, 2),
    "model.mixture.encoder_sparse_step": (EXPERTS | STACKS, 2),
    "model.mixture.n_group": (NORMED | {"model.mixture": EXPERTS["model.mixture"] | {"topk_group": 1}}, 2),
    "model.mixture.topk_group": (NORMED, 2),
    "cluster.storage.kind": (SAMPLES, "local"),
    "cluster.storage.servers": (STORED, 100),
    "cluster.storage.read_bandwidth": (SAMPLES, "10 MB/s"),
    "cluster.storage.write_bandwidth": (STORED, "10 MB/s"),
    "cluster.storage.read_iops": (SAMPLES, "1 IOPS"),
    "cluster.storage.write_iops": (STORED, "1 IOPS"),
    "cluster.storage.latency": (SAMPLES, "10 s"),
    "cluster.storage.capacity": (DRIVES | {"cluster.storage.kind": "local"}, "1 kB"),
}
"""By key: what a scenario needs for it to mean something, and a value that makes a difference there."""

TOLD = frozenset({"name", "figures"})
"""Keys that are told and not computed with."""

NO_CHANGE = {
    "parallelism.data_parallel": "says what follows, and is held against it",
}
"""Keys that may not change anything: what they do instead."""


def mapping(changes: Changes) -> dict[str, Any]:
    """A small model on two nodes with what a case needs."""
    made: dict[str, Any] = {
        "name": "keys",
        "cluster": {
            "system": "dgx-h100",
            "nodes": 2,
            "storage": {"base": "lustre-server", "servers": 1},
        },
        "model": {
            "name": "small",
            "num_hidden_layers": 8,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_attention_heads": 8,
            "vocab_size": 4096,
            "max_position_embeddings": 1024,
        },
        "training": {"sequence_length": 256, "micro_batch_size": 1, "global_batch_size": 64},
        "parallelism": {},
    }
    for dotted, value in changes.items():
        *inside, last = dotted.split(".")
        block = made
        for step in inside:
            if not isinstance(block.get(step), dict):
                block[step] = {}
            block = block[step]
        block[last] = deepcopy(value)
    return made


def digest(changes: Changes) -> tuple[object, ...]:
    """What a user would see change."""
    result = run(scenario_from_mapping(mapping(changes))).result
    return (
        result.step_time_s,
        tuple(result.breakdown.items()),
        tuple(result.memory_by_part.items()),
        tuple(result.memory_by_stage),
        tuple(result.host_memory_by_part.items()),
        tuple(result.drives_by_part.items()),
        result.fits,
        result.num_activities,
    )


@pytest.mark.parametrize("key", [key for key in CASES if key not in NO_CHANGE])
def test_it_changes_what_comes_out(key: str) -> None:
    needs, value = CASES[key]
    assert digest(needs) != digest({**needs, key: value})


@pytest.mark.parametrize(
    ("prefix", "spec"),
    [
        ("training", TrainingSpec),
        ("training.offload", OffloadSpec),
        ("training.communication_precision", CommunicationPrecisionSpec),
        ("training.optimizer_precision", OptimizerPrecisionSpec),
        ("parallelism", ParallelismSpec),
        ("data", DataSpec),
        ("checkpoint", CheckpointSpec),
        ("model.mixture", MixtureSpec),
        ("cluster.storage", StorageSpec),
    ],
)
def test_every_key_has_a_case(prefix: str, spec: type[Spec]) -> None:
    keys = {f"{prefix}.{name}" for name in spec.model_fields if name not in TOLD}
    assert keys <= CASES.keys()
    named = {key for key in CASES if key.rpartition(".")[0] == prefix}
    assert named <= keys
