"""Words and numbers for people: names made harmless, causes in plain words, rounded figures."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from simulator.units import human

_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that steer a terminal or a renderer, or show nothing."""

NEGLIGIBLE: Final = 0.0005
"""Shares below this are printed as 0.0 %."""

_FAMILIES: Final = {
    "compute": "compute",
    "optimizer": "compute",
    "communication": "communication",
    "collective": "communication",
    "network": "communication",
    "send": "communication",
    "pipeline": "bubble",
    "bubble": "bubble",
    "data": "data",
    "storage": "data",
    "loading": "data",
    "checkpoint": "checkpoint",
    "offload": "offload",
    "latency": "waiting",
    "idle": "waiting",
    "wait": "waiting",
}
"""First word of a cause -> the family that gives it its colour and its words."""

_PHRASES: Final = {
    "communication.send": "communication: pipeline send",
    "pipeline_bubble": "pipeline bubble",
    "stragglers": "jitter and slow GPUs",
    "bubble": "pipeline bubble",
    "data_stall": "waiting for training data",
    "data.stall": "waiting for training data",
    "data": "waiting for training data",
    "checkpoint": "writing checkpoints",
    "optimizer": "optimizer step",
    "offload.host": "offload: update on the host",
    "offload.to_host": "offload: copies to the host",
    "offload.to_gpu": "offload: copies to the GPU",
    "offload.drive_read": "offload: reads of drives",
    "offload.drive_write": "offload: writes to drives",
}

_HYPHENATED: Final = {
    "all_reduce": "all-reduce",
    "all_gather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "all_to_all": "all-to-all",
    "scale_up": "scale-up",
    "scale_out": "scale-out",
    "pcie": "PCIe",
    "hbm": "HBM",
    "cpu": "CPU",
    "nic": "NIC",
    "kv": "KV",
}

_RESOURCES: Final = {
    "tensor": "tensor cores",
    "vector": "vector units",
    "memory_bandwidth": "memory bandwidth",
    "scale_up": "scale-up links",
    "scale_out": "scale-out network",
    "pcie": "PCIe",
    "storage_read": "storage reads",
    "storage_write": "storage writes",
    "storage_operations": "storage operations",
    "latency": "latency",
    "cpu": "loader CPUs",
    "loader_cpu": "loader CPUs",
    "host": "host (kernel launches)",
    "host_memory": "host memory",
}


_CAMPAIGN: Final = {
    "lost_work": "work that failures undid",
    "detection": "failures not yet noticed",
    "restart": "starting again",
    "restore": "reading checkpoints",
    "no_node": "waiting for a node",
}


def shown(text: object, limit: int = 200) -> str:
    """A name that cannot steer a terminal, a browser or a chart: one line, visible characters only.

    Control characters, line breaks, direction overrides and lone surrogates become ``?``; what is longer than
    `limit` characters is cut in the middle.
    """
    name = "".join("?" if unicodedata.category(char) in _INVISIBLE else char for char in str(text)[:4000])
    if len(name) > limit:
        head = (limit - 3 + 1) // 2
        name = f"{name[:head]}...{name[len(name) - (limit - 3 - head) :]}"
    return name


def family(cause: str) -> str:
    """The family of a cause: compute, communication, bubble, data, checkpoint, waiting or other."""
    first = re.split(r"[._]", cause, maxsplit=1)[0]
    return _FAMILIES.get(first, "other")


def cause_label(cause: str) -> str:
    """A cause in plain words: ``communication.all_reduce`` -> ``communication: all-reduce``."""
    if cause in _PHRASES:
        return _PHRASES[cause]
    head, _, tail = cause.partition(".")
    return f"{_words(head)}: {_words(tail)}" if tail else _words(head)


def campaign_label(part: str) -> str:
    """A part of a whole training's time in plain words: ``lost_work`` -> ``work that failures undid``."""
    return _CAMPAIGN.get(part) or _words(part)


def resource_label(resource: str) -> str:
    """A kind of capacity or of wait in plain words: ``scale_up`` -> ``scale-up links``."""
    return _RESOURCES.get(resource) or cause_label(resource)


def part_label(part: str) -> str:
    """A part of the memory in plain words: ``optimizer`` -> ``optimizer state``."""
    return {"optimizer": "optimizer state", "parameters": "parameters"}.get(part) or _words(part)


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction as percent: ``0.4321`` -> ``43.2 %``."""
    return f"{100 * fraction:.{digits}f} %"


def seconds(value: float) -> str:
    """A duration, rounded: ``5.31 s``, ``12.3 ms``."""
    return human(value, "time")


def step_unit(step: float) -> tuple[str, float, int]:
    """The unit in which a step and its parts are told: its name, how many make a second, and decimals."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if step * scale >= 1 or unit == "us":
            break
    scaled = step * scale
    return unit, scale, 3 if scaled < 10 else 2 if scaled < 100 else 1


def step_time(step: float) -> str:
    """The time of a step with at least four digits: ``5.310 s``, ``197.4 ms``."""
    unit, scale, digits = step_unit(step)
    return f"{step * scale:,.{digits}f} {unit}"


def told(causes: list[tuple[str, float]], step: float) -> list[tuple[str, str]]:
    """The parts of a step as time and as percent, rounded so that they add up to it exactly."""
    unit, scale, digits = step_unit(step)
    amounts = [value for _, value in causes]
    parts = apportion(amounts, round(step * scale * 10**digits))
    shares = apportion(amounts, 1000)
    return [
        (f"{part / 10**digits:,.{digits}f} {unit}", f"{share / 10:.1f} %")
        for part, share in zip(parts, shares, strict=True)
    ]


def gib(value: float) -> str:
    """Bytes as GiB with one decimal, or finer where it is little: ``74.5 GiB``, ``35.2 MiB``."""
    return f"{value / 2**30:,.1f} GiB" if abs(value) >= 2**30 / 2 else human(value, "bytes")


def quantity(value: float) -> str:
    """A figure with thousands separators and three or more digits: ``12,345``, ``43.2``, ``0.00123``."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def subject(values: Mapping[str, Any]) -> str:
    """Of what a chart speaks: ``llama3-8b on 8 x H100-SXM5-80GB  (quickstart)``."""
    return (
        f"{shown(values['model'], 60)} on {values['num_gpus']:,} x {shown(values['accelerator'], 60)}"
        f"  ({shown(values['name'], 60)})"
    )


def largest_first(amounts: Mapping[str, float]) -> list[tuple[str, float]]:
    """Items by falling amount, then by name; what is zero is left out."""
    return sorted(
        ((key, value) for key, value in amounts.items() if value), key=lambda item: (-item[1], item[0])
    )


def grouped(amounts: Mapping[str, float], most: int) -> list[tuple[str, float]]:
    """`largest_first` in at most `most` rows; further and negligible items are added up as ``other (n)``."""
    ranked = largest_first(amounts)
    whole = math.fsum(amounts.values())
    count = sum(value >= NEGLIGIBLE * whole for _, value in ranked)
    keep = count if count < most else most - 1
    if len(ranked) <= most and len(ranked) - keep <= 1:
        return ranked
    rest = ranked[keep:]
    return [*ranked[:keep], (f"other ({len(rest)})", math.fsum(value for _, value in rest))]


def _words(key: str) -> str:
    name = shown(key)
    for token, word in _HYPHENATED.items():
        name = re.sub(rf"(?<![a-z]){token}(?![a-z])", word, name)
    return name.replace("_", " ")


def apportion(amounts: list[float], total: int) -> list[int]:
    """Integers in proportion to `amounts` that add up to `total` exactly (largest remainder)."""
    whole = math.fsum(amounts)
    if whole <= 0 or total <= 0:
        return [0] * len(amounts)
    exact = [amount / whole * total for amount in amounts]
    floors = [math.floor(value) for value in exact]
    order = sorted(range(len(amounts)), key=lambda i: (floors[i] - exact[i], i))
    for index in order[: total - sum(floors)]:
        floors[index] += 1
    return floors
