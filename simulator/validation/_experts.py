"""What a measured run did with its experts: its plan, how tokens travelled, and what that was hidden behind.

No column says it; notes, and recipes by the name of their framework, do:

| what | said by |
|---|---|
| a dispatcher that sends a token to each node once | `DeepEP`, `HybridEP` in the notes |
| exchange beside another micro-batch's passes | `moe_a2a_overlap=True`, `EP overlap`, `+ overlap` there |
| as many slots an expert as its mean of tokens | `token-drop` in the notes; all-to-all beside nothing then |
| the same | Grok-1 in NeMo |
| one kernel for all experts of a GPU | `fused_grouped_mlp=True` in the notes |
| experts are not split | Megatron-Bridge; others split them like all else, unless GPUs are too few |

Where notes are silent every copy of a token travels, none is dropped, and nothing runs beside the exchange.

Source: ``apply_moe_token_drop`` (capacity factor 1, padded, with the all-to-all dispatcher) and
``expert_tensor_parallel_size=1`` in all performance recipes of NVIDIA-NeMo/Megatron-Bridge, of which those of
release 25.09 drop tokens and know no overlap of the exchange beside it; ``expert_tensor_parallel_size`` of
Megatron-Core, which is that of the dense layers if not given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_BY_NODE: Final = ("deepep", "hybridep")
"""Dispatchers that send a token to each node once: DeepSeek's DeepEP, NVIDIA's HybridEP."""

_OVERLAPPED: Final = ("moe_a2a_overlap=true", "ep overlap", "+ overlap")
"""How notes say that the exchange among experts runs beside the passes of another micro-batch."""

_DROPPING_RECIPES: Final = ("nemo", "grok")
"""Words of framework and model whose configuration drops tokens: Grok-1 of NeMo.

Source: ``moe_expert_capacity_factor: 1.0`` in conf/training/grok of NVIDIA/NeMo-Framework-Launcher.
"""

_ONE_KERNEL: Final = "fused_grouped_mlp=true"
"""How they say that one kernel multiplies for all experts of a GPU."""

_DROPPED: Final = "token-drop"
"""How they say that experts have as many slots as the mean of their tokens."""


def dispatcher(cells: Mapping[str, str]) -> dict[str, str]:
    """Keys of `software`: the dispatcher of tokens that the notes name, and one kernel for all experts."""
    notes = _notes(cells)
    by_node = not _drops(cells) and any(word in notes for word in _BY_NODE)
    keys = {"expert_dispatch": "deduplicated"} if by_node else {}
    return keys | ({"grouped_products": "one_kernel"} if _ONE_KERNEL in notes else {})


def expert_plan(cells: Mapping[str, str], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of `parallelism`: slots of experts, what their exchange runs beside, and who splits them.

    Args:
        cells: The row.
        plan: Its degrees of parallelism so far.
    """
    if "num_experts" not in cells:
        return {}
    notes, keys = _notes(cells), dict[str, Any]()
    if _drops(cells):
        keys["expert_capacity_factor"] = 1.0
    elif plan["expert_parallel"] > 1 and any(word in notes for word in _OVERLAPPED):
        keys["overlap_expert_exchange"] = True
    if plan["tensor_parallel"] > 1:
        keys["expert_tensor_parallel"] = _split(cells, plan)
    return keys


def _drops(cells: Mapping[str, str]) -> bool:
    """Whether tokens beyond an expert's slots are dropped."""
    framework, model = (cells.get(key, "").casefold() for key in ("framework", "model"))
    by_recipe = _DROPPING_RECIPES[0] in framework and _DROPPING_RECIPES[1] in model
    return by_recipe or _DROPPED in _notes(cells)


def looks_ahead(cells: Mapping[str, str]) -> dict[str, int]:
    """Keys of `model`: modules that predict tokens further on, in recipes of DeepSeek-V3 for Megatron-Bridge.

    None where matrices or sequences are split, beside which they are not modelled.

    Source: ``mtp_num_layers``, 1 as ``num_nextn_predict_layers`` of the model's configuration.
    """
    split = max(int(float(cells.get(f"{axis}_parallel", "1"))) for axis in ("tensor", "context"))
    return {"num_nextn_predict_layers": 1} if split == 1 and _is_deepseek_recipe(cells) else {}


def layers_of_parts(cells: Mapping[str, str], parts: int) -> dict[str, list[int]]:
    """Keys of `parallelism`: parts of DeepSeek-V3 are equal but for the last ones, which have the rest.

    Source: ``set_deepseek_v3_pipeline_model_parallel_layout`` in NVIDIA-NeMo/Megatron-Bridge (4 layers on 15
        stages and 1 on the last).
    """
    layers = int(float(cells["num_hidden_layers"]))
    each = -(-layers // parts)
    whole, rest = divmod(layers, each)
    short = parts - whole - (rest > 0)
    if parts == 1 or short > 1 or not _is_deepseek_recipe(cells):
        return {}
    return {"pipeline_layers": [each] * whole + [rest] * (rest > 0) + [0] * short}


def _is_deepseek_recipe(cells: Mapping[str, str]) -> bool:
    model = cells.get("model", "").casefold().replace("-", "").replace("_", "")
    return "megatron-bridge" in cells.get("framework", "").casefold() and model.startswith("deepseekv3")


def _split(cells: Mapping[str, str], plan: Mapping[str, Any]) -> int:
    """GPUs that each expert is split over."""
    ranks = plan["data_parallel"] * plan["context_parallel"]
    whole = "megatron-bridge" in cells.get("framework", "").casefold()
    return 1 if whole or ranks % plan["expert_parallel"] else int(plan["tensor_parallel"])


def _notes(cells: Mapping[str, str]) -> str:
    return cells.get("notes", "").casefold() if "num_experts" in cells else ""
