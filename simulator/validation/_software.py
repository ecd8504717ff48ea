"""The framework of a measured run as a software profile of the catalogue.

The first line whose words all stand in the cell `framework` decides:

| framework | profile |
|---|---|
| DeepSpeed with Megatron | megatron-deepspeed |
| Megatron-LM of 2019 to 2021, or at a commit of those years | megatron-lm-2021 |
| NeMo Megatron (2022), Megatron-LM of 2022 | megatron-lm-2022 |
| Megatron-LM of later years | megatron-core |
| NeMo with a release, Megatron-Bridge, Megatron-Core | megatron-core |
| MaxText, Paxml, JAX | xla |
| OneFlow, LiBai, TensorFlow (TF2), MXNet | oneflow (static graphs) |
| llm.c | llm-c |
| torchtune | torchtune |
| llm-foundry | llm-foundry |
| any other, sharded parameters | pytorch-fsdp |
| any other, tensor or pipeline parallel | megatron-core |
| any other | pytorch-ddp |

What notes say of experts is read in `_experts.py`, what they say of recorded passes in `_graphs.py`.
The year of Megatron-LM stands in `framework`, or is that of the paper on arXiv that `source` names; else
the run's youngest feature tells: fused attention came in 2023, sequence parallelism and selective
recomputation in 2022 (Korthikanti et al., arXiv:2205.05198).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from simulator.validation._experts import dispatcher
from simulator.validation._graphs import recorded

_OLD_COMMITS: Final = ("6985e589",)
"""Commits of Megatron-LM from before 2022 that published runs name: that of April 2021 (arXiv:2104.04473)."""

_FUSED_SINCE: Final = (23, 3)
"""Year and month of the first container of NVIDIA with PyTorch 2.0."""

_LAST_OF_2021: Final = 2021
_LAST_OF_2022: Final = 2022
"""Last years of the profiles of these names."""

_TABLE: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("megatron", "deepspeed"), "megatron-deepspeed"),
    (("nemo megatron",), "megatron-lm-2022"),
    (("megatron-bridge",), "megatron-core"),
    (("megatron-core",), "megatron-core"),
    (("nemo",), "megatron-core"),
    (("maxtext",), "xla"),
    (("paxml",), "xla"),
    (("jax",), "xla"),
    (("oneflow",), "oneflow"),
    (("libai",), "oneflow"),
    (("tensorflow",), "oneflow"),
    (("tf2",), "oneflow"),
    (("mxnet",), "oneflow"),
    (("llm.c",), "llm-c"),
    (("torchtune",), "torchtune"),
    (("llm-foundry",), "llm-foundry"),
)


def software(cells: Mapping[str, str]) -> str:
    """The profile of a row, by its cells `framework`, `flash_attention` and plan."""
    name = cells.get("framework", "").casefold()
    if _is_megatron_lm(name):
        return _megatron(name, cells)
    for needed, profile in _TABLE:
        if all(word in name for word in needed):
            return profile
    if cells.get("data_parallel_sharding") == "parameters":
        return "pytorch-fsdp"
    split = max(int(float(cells.get(f"{axis}_parallel", "1"))) for axis in ("tensor", "pipeline"))
    return "megatron-core" if split > 1 else "pytorch-ddp"


_NOT_IN_PIECES: Final = "ub_tp_comm_overlap false"
"""How notes say that tensor-parallel collectives are whole."""


def profile(cells: Mapping[str, str]) -> str | dict[str, Any]:
    """The profile of a row, and what its framework does otherwise by its notes, recipe or model.

    Source: RMSNorm in litgpt/model.py of Lightning-AI/litgpt, written in steps over an fp32 copy.
    """
    name = software(cells)
    if "litgpt" in cells.get("framework", "").casefold():
        return {"base": name, "norm": "separate"}
    told: dict[str, Any] = {**dispatcher(cells), **recorded(cells), **_as_written(cells)}
    if _in_pieces(cells):
        told["pipelined_tensor_parallel"] = True
    return {"base": name, **told} if told else name


_GRAPHS: Final = ("oneflow", "mxnet", "tensorflow", "tf2")
"""Frameworks of 2020 and 2021 that run BERT as a graph, an operator at a time."""


def _as_written(cells: Mapping[str, str]) -> dict[str, bool]:
    """What graphs of BERT do by kernels of their own: XLA fuses chains of elements, but no sums along rows.

    Bias and activation, bias, dropout and residual, scale, mask and softmax; and, but in MXNet, whose product
    reads queries, keys and values where they are, heads brought side by side.

    Source: _AttentionLayer and _TransformerModel in LanguageModeling/BERT/bert.py of
        Oneflow-Inc/OneFlow-Benchmark, after google-research/bert (modeling.py); MXNet 1.6,
        ``interleaved_matmul_selfatt``.
    """
    name = cells.get("framework", "").casefold()
    known = next((each for each in _GRAPHS if each in name), None)
    if cells.get("family") != "encoder" or known is None:
        return {}
    fused = "xla" in name
    return {
        "fused_activation": fused,
        "fused_dropout_residual": fused,
        "fused_softmax": False,
        "transposed_heads": known != "mxnet",
    }


def _in_pieces(cells: Mapping[str, str]) -> bool:
    """Whether products and tensor-parallel collectives run side by side in pieces.

    Recipes of NeMo and Megatron-Bridge do so when they train a model from the start, but not in nvfp4, and
    not where a note says otherwise.

    Source: ``ub_tp_comm_overlap: true`` in the training configurations of NVIDIA/NeMo-Framework-Launcher,
        ``MegatronCommOverlapCallback(tp_comm_overlap=True, ...)`` in the recipes of NVIDIA/NeMo, and
        ``CommOverlapConfig`` in those of NVIDIA-NeMo/Megatron-Bridge, whose tests want it off for nvfp4.
    """
    split = int(float(cells.get("tensor_parallel", "1"))) > 1
    whole = cells.get("workload", "pretrain") == "pretrain" and cells.get("precision") not in ("fp4", "nvfp4")
    off = _NOT_IN_PIECES in cells.get("notes", "").casefold()
    return split and whole and _is_recipe(cells) and not off


def sharding(cells: Mapping[str, str]) -> str:
    """What replicas share out where the row does not say: Megatron-Bridge turns its sharded optimizer on.

    Source: ``use_distributed_optimizer=True`` in all recipes of NVIDIA-NeMo/Megatron-Bridge.
    """
    return "optimizer" if "megatron-bridge" in cells.get("framework", "").casefold() else "none"


def virtual_pipeline(cells: Mapping[str, str]) -> int:
    """Chunks of layers a stage where the row does not say: recipes of NeMo interleave, a layer a chunk.

    One chunk where a stage's layers or its micro-batches do not come out even, and in other frameworks.

    Source: ``virtual_pipeline_model_parallel_size`` in NVIDIA/NeMo (collections/llm/recipes: 20 for
    Llama-2-70B on four stages, 12 for Nemotron-4-340B on eight) and NVIDIA-NeMo/Megatron-Bridge.
    """
    count = {name: int(float(cells.get(name, "1"))) for name in _SIZES}
    stages, layers = count["pipeline_parallel"], count["num_hidden_layers"]
    if not _is_recipe(cells) or stages == 1 or layers % stages:
        return 1
    replicas = count["num_gpus"] // (stages * count["tensor_parallel"] * count["context_parallel"])
    batches = count["global_batch_size"] // (count["micro_batch_size"] * max(1, replicas))
    return layers // stages if batches % stages == 0 else 1


_SIZES: Final = (
    "num_hidden_layers",
    "num_gpus",
    "tensor_parallel",
    "pipeline_parallel",
    "context_parallel",
    "micro_batch_size",
    "global_batch_size",
)


def _is_recipe(cells: Mapping[str, str]) -> bool:
    """Whether the run followed a recipe of NeMo or of its successor, as their performance suites do."""
    name = cells.get("framework", "").casefold()
    return ("nemo" in name and "nemo megatron" not in name) or "megatron-bridge" in name


_SCALES: Final = {"fp8-cs": "fp8_current", "fp8-mx": "mxfp8", "fp8-sc": "fp8_block", "fp8-ss": "fp8_block"}
"""Recipes of scales in notes: current scaling, MXFP8, blocks (sub-channels).

Source: ``get_precision_config`` in scripts/performance/utils of NVIDIA-NeMo/Megatron-Bridge.
"""


def passes_precision(cells: Mapping[str, str]) -> str:
    """The row's precision; of fp8, with the scales that a note names. Empty if the row does not say."""
    given = cells.get("precision", "")
    notes = cells.get("notes", "").casefold()
    return next((scaled for word, scaled in _SCALES.items() if word in notes and given == "fp8"), given)


def precisions(cells: Mapping[str, str]) -> dict[str, object]:
    """Keys of `training` that a framework's recipes set otherwise than its profile.

    NeMo and Megatron-Bridge accumulate gradients in bf16 and, where products are in fp8, keep and gather the
    layers' weights in it; torchtune and LitGPT do everything in bf16.

    Source: ``grad_reduce_in_fp32=False`` and ``fp8_params=True`` in NVIDIA/NeMo
    (collections/llm/recipes/precision) and in the performance recipes of NVIDIA-NeMo/Megatron-Bridge;
    ``dtype: bf16`` in those of pytorch/torchtune; ``precision: bf16-true`` in config_hub/finetune of
    Lightning-AI/litgpt.
    """
    name = cells.get("framework", "").casefold()
    if "torchtune" in name or "litgpt" in name.replace("-", ""):
        return {"master_parameters": False, "gradient_precision": "bf16", "optimizer_precision": "bf16"}
    if not _is_recipe(cells):
        return {}
    eight = {"parameter_precision": passes_precision(cells)} if cells.get("precision") == "fp8" else {}
    return {"gradient_precision": "bf16", **eight}


_SAMPLE: Final = 200
"""Tokens of a question with its paragraph and answer: some 130 words of SQuAD (Rajpurkar et al.,
arXiv:1606.05250), and the words of the prompt."""


def packed_window(cells: Mapping[str, str]) -> dict[str, int]:
    """Key of `model`: what tokens attend to where samples are packed side by side and do not see one another.

    A causal sample of n tokens has n / 2 keys a query in the mean, as a window of so many has. Recipes of
    NeMo and Megatron-Bridge that tune a model pack SQuAD up to the length of a sequence.

    Source: ``packed_sequence = performance_mode`` and SquadDataModule in finetune_recipe of NVIDIA/NeMo
        (nemo/collections/llm/recipes), ``packed_sequence_size`` in NVIDIA-NeMo/Megatron-Bridge.
    """
    tunes = cells.get("workload", "pretrain") != "pretrain"
    return {"sliding_window": _SAMPLE // 2} if tunes and _is_recipe(cells) else {}


_GATHERING: Final = ("oneflow", "mxnet", "tensorflow", "tf2", "paddle")
"""Frameworks whose BERT predicts the masked positions only, as the authors' does."""

_GATHERED_SINCE: Final = (20, 11)
"""Year and month of the first container whose PyTorch BERT does so, too."""

_MASKED: Final = 20 / 128
"""Positions that are masked of a sequence: ``max_predictions_per_seq``, 20 of 128 and 80 of 512."""


def predicted_share(cells: Mapping[str, str]) -> dict[str, float]:
    """Key of `training`: whether an encoder's head works on masked positions alone.

    Megatron-LM and LiBai project all positions.

    Source: ``gather_indexes`` and ``--max_predictions_per_seq`` in google-research/bert, and in
        LanguageModeling/BERT of NVIDIA/DeepLearningExamples.
    """
    name = cells.get("framework", "").casefold()
    if cells.get("family") != "encoder" or "libai" in name or _is_megatron_lm(name):
        return {}
    gathers = any(word in name for word in _GATHERING) or container_since(name, _GATHERED_SINCE)
    return {"predicted_share": _MASKED} if gathers else {}


def container_since(framework: str, first: tuple[int, int]) -> bool:
    """Whether a framework's name is that of a container of PyTorch from this year and month or later."""
    release = re.search(r"pytorch (\d\d)\.(\d\d)", framework.casefold())
    return release is not None and (int(release[1]), int(release[2])) >= first


def attention(cells: Mapping[str, str]) -> dict[str, str]:
    """The key `attention` of `training`; empty where the profile decides.

    Source: Megatron-LM's ``--use-flash-attn`` is off by default (megatron/arguments.py); PyTorch has had
        ``scaled_dot_product_attention`` since 2.0, in NVIDIA's containers since 23.03.
    """
    said = cells.get("flash_attention", "")
    if said:
        return {"attention": "fused" if said.casefold() == "true" else "unfused"}
    name = cells.get("framework", "").casefold()
    release = re.search(r"pytorch (\d\d)\.(\d\d)", name)
    early = release is not None and (int(release[1]), int(release[2])) < _FUSED_SINCE
    return {"attention": "unfused"} if early or _is_megatron_lm(name) else {}


def _is_megatron_lm(name: str) -> bool:
    return "megatron-lm" in name and "deepspeed" not in name


def _megatron(name: str, cells: Mapping[str, str]) -> str:
    if any(commit in name for commit in _OLD_COMMITS):
        return "megatron-lm-2021"
    year = _year(name, cells.get("source", "")) or _youngest_feature(cells)
    if year <= _LAST_OF_2021:
        return "megatron-lm-2021"
    return "megatron-lm-2022" if year <= _LAST_OF_2022 else "megatron-core"


def _youngest_feature(cells: Mapping[str, str]) -> int:
    """The year from which a run of unknown age can be at the earliest, or the last before all features."""
    if cells.get("flash_attention", "").casefold() == "true":
        return _LAST_OF_2022 + 1
    split = cells.get("sequence_parallel", "").casefold() == "true"
    return _LAST_OF_2022 if split or cells.get("recompute") == "selective" else _LAST_OF_2021


def _year(name: str, source: str) -> int | None:
    """Year of a framework by its name, else that of the paper that tells of it."""
    named = re.search(r"\b(20[12]\d)\b", name)
    if named is not None:
        return int(named[1])
    paper = re.search(r"arxiv(?:\.org/(?:abs|pdf)/|[: ]*)(\d\d)\d\d\.\d{4,5}", source.casefold())
    return None if paper is None else 2000 + int(paper[1])
