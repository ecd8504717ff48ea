"""One colour a cause, the same on the terminal and in every chart.

The hues are those of Okabe and Ito (2008, "Color Universal Design"), which people with any common colour
blindness tell apart; within a family only the lightness changes, so that the charts also read in grey print.
Parts of the memory have one each, and those beyond the eight hues are as far from all others as can be.
"""

from __future__ import annotations

import zlib
from typing import Final

from simulator.report.text import family

INK: Final = "#222222"
FAINT: Final = "#D9D9D9"
QUIET: Final = "#6B6B6B"
ALARM: Final = "#B3261E"
FORWARD: Final = "#56B4E9"
BACKWARD: Final = "#0072B2"
IDLE: Final = "#E6E6E6"

_FIXED: Final = {
    "compute.matmul": "#0072B2",
    "compute.attention": "#56B4E9",
    "compute.convolution": "#2F8FC4",
    "compute.norm": "#9CCFEF",
    "compute.activation": "#7FA8C9",
    "compute.elementwise": "#4A7FA5",
    "compute.softmax": "#A9BED0",
    "compute.embedding": "#1F5A80",
    "compute.loss": "#C2DCEC",
    "compute.optimizer": "#009E73",
    "communication.all_reduce": "#D55E00",
    "communication.all_gather": "#E69F00",
    "communication.reduce_scatter": "#F2C05C",
    "communication.all_to_all": "#A34700",
    "communication.broadcast": "#F0A57A",
    "communication.send": "#7A3500",
    "parameters": "#0072B2",
    "gradients": "#56B4E9",
    "optimizer": "#009E73",
    "activations": "#E69F00",
    "transient": "#D55E00",
    "fragmentation": "#CC79A7",
    "gradient_buckets": "#F0E442",
    "gradient_copies": "#B2F29D",
    "gradient_placeholders": "#164C31",
    "parameter_buffers": "#3535B2",
    "teacher": "#00004C",
    "pipeline_slots": "#7F5226",
    "forward_workspace": "#4C1300",
    "framework": "#45314C",
    "communication_buffers": "#7900F2",
    "training": "#009E73",
    "checkpoints": "#7B4F9E",
    "lost_work": "#D55E00",
    "detection": "#E69F00",
    "restart": "#0072B2",
    "restore": "#56B4E9",
    "no_node": "#999999",
    "tensor": "#0072B2",
    "vector": "#7FA8C9",
    "memory_bandwidth": "#56B4E9",
    "scale_up": "#D55E00",
    "scale_out": "#E69F00",
}

_SHADES: Final = {
    "compute": ("#3C8DC0", "#86BDDF", "#205E8A"),
    "communication": ("#E08A4A", "#C9791A", "#8F4A1C"),
    "bubble": ("#B8B8B8",),
    "data": ("#CC79A7", "#B55A8E", "#DDA3C3"),
    "checkpoint": ("#7B4F9E",),
    "offload": ("#7A6A00", "#A69A3D", "#CFC57A"),
    "waiting": ("#999999",),
    "other": ("#8C8C5A", "#5F9E8F", "#A68A64", "#77719B"),
}


def colour(name: str) -> str:
    """The colour of a cause, a part of the memory or a kind of capacity, as ``#RRGGBB``."""
    if name in _FIXED:
        return _FIXED[name]
    shades = _SHADES[family(name)]
    return shades[zlib.crc32(name.encode("utf-8", "replace")) % len(shades)]
