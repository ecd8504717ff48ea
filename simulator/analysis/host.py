"""Memory of the hosts: what offloading puts there, on the node that holds most, and its peak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.engine import Record
from simulator.engine.program import I64
from simulator.program import Lowered, Nodes, nodes_of

PASSING = "activations_and_buffers"
"""Part of a host's memory: activations that wait for backward passes, and what is on its way to drives."""


@dataclass(frozen=True, slots=True)
class HostMemory:
    """The node on which most is offloaded.

    Attributes:
        peak: Bytes of its memory at the peak; the sum of `parts`.
        capacity: Bytes of memory that it has.
        parts: Part -> bytes at the peak.
        drives: Part -> bytes on its drives.
    """

    peak: int
    capacity: int
    parts: dict[str, int]
    drives: dict[str, int]

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        return self.peak <= self.capacity


def host_memory(lowered: Lowered, record: Record) -> HostMemory | None:
    """What offloading puts on the fullest node; None where nothing is offloaded."""
    away = [state.away for state in lowered.states[:: lowered.copies]]
    moving = lowered.program.structure.once(_moving, lambda: _moving(lowered))
    if not len(moving) and not any(away):
        return None
    nodes = nodes_of(lowered.plan)
    passing = _passing(lowered, record, nodes, moving) if len(moving) else None
    found = []
    for home in sorted(set(nodes.home)):
        stages = [stage for stage, at in enumerate(nodes.home) if at == home]
        parts, drives = dict[str, int](), dict[str, int]()
        for stage in stages:
            for place, into in (("host", parts), ("nvme", drives)):
                for name, size in away[stage].get(place, {}).items():
                    into[name] = into.get(name, 0) + size * nodes.gpus[stage]
        if passing is not None and passing[home]:
            parts[PASSING] = passing[home]
        found.append((sum(parts.values()), parts, drives))
    peak, parts, drives = max(found, key=lambda each: each[0])
    return HostMemory(peak, int(lowered.group.host.memory_capacity), parts, drives)


def _moving(lowered: Lowered) -> I64:
    """Activities that take or give back some of a host's memory."""
    host = lowered.facts.host
    return np.flatnonzero((host[:, 0] + host[:, 1])[lowered.program.cls])


def _passing(lowered: Lowered, record: Record, nodes: Nodes, moving: I64) -> dict[int, int]:
    """By the first stage of each node the most that activities hold there at a time [B]."""
    program, facts = lowered.program, lowered.facts
    cls = program.cls[moving].astype(np.int64)
    stage = facts.stage[cls]
    copy = cls // max(len(program.classes.labels) // lowered.copies, 1)
    gpus = np.array(nodes.gpus, np.int64)[stage]
    owner = np.array(nodes.home, np.int64)[stage] * lowered.copies + copy
    times = np.concatenate((record.end[moving], record.start[moving]))
    deltas = np.concatenate((-facts.host[cls, 1] * gpus, facts.host[cls, 0] * gpus))
    owners = np.concatenate((owner, owner))
    order = np.lexsort((deltas, times, owners))
    found = dict.fromkeys(nodes.home, 0)
    for each in np.unique(owners):
        mine = order[owners[order] == each]
        home = int(each) // lowered.copies
        found[home] = max(found[home], int(np.cumsum(deltas[mine]).max()))
    return found
