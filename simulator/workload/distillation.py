"""A teacher beside the model that is trained: its forward pass, and its logits compared with the student's.

The teacher is never trained: it keeps nothing for a backward pass, and no gradient or state of it exists. All
that it leaves behind are logits, whole or the largest of each token, until the comparison has read them.

Source: Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.specs.model import TransformerSpec
from simulator.workload import chains
from simulator.workload.blocks import Block, Node, PassBuilder, Shard
from simulator.workload.columns import tensor
from simulator.workload.ends import head_block, vocab_shard
from simulator.workload.kernels import Kernel
from simulator.workload.operators import pointwise

_INDEX_BYTES = 8
"""A place in the vocabulary, as frameworks keep it."""


def taught(block: Block) -> Block:
    """A block of a transformer as a teacher has it: its forward pass, of which nothing stays."""
    return replace(
        block,
        name=f"teacher_{block.name}",
        forward=tuple(_of_teacher(node) for node in block.forward),
        backward=(),
        sequential_parameters=0,
        frozen_parameters=block.parameters,
        trained_matrices=(0, 0),
        frozen_experts=block.expert_parameters,
        teacher=True,
    )


def teacher_head_block(
    model: TransformerSpec, shard: Shard, *, shares_embedding: bool, top_k: int | None
) -> Block:
    """The teacher's norm and logits; of these, the `top_k` largest of each token if not all are wanted.

    Where the vocabulary is split, each GPU finds its own largest, and they are gathered to choose from.
    """
    head = taught(head_block(model, shard, shares_embedding=shares_embedding))
    nodes = [node for node in head.forward if not node.op.name.startswith("teacher.loss")]
    logits = shard.tokens * vocab_shard(model, shard)
    into = PassBuilder(nodes)
    if top_k is None:
        into.nodes[-1] = replace(nodes[-1], kept_bytes=logits * shard.element_bytes)
        return replace(head, forward=into.done())
    chosen = _chosen_bytes(shard, top_k)
    into.add(
        Kernel(
            "teacher.top_k",
            "elementwise",
            flops=4 * logits,
            read_bytes=logits * shard.element_bytes,
            write_bytes=chosen,
            precision="fp32",
            launches=2,
        ),
        kept=chosen,
    )
    into.add(tensor(shard, "teacher.top_k", "all_gather", chosen * shard.tensor_parallel))
    return replace(head, forward=into.done())


def comparison_block(model: TransformerSpec, shard: Shard, *, top_k: int | None) -> Block:
    """The divergence between the teacher's and the student's predictions, beside the loss on the labels.

    Fused, both softmaxes, the divergence and its gradient come from reading both logits twice; the gradient
    is added to the one that the loss has left in place of the student's logits. Else it is a chain over fp32
    copies of both, of which log-probabilities and probabilities are kept. Of a few logits of each token,
    the student's are looked up.

    Args:
        model: The student.
        shard: One GPU's part of the micro-batch.
        top_k: Logits of each token that the teacher has left; all if None.
    """
    logits, element = shard.tokens * vocab_shard(model, shard), shard.element_bytes
    forward, backward = PassBuilder(), PassBuilder()
    name, undone = "teacher.comparison", "teacher.comparison.gradient"
    if top_k is not None:
        few = -(-shard.tokens * top_k // shard.tensor_parallel)
        reads = element + _INDEX_BYTES + element
        forward.add(pointwise(name, "loss", few, reads=reads, writes=element, flops=8, launches=3))
        spread = pointwise(undone, "loss", few, reads=reads, writes=element, flops=4, launches=2)
        backward.add(spread, freed=_chosen_bytes(shard, top_k))
    elif shard.software.fused_cross_entropy:
        whole = pointwise(name, "loss", logits, reads=5 * element, writes=element, flops=18, launches=2)
        forward.add(whole, freed=logits * element)
    else:
        kept = 2 * chains.kept_per_logit(shard) * logits
        reads = 2 * element + 20
        chain = pointwise(name, "loss", logits, reads=reads, writes=20, flops=18, launches=6)
        forward.add(chain, kept=kept, freed=logits * element)
        back = pointwise(undone, "loss", logits, reads=8, writes=4 + element, flops=4, launches=3)
        backward.add(back, freed=kept)
    forward.add(tensor(shard, "teacher.comparison", "all_reduce", 3 * 4 * shard.tokens))
    return Block(
        name="comparison", forward=forward.done(), backward=backward.done(), parameters=0, input_bytes=0
    )


def _chosen_bytes(shard: Shard, top_k: int) -> int:
    """Values and places of the logits that are left of each token."""
    return shard.tokens * top_k * (shard.element_bytes + _INDEX_BYTES)


def _of_teacher(node: Node) -> Node:
    return replace(node, op=replace(node.op, name=f"teacher.{node.op.name}"), kept_bytes=0, role="")
