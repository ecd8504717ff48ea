"""Whatever the split: every byte that is kept is freed, and records obey the laws of conservation."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from simulator.errors import PlanError, ScenarioError
from simulator.run import run
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.specs.model import LatentAttentionSpec, MixtureSpec, TransformerSpec
from simulator.workload import Block, Shard, embedding_block, head_block, layer_block, recomputing
from support.laws import assert_conserves

DENSE: dict[str, Any] = {
    "name": "small",
    "num_hidden_layers": 8,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "gated_mlp": True,
    "hidden_act": "silu",
    "norm": "rmsnorm",
    "position_embedding": "rotary",
}
MIXTURE = MixtureSpec(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=1024, num_shared_experts=1)
LATENT = LatentAttentionSpec(
    q_lora_rank=256, kv_lora_rank=128, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64
)
MODELS = {
    "dense": TransformerSpec(**DENSE),
    "encoder": TransformerSpec(**{**DENSE, "family": "encoder", "norm": "layernorm", "gated_mlp": False}),
    "experts": TransformerSpec(**DENSE, mixture=MIXTURE),
    "latent": TransformerSpec(**DENSE, latent_attention=LATENT, mixture=MIXTURE),
}


def shards(model: str) -> list[Shard]:
    """Parts of a micro-batch in many ways."""
    experts = model in ("experts", "latent")
    ways = product(
        (1, 4),
        (1, 2),
        ("", "fp8", "nvfp4"),
        (False, True),
        ("ring", "all_to_all", "all_gather"),
        (0, 16),
        (1, 4),
    )
    return [
        Shard(
            micro_batch_size=2,
            sequence_length=2048,
            tensor_parallel=tensor,
            sequence_parallel=tensor > 1,
            precision="bf16",
            attention="fused",
            gradient_bytes=4,
            dropout=dropout,
            recipe=recipe,
            context_parallel=context,
            context_method=method,
            expert_parallel=4,
            expert_tensor_parallel=split,
            lora_rank=rank,
            lora_targets=("attention.qkv", "experts.up" if experts else "mlp.down", "router", "shared.down"),
        )
        for tensor, context, recipe, dropout, method, rank, split in ways
        if experts or split == tensor
    ]


def blocks_of(model: TransformerSpec, shard: Shard) -> list[Block]:
    return [
        embedding_block(model, shard),
        layer_block(model, shard, dense=True),
        layer_block(model, shard, dense=model.mixture is None),
        head_block(model, shard, shares_embedding=False),
    ]


@pytest.mark.parametrize("name", MODELS)
def test_what_is_kept_is_freed(name: str) -> None:
    model = MODELS[name]
    for shard in shards(name):
        for block in blocks_of(model, shard):
            freed = sum(node.freed_bytes for node in block.backward)
            assert block.kept_bytes == freed, (block.name, shard)
            assert all(node.held_bytes == 0 for node in block.backward if node.role != "weight_gradient")
            for nodes in (block.forward, block.backward):
                assert all(earlier < place for place, n in enumerate(nodes) for earlier in n.after)


@pytest.mark.parametrize("name", MODELS)
def test_split_over_tensor_parallel_gpus_nothing_is_lost(name: str) -> None:
    """Arithmetic of the matrices: what one GPU does alone is what four do together."""
    model = MODELS[name]

    def flops(tensor: int, context: int, split: int = 0) -> int:
        shard = Shard(
            micro_batch_size=4,
            sequence_length=2048,
            tensor_parallel=tensor,
            sequence_parallel=tensor > 1,
            precision="bf16",
            attention="fused",
            gradient_bytes=4,
            context_parallel=context,
            expert_parallel=4,
            expert_tensor_parallel=split or tensor,
        )
        block = layer_block(model, shard, dense=model.mixture is None)
        nodes = [node.op for node in (*block.forward, *block.backward)]
        return sum(getattr(op, "model_flops", 0) for op in nodes)

    alone = flops(1, 1)
    for split in (4, 1, 2, 8):
        assert flops(4, 1, split) * 4 == pytest.approx(alone, rel=1e-3)
    # Half of a causal block on the diagonal counts its diagonal, too.
    assert flops(1, 2) * 2 == pytest.approx(alone, rel=2e-3)


PLANS: list[dict[str, Any]] = [
    {"pipeline_parallel": 4, "pipeline_schedule": name}
    for name in ("gpipe", "1f1b", "zb-1p", "zb-2p", "zb-v", "dualpipe", "dualpipe-v")
] + [
    {"pipeline_parallel": 4, "virtual_pipeline": 2},
    {"pipeline_parallel": 4, "overlap_point_to_point": False},
    {"data_parallel_sharding": "gradients"},
    {"data_parallel_sharding": "gradients", "reduce_each_micro_batch": False},
    {"data_parallel_sharding": "parameters"},
    {"data_parallel_sharding": "parameters", "gather_prefetch": 0},
    {"data_parallel_sharding": "parameters", "gather_prefetch": 20},
    {"data_parallel_sharding": "parameters", "gather_prefetch": 0, "gather_prefetch_backward": 3},
    {"data_parallel_sharding": "parameters", "sharding_group_size": 4},
    {"data_parallel_sharding": "parameters", "reshard_after_forward": False},
    {"data_parallel_sharding": "parameters", "reduce_each_micro_batch": False},
    {"data_parallel_sharding": "parameters", "pipeline_parallel": 4, "pipeline_schedule": "zb-1p"},
    {"tensor_parallel": 4, "sequence_parallel": True, "context_parallel": 2},
    {"tensor_parallel": 4, "sequence_parallel": True, "data_parallel_sharding": "parameters"},
    {"context_parallel": 4, "context_parallel_method": "all_to_all"},
    {"context_parallel": 4, "context_parallel_method": "all_gather"},
    {"expert_parallel": 8},
    {"expert_parallel": 8, "data_parallel_sharding": "parameters"},
    {"expert_parallel": 4, "tensor_parallel": 2, "sequence_parallel": True, "expert_tensor_parallel": 1},
    {"expert_parallel": 2, "tensor_parallel": 4, "sequence_parallel": True, "expert_tensor_parallel": 2},
    {"expert_parallel": 4, "tensor_parallel": 2, "sequence_parallel": True, "expert_tensor_parallel": 4},
    {"expert_parallel": 2, "expert_tensor_parallel": 8, "data_parallel_sharding": "gradients"},
    {"expert_parallel": 4, "expert_capacity_factor": 1.25},
    {"expert_parallel": 4, "pipeline_parallel": 4, "pipeline_schedule": "dualpipe"},
    {"expert_parallel": 4, "pipeline_parallel": 4, "pipeline_schedule": "dualpipe-v"},
    {"expert_parallel": 8, "pipeline_parallel": 2, "overlap_expert_exchange": True},
    {"order": ("pipeline", "data", "context", "tensor"), "pipeline_parallel": 2, "tensor_parallel": 2},
]


def scenario(
    parallelism: dict[str, Any], training: dict[str, Any], model: TransformerSpec, **blocks: Any
) -> Scenario:
    return scenario_from_mapping(
        {
            "cluster": {"system": "dgx-h100", "nodes": 2},
            **blocks,
            "name": "split",
            "model": model.model_dump(exclude_none=True),
            "training": {
                "sequence_length": 1024,
                "micro_batch_size": 1,
                "global_batch_size": 128,
                **training,
            },
            "parallelism": parallelism,
        }
    )


SAVERS: list[dict[str, Any]] = [
    {"recompute": "none"},
    {"recompute": "selective"},
    {"recompute": "selective", "recompute_modules": ["layernorm", "core_attention"]},
    {"recompute": "full"},
    {"recompute": "full", "recompute_num_layers": 1},
    {"recompute": "full", "recompute_num_layers": 1, "recompute_method": "uniform"},
    {"frozen_layers": 3, "recompute": "full"},
]
"""What saves memory, with every split."""


@pytest.mark.parametrize("training", SAVERS, ids=str)
@pytest.mark.parametrize("parallelism", PLANS, ids=str)
def test_any_split_conserves(parallelism: dict[str, Any], training: dict[str, Any]) -> None:
    experts = "expert_parallel" in parallelism
    model = MODELS["experts" if experts else "dense"]
    outcome = run(scenario(parallelism, training, model))
    assert_conserves(outcome.lowered.program, outcome.record)


MODULES = (
    ("dense", ["mlp", "layernorm"]),
    ("dense", ["mlp"]),
    ("experts", ["core_attention", "moe"]),
    ("experts", ["layernorm", "moe_activation", "shared_experts"]),
    ("latent", ["layernorm", "mla_up_projection", "moe"]),
    ("latent", ["mla_up_projection", "moe_activation"]),
)


@pytest.mark.parametrize(("name", "modules"), MODULES, ids=str)
def test_modules_that_are_computed_again_give_back_what_they_keep(name: str, modules: list[str]) -> None:
    """Whatever of a layer is chosen, of whatever shard: both passes together leave nothing behind."""
    for shard in shards(name)[::5]:  # no number of ways is a multiple of 5: every pair of ways is among them
        for block in blocks_of(MODELS[name], shard):
            saved = recomputing(block, frozenset(modules))
            again = sum(node.kept_bytes for node in saved.backward)
            assert saved.kept_bytes + again == block.kept_bytes
            assert sum(node.freed_bytes for node in saved.backward) == block.kept_bytes
            assert all(earlier < place for place, n in enumerate(saved.backward) for earlier in n.after)
            for place, node in enumerate(saved.backward):
                assert not place or node.after, f"{node.op.name} would begin before the pass"


@pytest.mark.parametrize(("name", "modules"), MODULES, ids=str)
@pytest.mark.parametrize("schedule", ["1f1b", "zb-1p", "zb-v", "dualpipe"])
def test_modules_go_with_split_passes(name: str, modules: list[str], schedule: str) -> None:
    plan = {"pipeline_parallel": 4, "pipeline_schedule": schedule}
    plan |= {} if name == "dense" else {"expert_parallel": 4}
    training = {"recompute": "selective", "recompute_modules": modules}
    outcome = run(scenario(plan, training, MODELS[name]))
    assert_conserves(outcome.lowered.program, outcome.record)


OFFLOADS: list[dict[str, Any]] = [
    {"activations": "host"},
    {"activations": "nvme", "activation_layers": 1, "optimizer": "host", "optimizer_fraction": 0.5},
    {"parameters": "host", "gradients": "host", "optimizer": "nvme", "optimizer_step": "gpu"},
]
REFUSED = (
    "replicas would",  # gradients or parameters that no sharding shares out
    "would keep them on the GPU",
    "false keeps gradients on the GPU",
    "not modelled where parameters",
)


@pytest.mark.parametrize("offload", OFFLOADS, ids=str)
@pytest.mark.parametrize("parallelism", PLANS, ids=str)
def test_any_split_goes_with_offload_or_says_why_not(
    parallelism: dict[str, Any], offload: dict[str, Any]
) -> None:
    experts = "expert_parallel" in parallelism
    model = MODELS["experts" if experts else "dense"]
    local = {"cluster": {"system": "dgx-h100", "nodes": 2, "storage": "nvme-gen4"}}
    try:
        outcome = run(scenario(parallelism, {"offload": offload}, model, **local))
    except ScenarioError as refused:
        assert any(reason in str(refused) for reason in REFUSED)
        assert "parameters" in offload, "activations and state go with every split"
        return
    program = outcome.lowered.program
    assert_conserves(program, outcome.record)
    taken, given = outcome.lowered.facts.host[program.cls].sum(axis=0)
    assert taken == given


@pytest.mark.parametrize("schedule", ["zb-1p", "zb-v", "dualpipe"])
def test_adapters_are_trained_in_split_passes(schedule: str) -> None:
    plan = {"pipeline_parallel": 4, "pipeline_schedule": schedule}
    outcome = run(scenario(plan, {"lora_rank": 8, "lora_targets": ("mlp.up",)}, MODELS["dense"]))
    assert_conserves(outcome.lowered.program, outcome.record)
    names = {label.name for label in outcome.lowered.program.classes.labels}
    assert "mlp.up.lora_a.weight_gradient" in names
    assert "mlp.up.weight_gradient" not in names


@pytest.mark.parametrize("tensor", [1, 4])
def test_adapters_of_latent_attention_are_counted_matrix_by_matrix(tensor: int) -> None:
    """r (rows + columns) of the projections down and up and of the output, each split by heads or whole."""
    model, rank, heads = MODELS["latent"], 8, DENSE["num_attention_heads"] // tensor
    outcome = run(
        scenario(
            {"expert_parallel": 4, "tensor_parallel": tensor, "sequence_parallel": tensor > 1},
            {"lora_rank": rank, "lora_targets": ("attention.qkv", "attention.output"), "recompute": "full"},
            model,
        )
    )
    width, down, key, value = 1024, 256 + 128 + 32, heads * (64 + 32), heads * 64
    sides = (width + down) + (256 + key) + (128 + heads * (64 + 64)) + (value + width)
    state = outcome.lowered.states[0]
    assert (state.dense, state.expert) == (8 * rank * sides, 0)
    names = {label.name for label in outcome.lowered.program.classes.labels}
    assert {f"attention.{name}.lora_a" for name in ("down", "query_up", "key_value_up", "output")} <= names
    assert not any(name.startswith("experts") and "weight_gradient" in name for name in names)
    assert_conserves(outcome.lowered.program, outcome.record)


@pytest.mark.parametrize(
    ("parallelism", "training", "model", "message"),
    [
        ({"tensor_parallel": 6}, {}, "dense", "6 does not divide num_attention_heads: 16 (4 and 8 do)"),
        ({"expert_parallel": 3}, {}, "experts", "3 does not divide num_experts: 8 (2 and 4 do)"),
        ({"expert_parallel": 2}, {}, "dense", "but the model has no experts"),
        ({"expert_parallel": 2, "tensor_parallel": 2}, {}, "experts", "sequence_parallel"),
        ({"context_parallel": 16}, {"sequence_length": 1000}, "dense", "do not divide sequence_length: 1000"),
        (
            {"context_parallel": 2},
            {"attention": "unfused"},
            "dense",
            "a split sequence needs attention: fused",
        ),
        ({"pipeline_parallel": 16}, {}, "dense", "too many for num_hidden_layers: 8"),
        ({"pipeline_parallel": 2, "pipeline_layers": (4, 5)}, {}, "dense", "9 layers are given"),
        ({"pipeline_parallel": 2, "pipeline_layers": (8,)}, {}, "dense", "1 numbers for 2 parts"),
        (
            {"sharding_group_size": 3, "data_parallel_sharding": "optimizer"},
            {},
            "dense",
            "3 does not divide the 16 replicas (2 and 4 do)",
        ),
        (
            {"reshard_after_forward": False, "pipeline_parallel": 2, "data_parallel_sharding": "parameters"},
            {},
            "dense",
            "every micro-batch in flight",
        ),
        ({"order": ("tensor", "data")}, {}, "dense", "each of tensor, context, data, pipeline once"),
        (
            {"pipeline_schedule": "zb-1p", "virtual_pipeline": 2, "pipeline_parallel": 2},
            {},
            "dense",
            "go with",
        ),
        ({"gather_prefetch": 2}, {}, "dense", "does nothing without sharded or offloaded parameters"),
        ({"sharding_group_size": 8}, {}, "dense", "does nothing without data_parallel_sharding"),
        ({"context_parallel_method": "all_to_all"}, {}, "dense", "does nothing without context_parallel"),
        ({"expert_imbalance": 2.0}, {}, "dense", "does nothing without a model with routed experts"),
        ({"expert_imbalance": 0.5}, {}, "experts", "0.5 is not between 1 (all have the mean) and 1:"),
        ({"expert_parallel": 8, "expert_imbalance": 0.9}, {}, "experts", "1 (all have the mean) and 4:"),
        ({"expert_parallel": 4, "expert_imbalance": 9.0}, {}, "experts", "the busiest of 4 GPUs has"),
        (
            {"expert_parallel": 4, "expert_imbalance": 1.2, "expert_capacity_factor": 1.5},
            {},
            "experts",
            "does nothing beside expert_capacity_factor",
        ),
        ({"expert_capacity_factor": 99.0}, {}, "experts", "99 is more slots than tokens"),
        (
            {"data_parallel_sharding": "parameters", "gradient_bucket": "1 MB"},
            {},
            "dense",
            "sharded ones are reduced layer by layer",
        ),
        ({}, {"lora_targets": ("mlp.up",)}, "dense", "does nothing without lora_rank above 0"),
        ({}, {"lora_rank": 8, "lora_targets": ()}, "dense", "names no matrix"),
        ({}, {"lora_rank": 8, "lora_targets": ("mlp.up",) * 2}, "dense", "names mlp.up more than once"),
        ({}, {"lora_rank": 100_000}, "dense", "is no low rank of hidden_size"),
        (
            {},
            {"parameter_precision": "fp32", "master_parameters": True},
            "dense",
            "does nothing without parameters in 16 bits",
        ),
        ({}, {"optimizer": "sgd", "optimizer_precision": "bf16"}, "dense", "which sgd does not keep"),
        (
            {},
            {"optimizer": "adam_8bit", "optimizer_precision": "bf16"},
            "dense",
            "adam_8bit does not keep moments",
        ),
        ({}, {"precision": "nvfp4"}, "dense", 'no figure for "fp4"'),
        ({}, {"precision": "mxfp8"}, "dense", "no matrix units that scale by blocks"),
        ({}, {"lora_rank": 8}, "experts", "mlp.up: small has none; it has: "),
    ],
)
def test_what_cannot_be_split_is_refused_with_the_arithmetic(
    parallelism: dict[str, Any], training: dict[str, Any], model: str, message: str
) -> None:
    with pytest.raises((PlanError, ScenarioError)) as refused:
        run(scenario(parallelism, training, MODELS[model]))
    assert message in str(refused.value)


def test_layers_that_do_not_divide_leave_the_ends_short() -> None:
    from simulator.program import make_plan

    def layers(number: int, stages: int, chunks: int = 1) -> tuple[int, ...]:
        model = MODELS["dense"].model_copy(update={"num_hidden_layers": number})
        plan = {"pipeline_parallel": stages, "virtual_pipeline": chunks}
        return make_plan(scenario(plan, {}, model)).layers_per_part

    assert layers(30, 8) == (3, 4, 4, 4, 4, 4, 4, 3)
    assert layers(31, 8) == (4, 4, 4, 4, 4, 4, 4, 3)
    assert layers(14, 8, 2) == (0, *(1,) * 14, 0)
    assert layers(61, 16) == (3, *(4,) * 13, 3, 3)
    assert sum(layers(29, 8)) == 29


def test_passes_side_by_side_do_the_same_and_hide_their_exchanges() -> None:
    plan = {"expert_parallel": 4, "pipeline_parallel": 4, "pipeline_schedule": "dualpipe"}

    def outcome(*, overlap: bool) -> Any:
        recorded = {"base": "megatron-core", "cuda_graphs": True}  # or launching alone would set the pace
        settings = plan | {"overlap_expert_exchange": overlap}
        return run(scenario(settings, {}, MODELS["experts"], software=recorded))

    beside, behind = outcome(overlap=True), outcome(overlap=False)

    def work(each: Any) -> Any:
        program = each.lowered.program
        tags = [program.tags[name] for name in ("stage", "micro_batch", "layer")]
        return np.lexsort((program.cls, *tags)), program, tags

    (one, first, one_tags), (other, second, other_tags) = work(beside), work(behind)
    assert np.array_equal(first.cls[one], second.cls[other])
    assert all(np.array_equal(a[one], b[other]) for a, b in zip(one_tags, other_tags, strict=True))
    exposed = [each.result.breakdown["communication.all_to_all"] for each in (beside, behind)]
    assert exposed[0] < 0.8 * exposed[1]
    assert beside.result.step_time_s < behind.result.step_time_s
