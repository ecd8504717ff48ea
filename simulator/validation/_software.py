"""The framework of a measured run as a software profile of the catalogue.

The first line whose words all stand in the cell `framework` decides:

| framework | profile |
|---|---|
| DeepSpeed with Megatron | megatron-deepspeed |
| Megatron-LM of 2019 to 2021, or at a commit of those years | megatron-lm-2021 |
| NeMo Megatron (2022), Megatron-LM without fused attention | megatron-lm-2022 |
| NeMo with a release, Megatron-Bridge, Megatron-Core, Megatron-LM with fused attention | megatron-core |
| MaxText, Paxml, JAX | xla |
| OneFlow, LiBai, TensorFlow, MXNet | oneflow (static graphs) |
| llm.c | llm-c |
| torchtune | torchtune |
| any other, sharded parameters | pytorch-fsdp |
| any other, tensor or pipeline parallel | megatron-core |
| any other | pytorch-ddp |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_OLD_COMMITS: Final = ("6985e589",)
"""Commits of Megatron-LM from before 2022 that published runs name: that of April 2021 (arXiv:2104.04473)."""

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
    (("mxnet",), "oneflow"),
    (("llm.c",), "llm-c"),
    (("torchtune",), "torchtune"),
)


def software(cells: Mapping[str, str]) -> str:
    """The profile of a row, by its cells `framework`, `flash_attention` and plan."""
    name = cells.get("framework", "").casefold()
    if "megatron-lm" in name and "deepspeed" not in name:
        return _megatron(name, cells.get("flash_attention", ""))
    for needed, profile in _TABLE:
        if all(word in name for word in needed):
            return profile
    if cells.get("data_parallel_sharding") == "parameters":
        return "pytorch-fsdp"
    split = max(int(float(cells.get(f"{axis}_parallel", "1"))) for axis in ("tensor", "pipeline"))
    return "megatron-core" if split > 1 else "pytorch-ddp"


def sharding(cells: Mapping[str, str]) -> str:
    """What replicas share out where the row does not say: Megatron-Bridge turns its sharded optimizer on.

    Source: ``use_distributed_optimizer=True`` in all recipes of NVIDIA-NeMo/Megatron-Bridge.
    """
    return "optimizer" if "megatron-bridge" in cells.get("framework", "").casefold() else "none"


def precisions(cells: Mapping[str, str]) -> dict[str, object]:
    """Keys of `training` that a framework's recipes set otherwise than its profile.

    NeMo and Megatron-Bridge accumulate gradients in bf16; torchtune trains in bf16 and nothing else.

    Source: ``grad_reduce_in_fp32=False`` in NVIDIA/NeMo (collections/llm/recipes/precision) and in the
    performance recipes of NVIDIA-NeMo/Megatron-Bridge; ``dtype: bf16`` in those of pytorch/torchtune.
    """
    name = cells.get("framework", "").casefold()
    if "torchtune" in name:
        return {"master_parameters": False, "gradient_precision": "bf16", "optimizer_precision": "bf16"}
    if "nemo megatron" in name or not ("nemo" in name or "megatron-bridge" in name):
        return {}
    return {"gradient_precision": "bf16"}


def _megatron(name: str, flash_attention: str) -> str:
    early = re.search(r"\b(2019|2020|2021)\b", name) is not None
    if early or any(commit in name for commit in _OLD_COMMITS):
        return "megatron-lm-2021"
    return "megatron-core" if flash_attention.casefold() == "true" else "megatron-lm-2022"
