"""What is not trained: blocks below everything that is, and the first block that has something that is.

Where no parameter of a block or of any block before it is trained, no gradient is wanted below the block:
there is no backward pass, and nothing is kept for one. The first block with a trained parameter has gradients
down to that, and none of its own input.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.workload.blocks import Block, Node
from simulator.workload.kernels import Kernel

_MADE_BY = {
    "attention.qkv": "attention.norm",
    "attention.down": "attention.norm",
    "cross_attention.query": "cross_attention.norm",
    "mlp.up": "mlp.norm",
    "router": "mlp.norm",
    "shared.up": "mlp.norm",
    "head": "head.norm",
}
"""Matrices that read what a norm keeps for them; what others read, the gradient of the weight releases."""

SOURCE = "cross_attention.source"
"""What the gradient of an encoder's output comes from."""


def frozen(block: Block) -> Block:
    """The block with none of its parameters trained, nor any before it."""
    forward = tuple(_keeping(node, 0) for node in block.forward)
    return replace(
        block,
        forward=forward,
        backward=(),
        sequential_parameters=0,
        frozen_parameters=block.parameters,
        frozen_experts=block.expert_parameters,
        trained_matrices=(0, 0),
    )


def lowest(block: Block, trained: frozenset[str]) -> Block:
    """The block with nothing trained before it: its backward pass ends at the first of its trained operators.

    What stands before that keeps nothing but what it reads.

    Args:
        block: The block.
        trained: Its operators whose parameters, or whose adapters, are trained; `SOURCE` for what it hands
            back to an encoder.
    """
    wanted = _wanted(block.backward, trained)
    backward = tuple(block.backward[place] for place in sorted(wanted))
    renamed = {place: number for number, place in enumerate(sorted(wanted))}
    backward = tuple(
        replace(node, after=tuple(sorted(renamed[a] for a in _left_of(block.backward, node, wanted))))
        for node in backward
    )
    begin, name = _first(block.forward, trained)
    needed = {tag for node in backward for tag in node.modules}
    forward = [
        replace(
            node if place >= begin else _keeping(node, 0),
            modules=tuple(tag for tag in node.modules if tag in needed),
        )
        for place, node in enumerate(block.forward)
    ]
    freed, kept = sum(node.freed_bytes for node in backward), sum(node.kept_bytes for node in forward)
    read = max(freed - kept, _read(block.forward[:begin], name))
    node = forward[begin]
    forward[begin] = replace(node, kept_bytes=node.kept_bytes + read, kept_input=node.kept_input + read)
    last = backward[-1]
    ended = replace(last, freed_bytes=last.freed_bytes + kept + read - freed)
    return replace(block, forward=tuple(forward), backward=(*backward[:-1], ended))


def _keeping(node: Node, kept: int) -> Node:
    return replace(node, kept_bytes=kept, kept_input=0, kept_output=0)


def _wanted(nodes: tuple[Node, ...], trained: frozenset[str]) -> set[int]:
    """Places of what the gradients of trained parameters need."""
    wanted: set[int] = set()
    left = [place for place, node in enumerate(nodes) if _ends(node, trained)]
    while left:
        place = left.pop()
        if place not in wanted:
            wanted.add(place)
            left += _read_by(nodes, nodes[place])
    return wanted


def _ends(node: Node, trained: frozenset[str]) -> bool:
    """Whether a node makes the gradient of a trained parameter; frozen ones have none but of norms."""
    name = node.op.name
    if not isinstance(node.op, Kernel):
        return False
    if name == f"{SOURCE}.accumulate":
        return SOURCE in trained
    named = name.endswith((".bias_gradient", ".vectors.accumulate"))
    return named or node.role == "weight_gradient" or name.removesuffix(".gradient") in trained


_BESIDE = (".lora_a.input_gradient", ".lora_sum.gradient", ".residual.gradient", ".input_gradient")
"""Gradients of a block's or a matrix's input, behind which gradients of weights stand but do not read."""


def _read_by(nodes: tuple[Node, ...], node: Node) -> list[int]:
    """What a node reads or waits for.

    The gradient of a weight does not read that of the input before it, and hands nothing on to what stands
    behind it.
    """
    found: list[int] = []
    for place in node.after:
        before = nodes[place]
        passed = before.role == "weight_gradient" != node.role
        if passed or _beside(before.op.name, node.op.name):
            found += _read_by(nodes, replace(node, after=before.after))
        else:
            found.append(place)
    return found


def _beside(before: str, name: str) -> bool:
    """Whether the one is the gradient of an input, and the other, behind it, of a weight beside that."""
    matrix = next((before[: -len(end)] for end in _BESIDE if before.endswith(end)), "")
    return bool(matrix) and name.startswith((f"{matrix}.weight", f"{matrix}.lora_b", f"{matrix}.vectors"))


def _left_of(nodes: tuple[Node, ...], node: Node, wanted: set[int]) -> set[int]:
    """What a node waits for of what is left."""
    found: set[int] = set()
    for before in node.after:
        found |= {before} if before in wanted else _left_of(nodes, nodes[before], wanted)
    return found


def _first(forward: tuple[Node, ...], trained: frozenset[str]) -> tuple[int, str]:
    """The first node of a trained operator, and its name."""
    names = {"cross_attention.key_value" if name == SOURCE else name for name in trained}
    for place, node in enumerate(forward):
        name = node.op.name.removesuffix(".cast")
        if name in names:
            return place, name
    raise LookupError(f"no operator of the block is one of {', '.join(sorted(names))}")


def _read(forward: tuple[Node, ...], name: str) -> int:
    """What is kept before a matrix for its weight's gradient and released further down [B]."""
    if name == "attention.output":
        return sum(node.kept_output for node in forward if "core_attention:attention" in node.modules)
    made_by = _MADE_BY.get(name)
    return sum(node.kept_bytes - node.kept_input for node in forward if node.op.name == made_by)
