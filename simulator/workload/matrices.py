"""A layer's matrix products and, where they have fewer bits than the rest, the casts of their operands."""

from __future__ import annotations

from dataclasses import replace

from simulator.workload import lora, operators
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.kernels import Kernel
from simulator.workload.precision import RECIPES
from simulator.workload.weights import add_weight, kept_weight


def add_product(
    into: PassBuilder,
    name: str,
    m: int,
    n: int,
    k: int,
    shard: Shard,
    *,
    batch: int = 1,
    kept: int = 0,
    kept_operand: bool = False,
    ready: bool = False,
    after: tuple[int, ...] | None = None,
    made_by: str = "",
) -> int:
    """`batch` products [m, k] x [k, n] of a forward pass, the input cast before, an adapter added behind.

    Args:
        into: Takes the nodes.
        name: Name of the product.
        m: Tokens.
        n: Columns.
        k: Rows of the weight.
        shard: One GPU's part of the micro-batch.
        batch: Independent products (experts).
        kept: Bytes of the output that are kept.
        kept_operand: Whether the cast input is kept besides the input itself, which something else needs too.
        ready: Whether the input comes cast already.
        after: What it waits for; the node before it if not given.
        made_by: The module that makes the input, with which it is cast again, if that is one.

    Returns:
        Index of the last node.
    """
    elements = batch * m * k
    operand = None if ready else cast(name, elements, shard, batch)
    made = add_weight(into, name, batch * k * n, shard, after=after)
    after = made or after
    if operand is not None:
        with into.of(*((made_by,) if made_by else ())):
            size = shard.operand_bytes(elements) if kept_operand else 0
            after = (*made, into.add(operand, after=after, kept=size))
    into.add(_product(name, m, n, k, batch, shard), after=after, kept=kept)
    into.join()
    return lora.add_forward(into, name, m, n, k, shard, batch=batch)


def add_input_gradient(
    into: PassBuilder,
    name: str,
    m: int,
    n: int,
    k: int,
    shard: Shard,
    *,
    batch: int = 1,
    ready: bool = False,
    after: tuple[int, ...] | None = None,
) -> int:
    """The gradient [m, n] of a product's input from that of its output [m, k], which is cast before.

    Where it comes cast already (`ready`), only its copy by columns for the weight's gradient is left to make:
    before the product, or behind it where its pieces arrive beside it.

    Returns:
        Index of the last node.
    """
    make = transpose if ready else cast
    operand, weight = make(f"{name}.gradient", batch * m * k, shard, batch), batch * k * n
    made = add_weight(into, name, weight, shard, after=after, backward=True)
    after = made or after
    if operand is not None and not (ready and into.beside):
        after, operand = (*made, into.add(operand, after=after)), None
    product = _product(f"{name}.input_gradient", m, n, k, batch, shard)
    into.add(product, after=after, freed=kept_weight(weight, shard))
    into.join()
    return into.add(operand)


def cast(name: str, elements: int, shard: Shard, batch: int = 1) -> Kernel | None:
    """An operand cast and written by rows and by columns, if they differ; None where nothing is cast.

    Of several experts each has a tensor of its own, which the interpreter makes one by one where it has one
    scale, all at once where it has blocks.

    Source: ``split_quantize`` in pytorch/csrc/extensions/cast.cpp of Transformer Engine
        (``bulk_allocate_fp8_blockwise_tensors``, ``bulk_allocate_mxfp8_tensors``).
    """
    recipe = RECIPES.get(shard.recipe)
    if recipe is None:
        return None
    calls = shard.calls(batch)
    made = operators.pointwise(
        f"{name}.cast",
        "elementwise",
        elements,
        reads=recipe.reads * shard.element_bytes,
        writes=shard.layouts * shard.operand.number_bytes,
        flops=2 * recipe.reads,
        launches=recipe.reads * calls,
    )
    return replace(made, looped=made.launches - (1 if shard.operand.block else calls))


def transpose(name: str, elements: int, shard: Shard, batch: int = 1) -> Kernel | None:
    """The copy by columns of an operand that came cast by rows; None where it serves for both."""
    if shard.layouts == 1:
        return None
    size, launches = shard.operand.number_bytes, shard.calls(batch)
    return operators.pointwise(
        f"{name}.transpose", "elementwise", elements, reads=size, writes=size, flops=0, launches=launches
    )


def _product(name: str, m: int, n: int, k: int, batch: int, shard: Shard) -> Kernel:
    precision, out, each = shard.matrix_precision, shard.element_bytes, shard.operand.number_bytes
    product = operators.matmul(name, m, n, k, precision, batch=batch, operand_bytes=each, out_bytes=out)
    return shard.called(product, batch)


def count_part(into: PassBuilder, prefix: str, part: int, whole: int, *, first: int) -> None:
    """Let only a part of the arithmetic of some kernels count towards MFU.

    The rest is no arithmetic of the model: slots of experts that are empty, or what several GPUs do alike.

    Args:
        into: Has the nodes.
        prefix: How the kernels' names begin.
        part: Numerator of what counts.
        whole: Denominator.
        first: First node that is looked at.
    """
    if part == whole:
        return
    for place, node in enumerate(into.nodes[first:], first):
        if isinstance(node.op, Kernel) and node.op.model_flops and node.op.name.startswith(prefix):
            counted = node.op.model_flops * part // whole
            into.nodes[place] = replace(node, op=replace(node.op, model_flops=counted))
