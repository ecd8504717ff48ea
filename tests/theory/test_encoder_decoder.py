"""Models of two stacks: arithmetic and traffic counted by hand, and laws that every split keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from simulator.program.planning.layout import tokens_between
from simulator.run import Outcome, run
from simulator.scenario import scenario_from_mapping
from simulator.specs import TrainingSpec, TransformerSpec
from simulator.workload import Block, Shard, embedding_block, head_block, layer_block
from simulator.workload.kernels import Communication
from simulator.workload.parameters import count_parameters
from simulator.workload.stacks import encoder_norm_block, front_end_block, position_bias_block
from support.inputs import catalogue_model
from support.laws import assert_folds, assert_obeys_laws, model_flops, play_on_both

SOURCE, TARGET, MICRO, BATCH = 512, 128, 2, 32
LENGTHS = {"sequence_length": SOURCE, "decoder_sequence_length": TARGET}


def outcome(
    parallelism: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    name: object = "t5-base",
) -> Outcome:
    return run(
        scenario_from_mapping(
            {
                "cluster": {"system": "dgx-h100", "nodes": 1},
                "model": name,
                "training": {
                    "micro_batch_size": MICRO,
                    "global_batch_size": BATCH,
                    "dropout": False,
                    **LENGTHS,
                    **(training or {}),
                },
                "parallelism": parallelism or {},
            }
        )
    )


def flops_by_hand(spec: TransformerSpec) -> int:
    """Forward and backward pass: each product thrice, keys and values of the source in every layer."""
    width, heads = spec.hidden_size, spec.num_attention_heads * spec.head_dim
    mlp = (3 if spec.gated_mlp else 2) * width * spec.intermediate_size
    own = 4 * width * heads
    source, target = BATCH * SOURCE, BATCH * TARGET
    assert spec.num_encoder_layers and spec.num_decoder_layers
    products = spec.num_encoder_layers * source * (own + mlp)
    products += spec.num_decoder_layers * (
        target * (own + mlp + 2 * width * heads) + source * 2 * width * heads
    )
    products += target * width * spec.vocab_size
    pairs = spec.num_encoder_layers * BATCH * SOURCE * SOURCE
    pairs += spec.num_decoder_layers * BATCH * (TARGET * (TARGET + 1) // 2 + TARGET * SOURCE)
    return 3 * 2 * products + 3 * 4 * pairs * heads


@pytest.mark.parametrize("attention", ["fused", "unfused"])
@pytest.mark.parametrize("name", ["t5-base", "bart-large"])
def test_arithmetic_is_that_of_the_matrices(name: str, attention: str) -> None:
    each = outcome(training={"attention": attention}, name=name)
    assert model_flops(each) == pytest.approx(flops_by_hand(catalogue_model(name)), rel=1e-9)


@pytest.mark.parametrize(
    "plan",
    [
        {"tensor_parallel": 4},
        {"tensor_parallel": 4, "sequence_parallel": True},
        {"pipeline_parallel": 4, "encoder_pipeline_parallel": 3},
        {"pipeline_parallel": 2, "pipeline_schedule": "zb-v"},
        {"data_parallel_sharding": "parameters"},
    ],
    ids=str,
)
def test_no_split_loses_or_adds_arithmetic(plan: dict[str, Any]) -> None:
    assert model_flops(outcome(plan)) == pytest.approx(flops_by_hand(catalogue_model("t5-base")), rel=1e-9)


@pytest.mark.parametrize("method", ["ring", "all_to_all", "all_gather"])
@pytest.mark.parametrize("context", [2, 4])
def test_split_sequences_lose_and_add_no_arithmetic(context: int, method: str) -> None:
    """Half of a causal block on the diagonal counts its diagonal, too."""
    plan = {"context_parallel": context, "context_parallel_method": method}
    assert model_flops(outcome(plan)) == pytest.approx(flops_by_hand(catalogue_model("t5-base")), rel=1e-3)


@pytest.mark.parametrize("method", ["ring", "all_to_all", "all_gather"])
def test_split_sequences_exchange_the_keys_of_both(method: str) -> None:
    """A forward pass of a decoder's layer: its own keys and values, and those of the encoder's output."""
    spec, parts = catalogue_model("t5-base"), 4
    shard = replace(shards()[0], sequence_length=TARGET, source_length=SOURCE, context_parallel=parts)
    block = layer_block(spec, replace(shard, context_method=method, attention="fused"))
    heads = spec.num_attention_heads * spec.head_dim
    sent = dict[str, int]()
    for node in block.forward:
        if isinstance(node.op, Communication) and node.op.axis == "context":
            part = node.op.name.partition(".")[0]
            sent[part] = sent.get(part, 0) + node.op.message_bytes
    own, source = MICRO * TARGET // parts, MICRO * SOURCE // parts
    wanted = {
        "ring": [(parts - 1) * 2 * keys * heads * 2 for keys in (own, source)],
        "all_gather": [parts * 2 * keys * heads * 2 for keys in (own, source)],
        "all_to_all": [2 * (2 * own + 2 * keys) * heads for keys in (own, source)],
    }
    assert sent == dict(zip(("attention", "cross_attention"), wanted[method], strict=True))


@pytest.mark.parametrize("method", ["ring", "all_to_all", "all_gather"])
def test_split_sequences_fold_and_come_back(method: str) -> None:
    plan = {"context_parallel": 2, "context_parallel_method": method, "pipeline_parallel": 2}
    found = outcome(plan).lowered
    play_on_both(found.program)
    assert_folds(found)


def shards() -> list[Shard]:
    return [
        Shard(
            micro_batch_size=MICRO,
            sequence_length=SOURCE,
            tensor_parallel=tensor,
            sequence_parallel=tensor > 1,
            precision="bf16",
            attention=attention,
            gradient_bytes=4,
            dropout=dropout,
            recipe=recipe,
            lora_rank=rank,
            lora_targets=("attention.qkv", "mlp.down"),
        )
        for tensor in (1, 4)
        for attention in ("fused", "unfused")
        for dropout in (False, True)
        for recipe in ("", "fp8")
        for rank in (0, 8)
    ]


def blocks_of(spec: TransformerSpec, shard: Shard) -> list[Block]:
    own = replace(shard, sequence_length=TARGET, source_length=SOURCE)
    return [
        front_end_block(spec, shard) if spec.num_mel_bins else embedding_block(spec, shard),
        *([position_bias_block(spec, each) for each in (shard, own)] if spec.norm == "rmsnorm" else []),
        layer_block(spec, shard),
        *([encoder_norm_block(spec, shard)] if spec.final_norm else []),
        embedding_block(spec, own, shares_table=not spec.num_mel_bins),
        layer_block(spec, own, first=True),
        layer_block(spec, own),
        head_block(spec, own, shares_embedding=True),
    ]


@pytest.mark.parametrize("name", ["t5-base", "bart-large", "whisper-large-v3", "transformer-big"])
def test_what_is_kept_is_freed(name: str) -> None:
    spec = catalogue_model(name)
    for shard in shards():
        for block in blocks_of(spec, shard):
            freed = sum(node.freed_bytes for node in block.backward)
            assert block.kept_bytes == freed, (block.name, shard)
            for nodes in (block.forward, block.backward):
                assert all(earlier < place for place, n in enumerate(nodes) for earlier in n.after)


@pytest.mark.parametrize("name", ["t5-base", "bart-large", "whisper-large-v3", "transformer-big"])
def test_the_blocks_hold_the_parameters_that_are_counted(name: str) -> None:
    spec = catalogue_model(name)
    blocks = blocks_of(spec, shards()[0])
    layers = [block for block in blocks if block.name == "layer"]
    encoder, first, other = layers
    assert spec.num_encoder_layers and spec.num_decoder_layers
    total = sum(block.parameters for block in blocks) + (spec.num_encoder_layers - 1) * encoder.parameters
    total += (spec.num_decoder_layers - 2) * other.parameters
    assert first.parameters == other.parameters
    assert total == count_parameters(spec)


def test_the_encoder_s_output_is_kept_once_however_many_layers_read_it() -> None:
    spec = catalogue_model("t5-base")
    *_, first, other, _ = blocks_of(spec, shards()[0])
    assert first.kept_bytes - other.kept_bytes == MICRO * SOURCE * spec.hidden_size * 2


PLANS: list[dict[str, Any]] = [
    {"pipeline_parallel": 4, "pipeline_schedule": name}
    for name in ("gpipe", "1f1b", "zb-1p", "zb-2p", "zb-v", "dualpipe-v")
] + [
    {"pipeline_parallel": 4, "virtual_pipeline": 3},
    {"pipeline_parallel": 8},
    {"pipeline_parallel": 4, "encoder_pipeline_parallel": 1},
    {"pipeline_parallel": 2, "pipeline_layers": [15, 9], "overlap_point_to_point": False},
    {"tensor_parallel": 4, "sequence_parallel": True, "pipeline_parallel": 2},
    {"tensor_parallel": 4, "pipeline_parallel": 2, "order": ("pipeline", "data", "context", "tensor")},
    {"data_parallel_sharding": "parameters", "gather_prefetch": 3},
    {"data_parallel_sharding": "parameters", "reshard_after_forward": False},
    {"data_parallel_sharding": "gradients", "sharding_group_size": 4},
]


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_any_split_conserves_and_both_players_agree(plan: dict[str, Any], recompute: str) -> None:
    assert_obeys_laws(outcome(plan, {"recompute": recompute}))


def test_what_crosses_between_stages_is_the_stream_and_what_the_decoder_reads() -> None:
    spec = catalogue_model("t5-base")
    training = TrainingSpec(micro_batch_size=MICRO, global_batch_size=BATCH, **LENGTHS)
    crossing = [tokens_between(spec, training, layers) for layers in (1, 11, 12, 13, 23, 24)]
    assert crossing == [SOURCE, SOURCE, SOURCE, SOURCE + TARGET, SOURCE + TARGET, TARGET]


def test_gradients_of_shared_tables_are_summed_over_those_who_hold_them() -> None:
    program = outcome({"pipeline_parallel": 4}).lowered.program
    names, stages = program.classes.labels, program.tags["stage"]

    def holders(name: str) -> set[int]:
        return {int(stages[a]) for a, c in enumerate(program.cls) if names[c].name == f"{name}.all_reduce"}

    assert holders("embedding_gradients") == {0, 2, 3}
    assert holders("encoder_position_bias_gradients") == {0, 1}
    assert holders("decoder_position_bias_gradients") == {2, 3}


def test_adapters_of_both_kinds_of_attention_are_trained_and_nothing_else() -> None:
    each = outcome(training={"lora_rank": 8, "lora_targets": ["attention.qkv"]})
    names = {label.name for label in each.lowered.program.classes.labels}
    assert "cross_attention.key_value.lora_a.weight_gradient" in names
    assert "cross_attention.key_value.weight_gradient" not in names
    state = each.lowered.states[0]
    width, layers = 768, 12
    adapters = 8 * (width + 3 * width) * 2 * layers + 8 * (2 * width + width + 2 * width) * layers
    assert state.updated == adapters


def test_a_longer_source_costs_the_decoder_only_its_cross_attention() -> None:
    """Four times the source: a decoder's layer has as much more to do as keys, values and scores."""
    spec = catalogue_model("t5-base")
    short = replace(shards()[0], sequence_length=TARGET, source_length=SOURCE)
    long = replace(short, source_length=4 * SOURCE)

    def arithmetic(shard: Shard) -> int:
        nodes = layer_block(spec, shard)
        return sum(getattr(node.op, "model_flops", 0) for node in (*nodes.forward, *nodes.backward))

    width, more = spec.hidden_size, 3 * SOURCE * MICRO
    assert arithmetic(long) - arithmetic(short) == 3 * more * (4 * width * width + 4 * TARGET * width)
