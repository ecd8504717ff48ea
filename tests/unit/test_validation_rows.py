"""Rows of training files as scenarios: every column arrives, every gap has its rule."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import UnsupportedError
from simulator.scenario import Scenario, scenario_from_mapping
from simulator.specs import Calibration
from simulator.validation import TrainingRuns, scenario_mapping
from simulator.validation._memory import as_printed

LLAMA = {
    "id": "llama-70b",
    "group": "g",
    "workload": "pretrain",
    "family": "decoder",
    "model": "llama3-70b",
    "num_hidden_layers": "80",
    "hidden_size": "8192",
    "num_attention_heads": "64",
    "num_key_value_heads": "8",
    "head_dim": "128",
    "intermediate_size": "28672.0",
    "gated_mlp": "True",
    "vocab_size": "128256",
    "tie_word_embeddings": "false",
    "sequence_length": "8192",
    "micro_batch_size": "1",
    "global_batch_size": "512",
    "gpu": "H100-SXM-80GB",
    "num_gpus": "512",
    "gpus_per_node": "8",
    "scale_up": "NVLink4",
    "scale_out_gbps_per_gpu": "200",
    "precision": "bf16",
    "tensor_parallel": "4",
    "pipeline_parallel": "4",
    "virtual_pipeline": "5",
    "context_parallel": "2",
    "data_parallel": "16",
    "data_parallel_sharding": "optimizer",
    "sequence_parallel": "true",
    "pipeline_schedule": "interleaved_1f1b",
    "recompute": "selective",
    "optimizer": "adam",
    "flash_attention": "False",
}
BARE = {
    key: LLAMA[key]
    for key in (
        "id",
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "vocab_size",
        "sequence_length",
        "gpu",
        "num_gpus",
    )
} | {"micro_batch_size": "2"}


def scenario(cells: dict[str, str]) -> Scenario:
    return scenario_from_mapping(scenario_mapping(cells))


def test_every_column_arrives() -> None:
    made = scenario(LLAMA)
    model: Any = made.model
    assert made.name == "llama-70b"
    assert (model.num_hidden_layers, model.hidden_size, model.intermediate_size) == (80, 8192, 28672)
    assert (model.num_attention_heads, model.num_key_value_heads, model.head_dim) == (64, 8, 128)
    assert (model.vocab_size, model.tie_word_embeddings, model.gated_mlp) == (128256, False, True)
    assert (model.norm, model.position_embedding, model.hidden_act) == ("rmsnorm", "rotary", "silu")
    assert model.family == "decoder"
    group = made.cluster.node_groups[0]
    assert (group.nodes, group.gpus_per_node, made.cluster.num_gpus) == (64, 8, 512)
    assert group.accelerator.name == "H100-SXM5-80GB"
    assert group.scale_up.bandwidth == 450e9
    assert group.scale_out.bandwidth == 25e9
    training = made.training
    assert (training.sequence_length, training.micro_batch_size, training.global_batch_size) == (8192, 1, 512)
    assert (training.precision, training.optimizer, training.recompute) == ("bf16", "adam", "selective")
    assert training.attention == "unfused"
    plan = made.parallelism
    assert (plan.tensor_parallel, plan.pipeline_parallel, plan.virtual_pipeline) == (4, 4, 5)
    assert (plan.context_parallel, plan.data_parallel, plan.expert_parallel) == (2, 16, 1)
    assert (plan.data_parallel_sharding, plan.sequence_parallel) == ("optimizer", True)
    assert plan.pipeline_schedule == "interleaved_1f1b"


def test_empty_cells_have_their_stated_meaning() -> None:
    made = scenario(BARE)
    model: Any = made.model
    assert (model.num_key_value_heads, model.head_dim, model.intermediate_size) == (64, 128, 4 * 8192)
    assert (model.gated_mlp, model.norm, model.position_embedding) == (False, "layernorm", "learned")
    assert model.max_position_embeddings == 8192
    assert made.training.global_batch_size == 2 * 512
    assert (made.training.precision, made.training.optimizer) == ("bf16", "adam")
    assert (made.training.recompute, made.training.attention) == ("none", None)
    assert made.software.name == "pytorch-ddp"
    assert (made.parallelism.data_parallel, made.parallelism.data_parallel_sharding) == (512, "none")
    assert made.parallelism.pipeline_schedule is None
    group = made.cluster.node_groups[0]
    assert (group.gpus_per_node, group.scale_up.bandwidth, group.scale_out.bandwidth) == (8, 450e9, 50e9)


@pytest.mark.parametrize(
    ("cells", "number", "method"),
    [
        ({"recompute": "full"}, None, None),
        ({"recompute": "full", "notes": "recipe: recompute_num_layers=5; merged"}, 5, None),
        ({"recompute": "full", "recompute_num_layers": "3", "recompute_method": "uniform"}, 3, "uniform"),
        ({"recompute": "full", "notes": "block recompute with recompute_num_layers=0"}, None, None),
        ({"recompute": "none", "notes": "recompute_num_layers=5"}, None, None),
    ],
    ids=str,
)
def test_layers_are_recomputed_as_a_row_says(
    cells: dict[str, str], number: int | None, method: str | None
) -> None:
    training = scenario({**BARE, **cells}).training
    assert (training.recompute_num_layers, training.recompute_method) == (number, method)


@pytest.mark.parametrize(
    ("variant", "modules"),
    [
        ("core_attn baseline", ("core_attention",)),
        ("mlp+core_attn", ("mlp", "core_attention")),
        ("core_attn+layernorm", ("core_attention",)),  # no norm of a dense layer stands alone
        ("layernorm", None),
        ("more TP", None),
    ],
)
def test_modules_are_recomputed_as_a_note_says(variant: str, modules: tuple[str, ...] | None) -> None:
    notes = f"raw precision fp8-cs; recompute/parallelism variant: {variant}; golden"
    training = scenario({**BARE, "recompute": "selective", "notes": notes}).training
    assert training.recompute_modules == modules
    assert training.recompute == ("none" if variant == "layernorm" else "selective")
    assert scenario({**BARE, "recompute": "none", "notes": notes}).training.recompute_modules is None


def test_data_parallel_is_what_is_left_of_the_gpus() -> None:
    made = scenario(BARE | {"tensor_parallel": "8", "pipeline_parallel": "4"})
    assert made.parallelism.data_parallel == 16
    assert made.training.global_batch_size == 32


def test_fewer_gpus_than_a_node_has_make_one_smaller_node() -> None:
    made = scenario(LLAMA | {"num_gpus": "2", "data_parallel": "1"})
    assert (made.cluster.node_groups[0].nodes, made.cluster.node_groups[0].gpus_per_node) == (1, 2)


def test_sequence_parallel_means_nothing_without_tensor_parallel() -> None:
    assert not scenario(LLAMA | {"tensor_parallel": "1"}).parallelism.sequence_parallel


EXPERTS = {
    "family": "moe",
    "num_experts": "8",
    "num_experts_per_tok": "2",
    "moe_intermediate_size": "32768",
    "num_shared_experts": "0",
}


def test_experts_become_a_mixture() -> None:
    cells = {key: text for key, text in LLAMA.items() if key != "intermediate_size"}
    model: Any = scenario(cells | EXPERTS).model
    assert model.family == "decoder"
    assert model.intermediate_size == model.mixture.moe_intermediate_size == 32768
    assert (model.mixture.num_experts, model.mixture.num_experts_per_tok) == (8, 2)


@pytest.mark.parametrize(
    ("notes", "capacity", "dispatch", "overlap"),
    [
        ("force-balanced dropless MoE", None, "all_to_all", None),
        ("moe_flex_dispatcher_backend=deepep, moe_a2a_overlap=True", None, "deduplicated", True),
        ("HybridEP tuned (32 SMs) + overlap", None, "deduplicated", True),
        ("alltoall, no CUDA graph, no overlap", None, "all_to_all", None),
        ("token-drop MoE; recipe@v0.2.0: moe_a2a_overlap=True", 1.0, "all_to_all", None),
    ],
)
def test_notes_say_what_was_done_with_experts(
    notes: str, capacity: float | None, dispatch: str, overlap: bool | None
) -> None:
    cells = LLAMA | EXPERTS | {"expert_parallel": "8", "notes": notes}
    made = scenario(cells)
    assert made.parallelism.expert_capacity_factor == capacity
    assert made.parallelism.overlap_expert_exchange == overlap
    assert made.software.expert_dispatch == dispatch


def test_the_configuration_of_grok_in_nemo_drops_tokens() -> None:
    cells = LLAMA | EXPERTS | {"expert_parallel": "8", "framework": "NeMo 25.02-era"}
    assert scenario(cells | {"model": "grok1-314b"}).parallelism.expert_capacity_factor == 1.0
    assert scenario(cells).parallelism.expert_capacity_factor is None


@pytest.mark.parametrize(
    ("framework", "experts", "split"),
    [("NeMo 25.02-era", "8", 4), ("NeMo 25.02-era", "64", 1), ("Megatron-Bridge/Megatron-Core", "8", 1)],
)
def test_experts_are_split_like_the_rest_but_in_recipes_of_megatron_bridge(
    framework: str, experts: str, split: int
) -> None:
    cells = LLAMA | EXPERTS | {"framework": framework, "num_experts": "64", "expert_parallel": experts}
    assert scenario(cells).parallelism.expert_tensor_parallel == split


@pytest.mark.parametrize(
    ("framework", "workload", "window"),
    [("NeMo 24.12-era", "sft", 100), ("NeMo 24.12-era", "pretrain", None), ("torchtune", "sft", None)],
)
def test_packed_samples_do_not_see_one_another(framework: str, workload: str, window: int | None) -> None:
    """Half of a sample's 200 tokens is what a causal query meets in the mean."""
    model = scenario_mapping(LLAMA | {"framework": framework, "workload": workload})["model"]
    assert model.get("sliding_window") == window


@pytest.mark.parametrize(("notes", "pieces"), [("", True), ("yaml: ub_tp_comm_overlap false", False)])
def test_recipes_of_nemo_work_in_pieces_unless_a_note_says_otherwise(notes: str, pieces: bool) -> None:
    made = scenario(LLAMA | {"framework": "NeMo 25.02-era", "notes": notes})
    assert made.software.pipelined_tensor_parallel is pieces


@pytest.mark.parametrize(
    ("notes", "whole", "parts"),
    [
        ("recipe@v0.5.0 X: cuda_graph_impl=local, cuda_graph_scope=full_iteration; derived", True, ()),
        (
            "cuda_graph_impl=transformer_engine, cuda_graph_scope=['attn', 'moe_router', 'moe_preprocess']",
            False,
            ("attention", "router"),
        ),
        (
            "cuda_graph_scope=moe_router+moe_preprocess, cuda_graph_impl=transformer_engine",
            False,
            ("router",),
        ),
        ("cuda_graph_impl=full_iteration, moe_a2a_overlap=True, cuda_graph_scope=[]", True, ()),
        ("alltoall TE cuda graphs; force-balanced routing", False, ("attention", "router")),
        ("alltoall, no CUDA graph, no overlap", False, ()),
        ("cuda_graph_impl=none, cuda_graph_scope=full_iteration", False, ()),
        ("no recompute/offload/graph set", False, ()),
    ],
)
def test_notes_say_what_was_recorded(notes: str, whole: bool, parts: tuple[str, ...]) -> None:
    made = scenario(LLAMA | {"notes": notes}).software
    assert (made.cuda_graphs, made.recorded_parts) == (whole, parts)


@pytest.mark.parametrize(
    ("stages", "chunks", "layers"),
    [("16", "1", (4,) * 15 + (1,)), ("4", "4", (4,) * 15 + (1,)), ("8", "4", (2,) * 30 + (1, 0))],
)
def test_recipes_of_deepseek_v3_leave_room_at_the_end(
    stages: str, chunks: str, layers: tuple[int, ...]
) -> None:
    plan = {"pipeline_parallel": stages, "virtual_pipeline": chunks, "tensor_parallel": "1"}
    sizes = {"num_hidden_layers": "61", "num_gpus": "256", "context_parallel": "1", "expert_parallel": "8"}
    shape = {"hidden_size": "7168", "num_attention_heads": "128", "num_key_value_heads": "128"}
    cells = LLAMA | EXPERTS | sizes | shape | plan | {"model": "deepseek-v3", "num_experts": "256"}
    cells = {key: text for key, text in cells.items() if key not in ("data_parallel", "recompute")}
    made: Any = scenario(cells | {"framework": "Megatron-Bridge"})
    assert made.parallelism.pipeline_layers == layers
    assert made.model.num_nextn_predict_layers == 1
    other: Any = scenario(cells | {"framework": "Megatron-LM"})
    assert other.parallelism.pipeline_layers is None
    assert other.model.num_nextn_predict_layers == 0


def test_norms_of_queries_and_keys_are_those_of_the_model_of_that_name() -> None:
    named: Any = scenario(LLAMA | {"model": "qwen3-32b"}).model
    assert named.qk_norm
    other: Any = scenario(LLAMA).model
    assert not other.qk_norm


@pytest.mark.parametrize(
    ("notes", "precision"),
    [
        ("raw precision fp8-cs; NeMo 25.11", "fp8_current"),
        ("raw precision fp8-ds", "fp8"),
        ("", "fp8"),
    ],
)
def test_notes_say_how_fp8_is_scaled(notes: str, precision: str) -> None:
    made = scenario(LLAMA | {"precision": "fp8", "notes": notes, "framework": "Megatron-Bridge"})
    assert made.training.precision == made.training.parameter_precision == precision


@pytest.mark.parametrize(
    ("framework", "source", "profile"),
    [
        ("Megatron-LM (Sep 2020)", "arXiv:2401.10241", "megatron-lm-2021"),
        ("Megatron-LM (commit 6985e589)", "", "megatron-lm-2021"),
        ("Megatron-LM", "Narayanan et al., arXiv:2104.04473", "megatron-lm-2021"),
        ("Megatron-LM", "Korthikanti et al., Table 5, arXiv:2205.05198", "megatron-lm-2022"),
        ("Megatron-LM", "https://arxiv.org/abs/2205.05198 Tables 3 and 5", "megatron-lm-2022"),
        ("Megatron-LM", "https://arxiv.org/pdf/2104.04473", "megatron-lm-2021"),
        ("Megatron-LM fork", "Qi et al., Tables 3-4, arXiv:2401.10241", "megatron-core"),
        ("Megatron-LM", "", "megatron-lm-2022"),
        ("Megatron-DeepSpeed", "arXiv:2104.04473", "megatron-deepspeed"),
    ],
)
def test_megatron_lm_is_that_of_its_year(framework: str, source: str, profile: str) -> None:
    cells = {key: text for key, text in LLAMA.items() if key != "flash_attention"}
    made = scenario(cells | {"framework": framework, "source": source})
    assert made.software.name == profile
    # Fused attention has always been an option there that is off by default.
    assert (made.training.attention or made.software.attention) == "unfused"


@pytest.mark.parametrize(
    ("changes", "profile"),
    [
        ({}, "megatron-lm-2022"),
        ({"recompute": "full"}, "megatron-lm-2022"),
        ({"sequence_parallel": "false"}, "megatron-lm-2022"),
        ({"sequence_parallel": "false", "recompute": "full"}, "megatron-lm-2021"),
        ({"sequence_parallel": "false", "recompute": "none", "flash_attention": "true"}, "megatron-core"),
    ],
)
def test_megatron_lm_of_no_year_is_as_old_as_its_youngest_feature(
    changes: dict[str, str], profile: str
) -> None:
    assert scenario(LLAMA | {"framework": "Megatron-LM"} | changes).software.name == profile


@pytest.mark.parametrize(
    ("framework", "profile", "generation"),
    [
        ("llm-foundry/composer (torch FSDP)", "llm-foundry", "first"),
        ("torchtune", "torchtune", "second"),
        ("litgpt", "pytorch-fsdp", "second"),
    ],
)
def test_fused_attention_is_that_of_the_framework(framework: str, profile: str, generation: str) -> None:
    sharded = {"framework": framework, "data_parallel_sharding": "parameters", "tensor_parallel": "1"}
    made = scenario(BARE | sharded)
    assert (made.software.name, made.software.attention_generation) == (profile, generation)


def test_jax_recomputes_layers_unless_told_otherwise() -> None:
    assert scenario(BARE | {"framework": "MaxText (JAX)"}).training.recompute == "full"
    assert scenario(BARE | {"framework": "Paxml", "recompute": "none"}).training.recompute == "none"


@pytest.mark.parametrize(
    ("framework", "changes", "chunks"),
    [
        ("NeMo 24.07", {}, 20),
        ("Megatron-Bridge", {"pipeline_parallel": "8"}, 10),
        ("NeMo 24.07", {"virtual_pipeline": "5"}, 5),
        ("NeMo 24.07", {"pipeline_parallel": "1"}, 1),
        ("NeMo 24.07", {"num_hidden_layers": "82"}, 1),
        ("NeMo 24.07", {"global_batch_size": "96"}, 1),
        ("NeMo Megatron", {}, 1),
        ("Megatron-LM", {}, 1),
    ],
)
def test_recipes_interleave_layer_by_layer(framework: str, changes: dict[str, str], chunks: int) -> None:
    unknown = ("virtual_pipeline", "pipeline_schedule", "data_parallel")
    cells = {key: text for key, text in LLAMA.items() if key not in unknown}
    made = scenario_mapping(cells | {"framework": framework, **changes})
    assert made["parallelism"]["virtual_pipeline"] == chunks


GPT_5B = {
    "id": "5b",
    "num_hidden_layers": "24",
    "hidden_size": "4096",
    "num_attention_heads": "32",
    "vocab_size": "51200",
    "sequence_length": "2048",
    "micro_batch_size": "4",
    "global_batch_size": "128",
    "gpu": "A100-SXM-80GB",
    "num_gpus": "8",
    "framework": "NeMo Megatron",
    "data_parallel_sharding": "optimizer",
}


@pytest.mark.parametrize(
    ("micro_batch_size", "said", "meant"),
    [("4", "none", "selective"), ("16", "none", "full"), ("1", "none", "none"), ("16", "full", "full")],
)
def test_what_cannot_have_fitted_was_recomputed(micro_batch_size: str, said: str, meant: str) -> None:
    cells = GPT_5B | {"micro_batch_size": micro_batch_size}
    seconds = [
        TrainingRuns().predict(cells | {"recompute": recompute}, Calibration.load())["predicted_step_time_s"]
        for recompute in (said, meant)
    ]
    assert seconds[0] == seconds[1]


def test_an_encoder_decoder_is_shaped_as_t5() -> None:
    """Spans of 3 tokens, 15 % of 512, each with a sentinel, and an end: run in the next power of two."""
    made = scenario(BARE | {"family": "encoder-decoder", "num_hidden_layers": "49", "sequence_length": "512"})
    model: Any = made.model
    assert (model.num_encoder_layers, model.num_decoder_layers) == (25, 24)
    spans = 0.15 * 512 / 3
    assert spans * 4 + 1 <= (made.training.decoder_sequence_length or 0) <= 1.25 * (spans * 4 + 1)
    assert scenario(BARE).training.decoder_sequence_length is None


def test_a_rack_is_one_scale_up_domain() -> None:
    rack = LLAMA | {"gpu": "GB200", "gpus_per_node": "4", "scale_up": "NVLink5"}
    assert scenario(rack | {"num_gpus": "64"}).cluster.node_groups[0].domain == 64
    assert scenario(rack | {"num_gpus": "512"}).cluster.node_groups[0].domain == 72


@pytest.mark.parametrize(
    ("gpu", "scale_up", "name"),
    [
        ("A100-SXM-80GB", "NVLink3", "A100-SXM4-80GB"),
        ("A100-SXM-40GB", "NVLink3", "A100-SXM4-40GB"),
        ("V100-SXM2-16GB", "NVLink2", "V100-SXM2-16GB"),
        ("V100-SXM2-32GB", "NVLink2", "V100-SXM2-32GB"),
        ("H100-SXM-80GB", "NVLink4", "H100-SXM5-80GB"),
        ("B200-180GB", "NVLink5", "B200-SXM-180GB"),
        ("RTX4090", "PCIe4", "RTX-4090"),
        ("H200 141GB", "NVLink4", "H200-SXM-141GB"),
        ("V100 PCIE 32GB", "PCIe3", "V100-PCIe-32GB"),
    ],
)
def test_accelerators_are_found_under_the_names_of_others(gpu: str, scale_up: str, name: str) -> None:
    cells = {key: text for key, text in LLAMA.items() if key != "precision"}
    made = scenario(cells | {"gpu": gpu, "scale_up": scale_up})
    assert made.training.precision == ("fp16" if "V100" in gpu else "bf16")
    assert made.cluster.node_groups[0].accelerator.name == name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"precision": "int3"}, '"int3" is not modelled'),
        ({"family": "diffusion"}, '"diffusion" is not modelled'),
        ({"pipeline_schedule": "my-own"}, '"my-own" is not modelled'),
        ({"optimizer": "lamb9"}, '"lamb9" is not modelled'),
        ({"recompute": "some"}, '"some" is not modelled'),
        ({"data_parallel_sharding": "half"}, '"half" is not modelled'),
        ({"gpu": "Abacus-3000"}, '"Abacus-3000" is not in the catalogue'),
        ({"gpu": "A100-PCIe"}, "A100-PCIe-40GB, A100-PCIe-80GB"),
        ({"scale_up": "StringLink"}, '"StringLink" is not in the catalogue'),
        ({"num_gpus": "12"}, "leave 4"),
        ({"family": "moe"}, "without a number of experts"),
        ({"num_experts": "8"}, "num_experts_per_tok"),
    ],
)
def test_what_a_scenario_cannot_say_is_refused_with_the_reason(change: dict[str, str], said: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        scenario_mapping(LLAMA | change)
    assert said in str(caught.value)


def test_a_head_size_that_does_not_follow_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no multiple of 63 heads"):
        scenario_mapping(BARE | {"num_attention_heads": "63"})


def test_several_nodes_of_an_unknown_card_need_their_network() -> None:
    lonely = BARE | {"gpu": "MI455X", "scale_up": "UALink-200"}
    with pytest.raises(UnsupportedError, match="scale_out_gbps_per_gpu is not given"):
        scenario_mapping(lonely)
    assert (
        scenario_mapping(lonely | {"scale_out_gbps_per_gpu": "400"})["cluster"]["scale_out"]["bandwidth"]
        == "400 Gb/s"
    )
    assert scenario_mapping(lonely | {"num_gpus": "8"})["cluster"]["nodes"] == 1


def test_memory_is_told_in_the_unit_that_a_note_states() -> None:
    """10,309 MiB are 10.81 decimal GB; without such a note a figure is GiB."""
    note = "hardware fully printed; memory = nvidia-smi MiB x 1.048576e-3; 1F1B assumed"
    assert as_printed(10309 * 2**20, {"notes": note}) == pytest.approx(10309 * 2**20 / 1e9)
    for silent in ({}, {"notes": "memory printed as GB, unit (GB or GiB) not stated"}):
        assert as_printed(3 * 2**30, silent) == 3.0


def test_few_gpus_of_one_node_are_on_the_links_of_the_usual_eight() -> None:
    few = BARE | {"gpu": "V100-SXM2-32GB", "scale_up": "NVLink2", "num_gpus": "4", "gpus_per_node": "4"}
    assert scenario_mapping(few)["cluster"]["scale_up"] == "NVLink2-Cube"
    nodes = few | {"num_gpus": "8", "scale_out_gbps_per_gpu": "100"}
    assert scenario_mapping(nodes)["cluster"]["scale_up"] == "NVLink-V100-4GPU"


@pytest.mark.parametrize(
    ("framework", "share"),
    [
        ("OneFlow W/O clip", 20 / 128),
        ("TF2 21.02 NGC + XLA", 20 / 128),
        ("PyTorch 21.11 NGC", 20 / 128),
        ("NGC PyTorch", None),
        ("LiBai", None),
        ("Megatron-LM e156d2f", None),
    ],
)
def test_who_predicts_masked_positions_alone(framework: str, share: float | None) -> None:
    row = BARE | {"family": "encoder", "framework": framework}
    assert scenario_mapping(row)["training"].get("predicted_share") == share
    assert "predicted_share" not in scenario_mapping(row | {"family": "decoder"})["training"]
