"""A row of a training file as a scenario: every column understood, every gap filled by a stated rule.

What an empty cell means (`—` where the cell may not be empty):

| column | empty |
|---|---|
| family | decoder; stacks and sequences of an encoder-decoder: `_stacks.py` |
| num_key_value_heads | as many as query heads |
| head_dim | hidden size over query heads |
| intermediate_size | four times the hidden size (two matrices); experts only: the experts' width |
| gated_mlp | no gate |
| tie_word_embeddings | not tied |
| global_batch_size | one micro-batch a replica |
| gpus_per_node | 8, or all GPUs where there are fewer; those of one node leave the rest of the 8 idle |
| scale_up | that of the maker's reference system; refused without one, unless there is one GPU |
| scale_out_gbps_per_gpu | as for scale_up; refused without a system, unless there is one node |
| precision | bf16, or fp16 on a card without it; how fp8 is scaled: delayed, unless a note says otherwise |
| degrees of parallelism | 1; data parallel: what is left of the GPUs; virtual pipeline: as recipes have it |
| data_parallel_sharding | none; in recipes that always share out the optimizer's state, that |
| sequence_parallel | off |
| pipeline_schedule | interleaved where there are several chunks a stage, else 1F1B |
| post-validation (no column) | with zero-bubble schedules, whose authors run them so (arXiv:2401.10241) |
| recompute | as the framework does by default; more where the memory is obviously short (`_recompute.py`) |
| recompute_modules | what a note names; the core of attention else |
| recompute_num_layers, recompute_method | what a note quotes of the recipe; all layers else |
| optimizer | adam |
| rank of adapters (no column) | 8, on queries, keys and values |
| latent attention, norms of queries (no columns) | those of the catalogue's model of the same name |
| packed samples (no column) | of 200 tokens in recipes that tune a model, which do not see one another |
| predicted positions (no column) | all; of an encoder in frameworks that gather them, 20 of 128 |
| flash_attention | as the framework's profile has it; Megatron-LM: unfused |

The framework is a profile of the catalogue's software (`_software.py`): what it fuses, overlaps and defaults
to; what is done with experts follows from notes and recipes (`_experts.py`). MPT models are trained without
dropout, as their configurations say.

What no column says follows from `gated_mlp`: with a gate the block is Llama's (RMSNorm, rotary positions,
SiLU, no biases), without it is GPT-2's (LayerNorm, learned positions, GELU, biases). A table of learned
positions is as long as the sequence, and the vocabulary is taken as it stands, without padding. The host is
that of the maker's reference system, and so is the latency of a network of the row's bandwidth.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, get_args

from simulator.errors import UnsupportedError
from simulator.measurements import words
from simulator.validation._cluster import cluster, count
from simulator.validation._experts import expert_plan, layers_of_parts, looks_ahead
from simulator.validation._recompute import (
    recomputed_layers,
    recomputed_modules,
    shards_with_litgpt,
    usual_recompute,
)
from simulator.validation._software import (
    attention,
    packed_window,
    passes_precision,
    precisions,
    predicted_share,
    profile,
    sharding,
    software,
    virtual_pipeline,
)
from simulator.validation._stacks import decoder_length, layers_of_stacks

Mapped = dict[str, Any]

_LATENT_ATTENTION: Final = ("deepseekv2", "deepseekv3", "deepseekr1", "kimik2")
"""Models with multi-head latent attention, which `num_key_value_heads` and `head_dim` do not describe."""

_LORA: Final[tuple[Mapped, Mapped]] = ({}, {"lora_rank": 8, "lora_targets": ["attention.qkv"]})
"""Nothing, and adapters of the size that the authors recommend (Hu et al., arXiv:2106.09685, section 7)."""


def scenario_mapping(cells: Mapping[str, str]) -> Mapped:
    """The scenario of one row, as `scenario_from_mapping` takes it.

    Args:
        cells: Column -> text, empty cells missing; the types are checked already.

    Raises:
        UnsupportedError: The row says something that a scenario cannot say, and what.
    """
    _refuse_other_workloads(cells)
    hardware = cluster(cells)
    return {
        "name": cells["id"],
        "cluster": hardware,
        "model": _model(cells),
        "training": _training(cells, hardware["accelerator"]),
        "parallelism": _parallelism(cells),
        "software": profile(cells),
    }


def tokens_per_gpu_and_step(cells: Mapping[str, str]) -> float:
    """Tokens that a step processes, over the number of GPUs."""
    return _global_batch(cells) * count(cells, "sequence_length", 1) / count(cells, "num_gpus", 1)


def _refuse_other_workloads(cells: Mapping[str, str]) -> None:
    workload = cells.get("workload", "pretrain")
    if workload not in ("pretrain", "sft", "lora"):
        raise UnsupportedError(("training",), f'workload "{workload}" is not modelled')


def _model(cells: Mapping[str, str]) -> Mapped:
    family = cells.get("family", "decoder")
    hidden, heads = count(cells, "hidden_size", 1), count(cells, "num_attention_heads", 1)
    gated = _flag(cells, "gated_mlp") or False
    if "head_dim" not in cells and hidden % heads:
        raise UnsupportedError(
            ("model", "head_dim"), f"not given, and {hidden} is no multiple of {heads} heads"
        )
    latent = _latent(cells)
    mixture = _mixture(cells)
    intermediate = count(
        cells, "intermediate_size", mixture["moe_intermediate_size"] if mixture else 4 * hidden
    )
    return {
        "kind": "transformer",
        "name": cells.get("model", cells["id"]),
        "family": "decoder" if family == "moe" else _allowed("model", "family", family),
        "num_hidden_layers": count(cells, "num_hidden_layers", 1),
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": count(cells, "num_key_value_heads", heads),
        "head_dim": count(cells, "head_dim", hidden // heads),
        "vocab_size": count(cells, "vocab_size", 1),
        "max_position_embeddings": count(cells, "sequence_length", 1),
        "tie_word_embeddings": _flag(cells, "tie_word_embeddings") or False,
        **_block(gated),
        "qk_norm": bool(_named(cells).get("qk_norm")),
        **({"mixture": mixture | _unsaid(latent, cells)} if mixture else {}),
        **({"latent_attention": latent["latent_attention"]} if latent else {}),
        **looks_ahead(cells),
        **layers_of_stacks(cells),
        **packed_window(cells),
    }


def _named(cells: Mapping[str, str]) -> Mapping[str, Any]:
    """The catalogue's model of the row's name, if there is one."""
    from simulator.catalog import entry, names

    name = "".join(words(cells.get("model", "")))
    fitting = [each for each in names("models") if name.startswith("".join(words(each)))]
    return entry("models", max(fitting, key=len)) if fitting else {}


def _latent(cells: Mapping[str, str]) -> Mapping[str, Any]:
    """The catalogue's model whose latent attention a row's model has; empty for a model without one."""
    if not "".join(words(cells.get("model", ""))).startswith(_LATENT_ATTENTION):
        return {}
    found = _named(cells)
    if "latent_attention" not in found:
        raise UnsupportedError(
            ("model",), f'"{cells["model"]}": the columns do not describe its latent attention'
        )
    return found


def _unsaid(latent: Mapping[str, Any], cells: Mapping[str, str]) -> Mapped:
    """What no column says of experts: groups that a token's lie in, and dense layers in front.

    Of these as many in proportion as the whole model has, rounded up.
    """
    if not latent:
        return {}
    mixture = latent["mixture"]
    layers = count(cells, "num_hidden_layers", 1)
    dense = -(-mixture["first_k_dense_replace"] * layers // int(latent["num_hidden_layers"]))
    groups = {key: mixture[key] for key in ("n_group", "topk_group") if key in mixture}
    return {"first_k_dense_replace": dense, **groups}


def _block(gated: bool) -> Mapped:
    return {
        "gated_mlp": gated,
        "hidden_act": "silu" if gated else "gelu",
        "norm": "rmsnorm" if gated else "layernorm",
        "position_embedding": "rotary" if gated else "learned",
        "attention_bias": not gated,
        "attention_output_bias": not gated,
        "mlp_bias": not gated,
    }


def _mixture(cells: Mapping[str, str]) -> Mapped:
    if "num_experts" not in cells:
        if cells.get("family") == "moe":
            raise UnsupportedError(
                ("model", "mixture", "num_experts"), "family moe without a number of experts"
            )
        return {}
    for column in ("num_experts_per_tok", "moe_intermediate_size"):
        if column not in cells:
            raise UnsupportedError(("model", "mixture", column), "experts without this figure")
    return {
        "num_experts": count(cells, "num_experts", 1),
        "num_experts_per_tok": count(cells, "num_experts_per_tok", 1),
        "moe_intermediate_size": count(cells, "moe_intermediate_size", 1),
        "num_shared_experts": count(cells, "num_shared_experts", 0),
    }


def _training(cells: Mapping[str, str], card: str) -> Mapped:
    return {
        "sequence_length": count(cells, "sequence_length", 1),
        **decoder_length(cells),
        "micro_batch_size": count(cells, "micro_batch_size", 1),
        "global_batch_size": _global_batch(cells),
        "precision": _allowed("training", "precision", passes_precision(cells) or _usual_precision(card)),
        "optimizer": _allowed("training", "optimizer", cells.get("optimizer", "adam")),
        "recompute": _allowed("training", "recompute", usual_recompute(cells, software(cells))),
        **recomputed_layers(cells),
        **recomputed_modules(cells),
        **attention(cells),
        **predicted_share(cells),
        **precisions(cells),
        **_LORA[cells.get("workload") == "lora"],
        **({"dropout": False} if words(cells.get("model", ""))[:1] == ("mpt",) else {}),
    }


def _usual_precision(card: str) -> str:
    from simulator.catalog import entry

    peaks: Any = entry("accelerators", card)["peak_flops"]
    return "bf16" if "bf16" in peaks or "fp16" not in peaks else "fp16"


def _parallelism(cells: Mapping[str, str]) -> Mapped:
    degrees = (
        "tensor_parallel",
        "pipeline_parallel",
        "context_parallel",
        "expert_parallel",
    )
    mapped: Mapped = {name: count(cells, name, 1) for name in degrees}
    mapped["virtual_pipeline"] = count(cells, "virtual_pipeline", virtual_pipeline(cells))
    mapped["data_parallel"] = _data_parallel(cells)
    mapped["sequence_parallel"] = bool(_flag(cells, "sequence_parallel")) and mapped["tensor_parallel"] > 1
    mapped["data_parallel_sharding"] = _allowed(
        "parallelism", "data_parallel_sharding", cells.get("data_parallel_sharding", sharding(cells))
    )
    if shards_with_litgpt(cells):
        # ``fabric.no_backward_sync(model, enabled=is_accumulating)`` in its finetune/lora.py.
        mapped["reduce_each_micro_batch"] = False
    schedule = cells.get("pipeline_schedule", "none")
    if schedule != "none":
        mapped["pipeline_schedule"] = _allowed("parallelism", "pipeline_schedule", schedule)
        mapped["optimizer_post_validation"] = schedule.startswith("zb")
    mapped |= expert_plan(cells, mapped)
    mapped |= layers_of_parts(cells, mapped["pipeline_parallel"] * mapped["virtual_pipeline"])
    group = count(cells, "sharding_group_size", 0)
    if group and group != mapped["data_parallel"]:
        _require_key("parallelism", "sharding_group_size")
        mapped["sharding_group_size"] = group
    return mapped


def _data_parallel(cells: Mapping[str, str]) -> int:
    if "data_parallel" in cells:
        return count(cells, "data_parallel", 1)
    gpus = count(cells, "num_gpus", 1)
    model = 1
    for name in ("tensor_parallel", "pipeline_parallel", "context_parallel"):
        model *= count(cells, name, 1)
    if gpus % model:
        raise UnsupportedError(
            ("parallelism", "data_parallel"), f"not given, and {gpus} GPUs are no multiple of {model}"
        )
    return gpus // model


def _global_batch(cells: Mapping[str, str]) -> int:
    if "global_batch_size" in cells:
        return count(cells, "global_batch_size", 1)
    return count(cells, "micro_batch_size", 1) * _data_parallel(cells)


def _flag(cells: Mapping[str, str], column: str) -> bool | None:
    return cells[column].lower() == "true" if column in cells else None


def _allowed(block: str, key: str, value: str) -> str:
    """The value itself, if a scenario can say it; what the blocks learn later is taken from then on."""
    words_known = _vocabulary(block, key)
    if value not in words_known:
        raise UnsupportedError((block, key), f'"{value}" is not modelled; there are {", ".join(words_known)}')
    return value


def _require_key(block: str, key: str) -> None:
    if key not in _blocks()[block].model_fields:
        raise UnsupportedError((block, key), "is not modelled")


@cache
def _vocabulary(block: str, key: str) -> tuple[str, ...]:
    annotation = _blocks()[block].model_fields[key].annotation
    found: list[str] = []
    pending: list[Any] = [annotation]
    while pending:
        each = pending.pop(0)
        if isinstance(each, str):
            found.append(each)
        else:
            pending.extend(get_args(each))
    return tuple(found)


@cache
def _blocks() -> dict[str, Any]:
    from simulator.specs import ParallelismSpec, TrainingSpec, TransformerSpec

    return {"model": TransformerSpec, "training": TrainingSpec, "parallelism": ParallelismSpec}
