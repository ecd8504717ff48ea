"""Room that a stage keeps for micro-batches beyond those that it holds at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from simulator.program.order import Visit
from simulator.program.plan import Plan
from simulator.program.recomputation import Mode, Recomputation
from simulator.program.schedules import WHOLE
from simulator.workload import Block

SLOTS = "pipeline_slots"
"""Part of the memory: room for activations of micro-batches that are not there yet."""


def slot_bytes(
    plan: Plan,
    stage: int,
    chunks: Sequence[Sequence[Block]],
    recomputation: Recomputation,
    rounds: int | None,
) -> int:
    """Activations for which a stage has room and which it does not hold when it holds most [B].

    A graph laid out before the first step gives all that a backward pass reads a fixed number of slots, so
    that stages may run apart: `rounds` for each stage of the pipeline, and one to write into. Who runs its
    backward pass right behind the forward pass, as the last stage does, needs none.

    Args:
        plan: The plan.
        stage: Which stage.
        chunks: Its blocks.
        recomputation: What forward passes keep.
        rounds: Slots over the number of stages; none are kept if not given.
    """
    if rounds is None or plan.pipeline_parallel == 1 or plan.num_micro_batches == 1:
        return 0
    room = rounds * plan.pipeline_parallel + 1
    total = 0
    for chunk, blocks in enumerate(chunks):
        if plan.placement.part(stage, chunk) < plan.placement.depth - 1:
            kept = sum(_kept(*each) for each in zip(blocks, recomputation.modes(blocks), strict=True))
            total += max(0, room - most_in_flight(plan.visits(), stage, chunk)) * kept
    return total


def put_off_share(blocks: Iterable[Block], recomputation: Recomputation) -> Fraction:
    """What weight gradients that are put off keep, over what a forward pass keeps, of layers; at most 1.

    Source: M_W and M_B of Qi et al., arXiv:2401.10241, section 2.
    """
    layers = [block for block in blocks if block.name == "layer" and block.backward]
    modes = recomputation.modes(layers)
    kept = sum(_kept(*each) for each in zip(layers, modes, strict=True))
    held = sum(node.held_bytes for block in layers for node in block.backward)
    return Fraction(held, kept) if 0 < held < kept else WHOLE


def most_in_flight(visits: Sequence[Visit], stage: int, chunk: int) -> int:
    """Micro-batches of a chunk whose backward pass is still to come, where there are most."""
    most = now = 0
    for visit in visits:
        if (visit.stage, visit.item.chunk) == (stage, chunk):
            now += {"forward": 1, "weight_gradient": 0}.get(visit.item.kind, -1)
            most = max(most, now)
    return most


def _kept(block: Block, mode: Mode) -> int:
    """What the forward pass keeps of a block [B]."""
    if mode == "all":
        return block.kept_bytes
    if mode == "core":
        return block.kept_bytes - sum(node.kept_bytes for node in block.forward if node.role == "core")
    return block.input_bytes if mode == "input" else 0
