"""Weights that a pass finds in another precision or layout than its products read: what it makes of them.

Where weights stay on the GPU, casts for products in few bits are made once a step, behind the update.
Weights that are gathered for a pass are cast in it; so are weights in fp32 for passes in 16 bits, which keep
what they have cast for their backward pass (autocast).
"""

from __future__ import annotations

from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.kernels import Kernel
from simulator.workload.operators import pointwise
from simulator.workload.precision import FORMATS, RECIPES
from simulator.workload.state import narrow


def add_weight(
    into: PassBuilder,
    name: str,
    elements: int,
    shard: Shard,
    *,
    after: tuple[int, ...] | None = None,
    backward: bool = False,
    matrix: bool = True,
    keeps: bool = True,
) -> tuple[int, ...]:
    """What has to be made of a weight before its product.

    Args:
        into: Takes the nodes.
        name: Name of the product.
        elements: Numbers of the weight.
        shard: One GPU's part of the micro-batch.
        after: What it waits for.
        backward: Whether the product is the gradient of the input, which reads the weight by columns.
        matrix: Whether it is one of the layers' products, which may have fewer bits than the passes.
        keeps: Whether a backward pass will read what is cast.

    Returns:
        The node, for which the product waits; empty where the weight is as it is read.
    """
    made = _made(name, elements, shard, backward=backward, matrix=matrix)
    if made is None:
        return ()
    kept = 0 if backward or not keeps else kept_weight(elements, shard, matrix=matrix)
    return (into.add(made, after=after, kept=kept),)


def kept_weight(elements: int, shard: Shard, *, matrix: bool = True) -> int:
    """Bytes of a cast weight that a forward pass keeps for its backward pass.

    Source: PyTorch, ``torch.autocast``, whose casts of parameters are saved for the backward pass.
    """
    casts = shard.weights_stay and not (matrix and shard.casts) and _widths_differ(shard)
    return elements * shard.element_bytes if casts else 0


def _widths_differ(shard: Shard) -> bool:
    """Whether weights are kept in other 16 or 32 bits than the passes read."""
    given = shard.weights or shard.precision
    return not narrow(given) and FORMATS[given].bits != FORMATS[shard.precision].bits


def _made(name: str, elements: int, shard: Shard, *, backward: bool, matrix: bool) -> Kernel | None:
    given = shard.weights or shard.precision
    if matrix and shard.casts:
        if shard.weights_stay and shard.software.weight_copies:
            return None
        recipe, read = RECIPES[shard.recipe], FORMATS[shard.recipe].weight_bytes
        if given != shard.recipe:
            return _cast(name, elements, given, read, recipe.reads)
        if backward and shard.layouts > 1 and not FORMATS[given].block_units:
            name = f"{name}.weight_transpose"
            return pointwise(name, "elementwise", elements, reads=read, writes=read, flops=0)
        return None
    if matrix and narrow(given):
        return _cast(name, elements, given, shard.element_bytes, 1)
    if not _widths_differ(shard) or (backward and shard.weights_stay):
        return None
    return _cast(name, elements, given, shard.element_bytes, 1)


def _cast(name: str, elements: int, given: str, written: float, reads: int) -> Kernel:
    each = reads * FORMATS[given].weight_bytes
    name = f"{name}.weight_cast"
    return pointwise(name, "elementwise", elements, reads=each, writes=written, flops=reads, launches=reads)
