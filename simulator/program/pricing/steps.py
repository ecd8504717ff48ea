"""Nodes of a pass with what they need while they run, and the halves into which a backward pass splits."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from simulator.workload import Node


class Step(NamedTuple):
    """A node of a pass, what it needs while it runs, and who is said to keep what it takes."""

    node: Node
    need: int = 0
    keeper: str = ""


def part_of(steps: list[Step], part: str) -> list[Step]:
    """One half of a backward pass: what the block before waits for, or the gradients of the weights."""
    if part == "backward":
        return steps
    weights = [step.node.role == "weight_gradient" for step in steps]
    if part == "weight_gradient":
        chosen = [step for step, is_weight in zip(steps, weights, strict=True) if is_weight]
        alone = all(weights)  # no other half has taken over what they keep
        return [
            step._replace(
                node=replace(
                    step.node,
                    after=() if number == 0 else (number - 1,),
                    freed_bytes=step.node.freed_bytes if alone else step.node.held_bytes,
                )
            )
            for number, step in enumerate(chosen)
        ]
    return _without_weights(steps, weights)


def _without_weights(steps: list[Step], weights: list[bool]) -> list[Step]:
    """What the weight gradients need stays; what they would have freed beyond that goes all the same."""
    kept: list[Step] = []
    # What stands before all else is taken over by the first that is left.
    first_held = first_freed = 0
    place: dict[int, tuple[int, ...]] = {}
    for number, step in enumerate(steps):
        node = step.node
        after = tuple(sorted({p for a in node.after for p in place[a]}))
        if not weights[number]:
            place[number] = (len(kept),)
            held, freed = node.kept_bytes + first_held, node.freed_bytes + first_freed
            first_held = first_freed = 0
            kept.append(step._replace(node=replace(node, after=after, kept_bytes=held, freed_bytes=freed)))
            continue
        place[number] = after
        if not kept:
            first_held, first_freed = first_held + node.held_bytes, first_freed + node.freed_bytes
        else:
            before = kept[-1].node
            held = before.kept_bytes + node.held_bytes
            freed = before.freed_bytes + node.freed_bytes
            kept[-1] = kept[-1]._replace(node=replace(before, kept_bytes=held, freed_bytes=freed))
    return kept
