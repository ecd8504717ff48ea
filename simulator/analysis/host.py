"""Memory and drives of the hosts: what offloading puts there, on the nodes that hold most, and its peak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.engine import Record
from simulator.engine.program import I64
from simulator.program import Lowered, Nodes, nodes_of
from simulator.scenario import Scenario

PASSING = "activations_and_buffers"
"""Part of a host's memory: activations that wait for backward passes, and what is on its way to drives."""

WAITING = "activations"
"""Part of drives: activations that wait there for backward passes."""


@dataclass(frozen=True, slots=True)
class HostMemory:
    """The node on which most is offloaded to memory, and the one whose drives take most.

    Attributes:
        peak: Bytes of memory at the peak; the sum of `parts`.
        capacity: Bytes of memory that the node has.
        parts: Part -> bytes at the peak.
        drives: Part -> bytes on drives at the peak.
        drives_capacity: Bytes that the node's drives hold; None where that is not known.
    """

    peak: int
    capacity: int
    parts: dict[str, int]
    drives: dict[str, int]
    drives_capacity: int | None = None

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        room = self.drives_capacity
        return self.peak <= self.capacity and (room is None or sum(self.drives.values()) <= room)


def host_memory(scenario: Scenario, lowered: Lowered, record: Record) -> HostMemory | None:
    """What offloading puts on the fullest nodes; None where nothing is offloaded."""
    away = [state.away for state in lowered.states[:: lowered.copies]]
    moving = lowered.program.structure.once(_moving, lambda: _moving(lowered))
    if not len(moving) and not any(away):
        return None
    nodes = nodes_of(lowered.plan)
    passing = _passing(lowered, record, nodes, moving, lowered.facts.host)
    waiting = _passing(lowered, record, nodes, moving, _on_drives(lowered))
    memory, drives = list[dict[str, int]](), list[dict[str, int]]()
    for home in sorted(set(nodes.home)):
        stages = [stage for stage, at in enumerate(nodes.home) if at == home]
        parts = {"host": dict[str, int](), "nvme": dict[str, int]()}
        for stage in stages:
            for place, into in parts.items():
                for name, size in away[stage].get(place, {}).items():
                    into[name] = into.get(name, 0) + size * nodes.gpus[stage]
        memory.append(parts["host"] | ({PASSING: passing[home]} if passing[home] else {}))
        drives.append(parts["nvme"] | ({WAITING: waiting[home]} if waiting[home] else {}))
    most = max(memory, key=lambda each: sum(each.values()))
    return HostMemory(
        sum(most.values()),
        int(lowered.group.host.memory_capacity),
        most,
        max(drives, key=lambda each: sum(each.values())),
        _drives_capacity(scenario),
    )


def _drives_capacity(scenario: Scenario) -> int | None:
    drives = scenario.cluster.node_drives
    if drives is None or drives.capacity is None:
        return None
    return int(drives.capacity * drives.servers)


def _moving(lowered: Lowered) -> I64:
    """Activities that take or give back some of a host's memory."""
    host = lowered.facts.host
    return np.flatnonzero((host[:, 0] + host[:, 1])[lowered.program.cls])


def _on_drives(lowered: Lowered) -> I64:
    """Bytes of drives that each class takes and gives back: those of activations, which come and go.

    What is written leaves the host's memory, what is read enters it.
    """
    host, labels = lowered.facts.host, lowered.program.classes.labels
    written = np.array([label.name == f"{WAITING}.write" for label in labels], np.int64)
    read = np.array([label.name == f"{WAITING}.read" for label in labels], np.int64)
    return np.stack((host[:, 1] * written, host[:, 0] * read), axis=1)


def _passing(lowered: Lowered, record: Record, nodes: Nodes, moving: I64, taken: I64) -> dict[int, int]:
    """By the first stage of each node the most that activities hold there at a time [B].

    Args:
        lowered: The Program.
        record: Its record.
        nodes: Which stages share a node.
        moving: Activities that move anything.
        taken: Bytes that each class takes and gives back.
    """
    program, facts = lowered.program, lowered.facts
    found = dict.fromkeys(nodes.home, 0)
    cls = program.cls[moving].astype(np.int64)
    if not taken[cls].any():
        return found
    stage = facts.stage[cls]
    copy = cls // max(len(program.classes.labels) // lowered.copies, 1)
    gpus = np.array(nodes.gpus, np.int64)[stage]
    owner = np.array(nodes.home, np.int64)[stage] * lowered.copies + copy
    times = np.concatenate((record.end[moving], record.start[moving]))
    deltas = np.concatenate((-taken[cls, 1] * gpus, taken[cls, 0] * gpus))
    owners = np.concatenate((owner, owner))
    order = np.lexsort((deltas, times, owners))
    for each in np.unique(owners):
        mine = order[owners[order] == each]
        home = int(each) // lowered.copies
        found[home] = max(found[home], int(np.cumsum(deltas[mine]).max()))
    return found
