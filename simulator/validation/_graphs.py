"""What a measured run recorded and launched as a whole (CUDA graphs), where its notes say so.

| notes | recorded |
|---|---|
| `cuda_graph_scope=full_iteration`, `full`; `cuda_graph_impl=full_iteration` | passes |
| `cuda_graph_scope=[attn, moe_router, moe_preprocess]` | the parts of a layer that it names |
| `cuda_graph_impl=local` alone | passes |
| `TE CUDA graphs`, `cuda_graph_impl=transformer_engine` alone | attention and router |
| `cuda_graph_impl=none`, nothing | nothing |

Source: ``cuda_graph_impl`` and ``cuda_graph_scope`` of TransformerConfig in Megatron-Core, which recipes of
NVIDIA-NeMo/Megatron-Bridge set by GPU, model and precision; for experts whose tokens are not dropped these
name attention, router and the preparation of the dispatch, whose lengths do not depend on the routing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_SCOPES: Final = {"attn": "attention", "moe_router": "router"}
"""Megatron-Core's words for parts of a layer."""


def recorded(cells: Mapping[str, str]) -> dict[str, Any]:
    """Keys of `software`: passes or parts of layers that are recorded."""
    notes = cells.get("notes", "").casefold()
    way = re.search(r"cuda_graph_impl=(\w+)", notes)
    scope = re.search(r"cuda_graph_scope=(.*?)(?:;|, \w+=|$)", notes)
    by_module = "te cuda graph" in notes or (way is not None and way[1] == "transformer_engine")
    if not by_module and (way is None or way[1] == "none"):
        return {}
    if way is not None and way[1] == "full_iteration":
        return {"cuda_graphs": True}
    if scope is not None and not re.search(r"\bfull\b|full_iteration", scope[1]):
        parts = [part for word, part in _SCOPES.items() if re.search(rf"\b{word}\b", scope[1])]
        return {"recorded_parts": parts} if parts else {}
    if scope is not None or not by_module:
        return {"cuda_graphs": True}
    return {"recorded_parts": list(_SCOPES.values())}
