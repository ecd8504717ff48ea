"""What operators need while they run, besides what is kept: outputs that pass on, gradients, buffers.

A tensor that is not kept for the backward pass lives from the start of the operator that writes it to the end
of the last one that reads it. Who reads it follows from the order of a pass: an operator reads what those
that it waits for have written, and a weight gradient reads besides what the gradient of the input read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from simulator.workload.blocks import BLOCKS_KNOWN, Block, Node, Shard
from simulator.workload.kernels import AttentionShape, Communication, Kernel, MatmulShape

_FUSED_LAUNCHES = 2
"""Up to so many launches are one operation on one or two tensors; more are a chain of operations."""

_LEAF = "weight_gradient"
"""Role of what no other operator of the pass reads."""


@dataclass(frozen=True, slots=True)
class Transients:
    """Bytes that each operator of a block needs while it runs, besides those that are kept.

    Attributes:
        forward: A figure for each node of the forward pass [B].
        backward: The same for the backward pass [B].
        dropping: The same for a forward pass that keeps nothing [B].
    """

    forward: tuple[int, ...]
    backward: tuple[int, ...]
    dropping: tuple[int, ...]


@lru_cache(maxsize=BLOCKS_KNOWN)
def transients(block: Block, shard: Shard) -> Transients:
    """What the block's operators need while they run.

    In the forward pass: an operator's output where it is not kept, and its inputs where they are not. In the
    backward pass besides: the gradient of the residual stream, and the gradient of a weight until it is added
    to the accumulated ones, unless the product itself adds it. An embedding's gradient is as large as
    its table. A chain of unfused operations has about half of what it writes in memory at a time, or one
    tensor if memory is planned ahead.

    Valid: one pass at a time on a GPU; tensors are freed as soon as nothing needs them.
    """
    stream = block.carried_bytes + (block.input_bytes if block.name == "layer" else 0)
    table = (block.parameters - block.sequential_parameters + block.read_parameters) * shard.element_bytes
    # A forward pass that keeps nothing has its residual stream beside it.
    forward = _live(block.forward, shard, stream=block.input_bytes if block.teacher else 0)
    dropping = _live(block.forward, shard, stream=block.input_bytes, keeps=False)
    if any(isinstance(node.op, Kernel) and node.op.kind == "embedding" for node in block.backward):
        return Transients(forward, (table,) * len(block.backward), dropping)
    whole_layer = block.name == "layer"
    return Transients(forward, _live(block.backward, shard, stream=stream, whole_layer=whole_layer), dropping)


def largest_transient(blocks: tuple[Block, ...], shard: Shard) -> int:
    """The most that one operator needs while it runs, of blocks that are not repeated [B].

    Layers ask for the same sizes again and again; embedding, head and loss ask once a pass.
    """
    distinct = {id(block): block for block in blocks if block.name != "layer"}
    return max(
        (
            need
            for block in distinct.values()
            for passes in (transients(block, shard),)
            for need in (*passes.forward, *passes.backward)
        ),
        default=0,
    )


def placeholder_bytes(blocks: tuple[Block, ...], shard: Shard) -> int:
    """Empty tensors that stand for weight gradients which a product has added already, one of each shape [B].

    Experts whose products are one kernel have a weight each, all of one shape.

    Source: Transformer Engine, ``get_dummy_wgrad`` (transformer_engine/pytorch/module/base.py).
    """
    if not shard.software.gradient_placeholders:
        return 0
    shapes = {
        (node.op.shape.m, node.op.shape.n)
        for block in {id(block): block for block in blocks}.values()
        if block.name == "layer"
        for node in block.backward
        if node.role == _LEAF and isinstance(node.op, Kernel) and isinstance(node.op.shape, MatmulShape)
    }
    return sum(m * n for m, n in shapes) * shard.element_bytes


def _live(
    nodes: tuple[Node, ...], shard: Shard, *, stream: int, keeps: bool = True, whole_layer: bool = False
) -> tuple[int, ...]:
    """Bytes in use while each node runs, besides what is kept; all, if nothing is."""
    outputs: list[int] = []
    sources: list[tuple[int, ...]] = []
    needs: list[int] = []
    leaf_output = 0
    for node in nodes:
        read = tuple(sorted({_producer(nodes, sources, before) for before in node.after}))
        handed = node.kept_bytes - node.kept_input
        output = 0 if node.role == _LEAF else _handed_on(_output(node, shard), handed, keeps=keeps)
        if node.role == _LEAF:
            leaf_output = _weight_gradient(node, shard, leaf_output, whole_layer=whole_layer)
            behind = {source for producer in read for source in sources[producer]}
            need = leaf_output + sum(outputs[i] for i in behind.union(read)) + stream
        elif isinstance(node.op, Communication):
            # What it reads is counted with the kernel that runs beside it, if one does.
            need = output
        else:
            need = output + _working(node.op, shard) + sum(outputs[i] for i in read) + stream
        if isinstance(node.op, Communication) and node.op.collective == "all_reduce":
            output = sum(outputs[i] for i in read)
        outputs.append(output)
        sources.append(read)
        needs.append(need)
    return tuple(needs)


def _handed_on(output: int, kept: int, *, keeps: bool) -> int:
    """Bytes of an output that are not counted with what is kept; else all, with what would have been kept."""
    return max(0, output - kept) if keeps else max(output, kept)


def _producer(nodes: tuple[Node, ...], sources: list[tuple[int, ...]], index: int) -> int:
    """The operator whose output is read: a weight gradient passes nothing on."""
    while nodes[index].role == _LEAF and sources[index]:
        index = sources[index][0]
    return index


def _output(node: Node, shard: Shard) -> int:
    """Bytes that a node writes and hands on."""
    operation = node.op
    if isinstance(operation, Communication):
        whole = operation.message_bytes
        if operation.collective == "reduce_scatter":
            return whole // (shard.tensor_parallel if operation.axis == "tensor" else 1)
        return 0 if operation.collective == "all_reduce" else whole
    if _fused_loss(operation):
        return 0
    if isinstance(operation.shape, AttentionShape):
        return operation.write_bytes + _query_accumulator(operation.shape)
    if isinstance(operation.shape, MatmulShape) or operation.launches <= _FUSED_LAUNCHES:
        return operation.write_bytes
    in_place = shard.software.allocator == "planned"
    return operation.write_bytes // (operation.launches if in_place else 2)


def _fused_loss(operation: Kernel) -> bool:
    """Whether this is a loss that leaves the gradient in place of the logits, or the second half of it."""
    return operation.kind == "loss" and operation.launches <= _FUSED_LAUNCHES


def _working(operation: Kernel, shard: Shard) -> int:
    """Bytes that an operator works in and neither keeps nor hands on: a fused loss computes in fp32.

    Source: ``fused_vocab_parallel_cross_entropy`` in megatron/core/fusions/fused_cross_entropy.py.
    """
    if not _fused_loss(operation):
        return 0
    return operation.write_bytes // shard.element_bytes * 4 // shard.software.loss_chunks


def _query_accumulator(shape: AttentionShape) -> int:
    """FlashAttention sums the gradient of the queries in fp32.

    Source: ``dq_accum`` in csrc/flash_attn/flash_api.cpp of Dao-AILab/flash-attention.
    """
    if shape.direction == "forward":
        return 0
    return 4 * shape.batch * shape.heads * shape.query_length * shape.head_dim


def _weight_gradient(node: Node, shard: Shard, previous: int, *, whole_layer: bool) -> int:
    """Bytes of the gradient of a weight as the pass leaves it, or of what stands in its place."""
    operation = node.op
    if not isinstance(operation, Kernel) or not isinstance(operation.shape, MatmulShape):
        return previous
    software = shard.software
    adds = software.fused_gradient_accumulation and not (whole_layer and shard.matrix_gradient)
    if adds and (whole_layer or not software.gradient_placeholders):
        return 0
    shape = operation.shape
    return shape.batch * shape.m * shape.n * shard.element_bytes
