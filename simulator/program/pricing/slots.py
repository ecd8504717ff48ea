"""What micro-batches take on the stages: in flight, put off, and room that is kept for more of them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

from simulator.program.planning.plan import Plan
from simulator.program.planning.recomputation import Mode, Recomputation
from simulator.program.schedules.order import FORWARD, WEIGHT_GRADIENT, Visits
from simulator.program.schedules.schedule import Held
from simulator.workload import Block
from simulator.workload.blocks import BLOCKS_KNOWN

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
            kept = sum(kept_bytes(*each) for each in zip(blocks, recomputation.modes(blocks), strict=True))
            total += max(0, room - most_in_flight(plan.visits(), stage, chunk)) * kept
    return total


def held_by_stage(
    blocks: Sequence[Sequence[Sequence[Block]]], recomputation: Recomputation
) -> tuple[Held, ...]:
    """What a micro-batch takes on each stage, in units of what the fullest stage's layers keep of one.

    A stage with fewer layers is given as much in these units as the fullest, one with the head its own. What
    layers put off counts no more than what they have in flight.

    Source: M_B and M_W of Qi et al., arXiv:2401.10241, section 2.
    """
    every = [
        (block, mode)
        for chunks in blocks
        for part in chunks
        for block, mode in zip(part, recomputation.modes(part), strict=True)
    ]
    layers = [(block, mode) for block, mode in every if block.name == "layer" and block.backward]
    share = _put_off(layers)
    per_stage = []
    for chunks in blocks:
        mine = [each for part in chunks for each in zip(part, recomputation.modes(part), strict=True)]
        per_stage.append((mine, sum(kept_bytes(*each) for each in mine if each[0].name == "layer")))
    unit = max(layers_keep for _, layers_keep in per_stage)
    if not unit:
        return (Held(),) * len(blocks)
    return tuple(
        Held(
            max(Fraction(1), Fraction(sum(kept_bytes(*each) for each in mine), unit)),
            max(share, Fraction(_held(mine), unit)),
        )
        for mine, _ in per_stage
    )


def _put_off(blocks: Sequence[tuple[Block, Mode]]) -> Fraction:
    """What blocks hold for weight gradients that are put off, over what they keep; at most 1."""
    kept, held = sum(kept_bytes(*each) for each in blocks), _held(blocks)
    return Fraction(held, kept) if 0 < held < kept else Fraction(1)


def _held(blocks: Sequence[tuple[Block, Mode]]) -> int:
    """What weight gradients that are put off keep [B]."""
    return sum(node.held_bytes for block, _ in blocks for node in block.backward)


def most_in_flight(visits: Visits, stage: int, chunk: int) -> int:
    """Micro-batches of a chunk whose backward pass is still to come, where there are most."""
    kinds = visits.kind[(visits.stage == stage) & (visits.chunk == chunk) & (visits.kind != WEIGHT_GRADIENT)]
    return int(np.cumsum(np.where(kinds == FORWARD, 1, -1)).max(initial=0))


@lru_cache(maxsize=4 * BLOCKS_KNOWN)
def kept_bytes(block: Block, mode: Mode) -> int:
    """What the forward pass keeps of a block [B]."""
    if mode == "all":
        return block.kept_bytes
    return block.input_bytes if mode == "input" else 0
