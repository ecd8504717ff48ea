"""What stands below everything that is trained: it has a forward pass and nothing else.

Where no parameter of a block or of any block before it is trained, no gradient is wanted below the block:
there is no backward pass, and nothing is kept for one.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.workload.blocks import Block


def frozen(block: Block) -> Block:
    """The block with none of its parameters trained, nor any before it."""
    forward = tuple(replace(node, kept_bytes=0, kept_input=0, kept_output=0) for node in block.forward)
    return replace(
        block,
        forward=forward,
        backward=(),
        sequential_parameters=0,
        frozen_parameters=block.parameters,
        frozen_experts=block.expert_parameters,
        trained_matrices=(0, 0),
    )
