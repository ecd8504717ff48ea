"""Modules of a layer that are computed again: what they keep is dropped, and comes back when it is needed.

A forward pass says which of its nodes belong to which module, a backward pass which node is the first to
need one. What a module reads is kept, and so is what it hands on where others need it; all else that it keeps
goes, and its nodes run once more in the backward pass, behind the gradient that asks for them.

Source: Megatron-Core, ``recompute_modules`` (TransformerConfig) and ``CheckpointWithoutOutput`` in
megatron/core/tensor_parallel/random.py; Korthikanti et al., arXiv:2205.05198 (the core of attention).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from simulator.workload.blocks import BLOCKS_KNOWN, Block, Node

RECOMPUTED = "recompute"
"""Role of what a backward pass does again."""


def modules_of(block: Block) -> frozenset[str]:
    """The modules of a block that can be computed again; none without a backward pass."""
    if not block.backward:
        return frozenset()
    return frozenset(_name(tag) for node in block.forward for tag in node.modules)


@lru_cache(maxsize=BLOCKS_KNOWN)
def recomputing(block: Block, modules: frozenset[str]) -> Block:
    """The block with these of its modules computed again; itself if it has none of them."""
    if not modules & modules_of(block):
        return block
    forward = tuple(_dropping(node) if _chosen(node, modules) else node for node in block.forward)
    return replace(block, forward=forward, backward=_with_modules(block, modules))


def _name(tag: str) -> str:
    return tag.partition(":")[0]


def _chosen(node: Node, modules: frozenset[str]) -> bool:
    return any(_name(tag) in modules for tag in node.modules)


def _dropping(node: Node) -> Node:
    return replace(node, kept_bytes=node.kept_input + node.kept_output)


def _with_modules(block: Block, modules: frozenset[str]) -> tuple[Node, ...]:
    """The backward pass with each chosen module before the first node that needs it."""
    nodes: list[Node] = []
    moved: list[int] = []
    again: set[int] = set()
    for node in block.backward:
        after = tuple(moved[before] for before in node.after)
        needed = {tag for tag in node.modules if _name(tag) in modules}
        group = [
            place
            for place, of in enumerate(block.forward)
            if needed.intersection(of.modules) and place not in again
        ]
        again.update(group)
        ends = _append(nodes, block.forward, group, after)
        moved.append(len(nodes))
        nodes.append(replace(node, after=tuple(dict.fromkeys((*after, *ends)))))
    return tuple(nodes)


def _append(
    nodes: list[Node], forward: tuple[Node, ...], group: list[int], after: tuple[int, ...]
) -> tuple[int, ...]:
    """Adds the nodes of a module behind `after`; returns those that no other of them waits for."""
    moved: dict[int, int] = {}
    ends: set[int] = set()
    for place in group:
        node = forward[place]
        inside = tuple(moved[before] for before in node.after if before in moved)
        if not inside and moved:
            inside = (len(nodes) - 1,)
        ends.difference_update(inside)
        ends.add(len(nodes))
        moved[place] = len(nodes)
        kept = node.kept_bytes - node.kept_input - node.kept_output
        again = replace(
            node,
            after=tuple(dict.fromkeys((*inside, *after))),
            kept_bytes=kept,
            kept_input=0,
            kept_output=0,
            role=RECOMPUTED,
        )
        nodes.append(again)
    return tuple(sorted(ends))
