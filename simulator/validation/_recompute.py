"""What a measured run computed again in the backward pass, where its row does not say or cannot be right.

An empty cell is the framework's own default: MaxText, Paxml and LitGPT on several GPUs keep nothing but the
layers' inputs, all others keep everything. A run that would need 1.5 times the memory that there is cannot
have been run so, whatever its row says: no error of the memory model is so large. It must have recomputed,
and the least that fits is taken: the core of attention, else whole layers.

The modules of a selective recomputation are those that its note names; the core of attention else.

Source: ``remat_policy: 'full'`` in MaxText/configs/base.yml of AI-Hypercomputer/maxtext;
``CHECKPOINT_POLICY = AutodiffCheckpointType.SAVE_NOTHING`` in paxml/tasks/lm/params/c4.py of google/paxml;
``activation_checkpointing_policy={Block}`` in finetune/lora.py of Lightning-AI/litgpt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

OBVIOUS_LACK: Final = 1.5
"""Memory needed over memory there is, from which a run cannot have been as its row says."""

_MORE: Final = {"none": ("selective", "full"), "selective": ("full",)}

_MODULES: Final = {
    "core_attn": "core_attention",
    "layernorm": "layernorm",
    "mla_up_proj": "mla_up_projection",
    "mlp": "mlp",
    "moe": "moe",
    "moe_act": "moe_activation",
    "shared_experts": "shared_experts",
}
"""Megatron-Core's names of modules."""

_SAVES_NOTHING: Final = "xla"
"""The profile whose frameworks recompute whole layers unless told otherwise."""


def usual_recompute(cells: Mapping[str, str], profile: str) -> str:
    """What the row says, or the default of the framework with that profile."""
    whole = profile == _SAVES_NOTHING or shards_with_litgpt(cells)
    return cells.get("recompute", "full" if whole else "none")


def recomputed_layers(cells: Mapping[str, str]) -> dict[str, object]:
    """Keys of `training` for how many layers of each part are recomputed, where a row says so.

    It does in columns of those names, or in a note that quotes its recipe (``recompute_num_layers=5``), whose
    method is Megatron's ``block`` unless it says otherwise.
    """
    if cells.get("recompute") != "full":
        return {}
    quoted = re.search(r"\brecompute_num_layers=(\d+)", cells.get("notes", ""))
    number = cells.get("recompute_num_layers") or (quoted[1] if quoted else "")
    if not number or not float(number):
        return {}
    method = cells.get("recompute_method")
    found: dict[str, object] = {"recompute_num_layers": int(float(number))}
    return found if method is None else found | {"recompute_method": method}


def recomputed_modules(cells: Mapping[str, str]) -> dict[str, object]:
    """Keys of `training` for the modules that a note names in Megatron-Core's words (``mlp+core_attn``).

    In a dense layer every norm is part of the product behind it (TELayerNormColumnParallelLinear), so
    ``layernorm`` finds none that stands alone there.

    Source: ``recompute_modules`` in megatron/core/transformer/transformer_config.py; ``IdentityOp`` for
        ``input_layernorm`` and ``pre_mlp_layernorm`` in megatron/core/models/gpt/gpt_layer_specs.py.
    """
    named = re.search(r"\bvariant: ([\w+]+)", cells.get("notes", ""))
    words = named[1].split("+") if named and cells.get("recompute") == "selective" else []
    if not words or not all(word in _MODULES for word in words):
        return {}
    alone = [word for word in words if word != "layernorm" or "num_experts" in cells]
    return {"recompute_modules": [_MODULES[word] for word in alone]} if alone else {"recompute": "none"}


def shards_with_litgpt(cells: Mapping[str, str]) -> bool:
    """Whether this is LitGPT on several GPUs, which takes PyTorch's FSDP in one way."""
    name = cells.get("framework", "").casefold().replace("-", "")
    return "litgpt" in name and cells.get("data_parallel_sharding") == "parameters"


def heavier(recompute: str) -> tuple[str, ...]:
    """What recomputes more, the least first."""
    return _MORE.get(recompute, ())
