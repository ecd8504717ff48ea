"""What a source's figure of memory counts: tensors, what the allocator holds, or everything on a device.

| memory_kind | predicted |
|---|---|
| allocated, active | tensors at the peak of the fullest stage |
| reserved | the same and what the allocator holds in vain |
| nvidia-smi | everything on the fullest device of the first node, where a job is looked at |
| empty, any other | everything on the fullest device |

Where a note says how the figure was made of what nvidia-smi printed (``memory = nvidia-smi MiB x
1.048576e-3``: decimal gigabytes), the prediction is made of MiB in the same way, so that the two compare.

Not predicted: torchtune's full fine-tuning on one GPU where it would not fit as the columns describe it. Its
recipes can run the update within the backward pass and keep the optimizer's state in 8 bits or in host
memory, and no column says which of it a row did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from simulator.analysis import Result

_TENSORS: Final = {"allocated": "allocated", "active": "allocated", "reserved": "reserved"}


MIB: Final = 2**20
GIB: Final = 2**30

_MADE_OF_MIB: Final = re.compile(r"\bmemory = nvidia-smi MiB x (\d+(?:\.\d+)?(?:e-?\d+)?)\b")


def as_printed(size: int, cells: Mapping[str, str]) -> float:
    """A peak in the unit of the row's figure: GiB, unless a note says how that was made of MiB.

    Args:
        size: The peak [B].
        cells: The row.
    """
    said = _MADE_OF_MIB.search(cells.get("notes", ""))
    return size / GIB if said is None else size / MIB * float(said[1])


def peak_bytes(result: Result, cells: Mapping[str, str], gpus_per_node: int) -> int | None:
    """The peak as the source of a row saw it [B]; None where the columns do not describe it."""
    torchtune = "torchtune" in cells.get("framework", "").casefold()
    if torchtune and result.num_gpus == 1 and cells.get("workload") == "sft" and not result.fits:
        return None
    kind = cells.get("memory_kind", "").casefold()
    if kind in _TENSORS:
        return result.memory_by_kind[_TENSORS[kind]]
    if kind != "nvidia-smi":
        return result.peak_memory_bytes
    # The pipeline is the outermost axis: a node holds the first stages.
    per_stage = result.num_gpus // len(result.memory_by_stage)
    return max(result.memory_by_stage[: -(-gpus_per_node // per_stage)])
