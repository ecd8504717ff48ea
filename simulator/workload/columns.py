"""Matrices that are split over GPUs: what those exchange before, after and beside them.

Tensor parallelism splits matrices by columns, then by rows (Shoeybi et al., arXiv:1909.08053); sequence
parallelism turns each all-reduce into an all-gather and a reduce-scatter and splits what lies between
(Korthikanti et al., arXiv:2205.05198).
"""

from __future__ import annotations

from typing import Final

from simulator.specs.model import TransformerSpec
from simulator.workload import chains
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.kernels import Collective, Communication
from simulator.workload.lora import reads_input
from simulator.workload.matrices import add_input_gradient, cast, transpose
from simulator.workload.state import narrow


def tensor(shard: Shard, name: str, collective: Collective, message_bytes: int) -> Communication | None:
    """A collective among those that split the matrices; None where one GPU holds them whole."""
    if shard.tensor_parallel == 1:
        return None
    return Communication(f"{name}.{collective}", collective, "tensor", message_bytes)


def gather(shard: Shard, name: str, message_bytes: int) -> Communication | None:
    """The whole sequence, if that is split."""
    return tensor(shard, name, "all_gather", message_bytes) if shard.sequence_parallel else None


def add_gather(into: PassBuilder, shard: Shard, name: str, width: int, *, made_by: str = "") -> None:
    """The input, or the output's gradient, of a split matrix: the whole sequence, if that is split.

    An operand of fewer bits is cast before it is sent, by each GPU its part; with the module that makes
    it, it is cast again.

    Source: ``gather_along_first_dim`` behind the quantizers of inputs and of output gradients in
        transformer_engine/pytorch/module (linear.py, layernorm_linear.py, base.py).
    """
    if casts_to_gather(shard):
        with into.of(*((made_by,) if made_by else ())):
            into.add(cast(name, shard.residual_tokens * width, shard))
    gathered = gather(shard, name, gathered_bytes(shard, shard.tokens * width))
    if gathered is not None and in_pieces(shard):
        into.add_beside(gathered)
    else:
        into.add(gathered)


_PIECES: Final = 4
"""Pieces in which a product's output is reduced while it is made.

Source: ``num_splits`` of PipelineOverlapCfg in the configurations of NVIDIA/NeMo
    (nemo/collections/llm/recipes/tp_overlap_configs/userbuffers.py).
"""


def in_pieces(shard: Shard) -> bool:
    """Whether products and the collectives around them run side by side, piece by piece.

    A product begins with the part of the sequence that its own GPU holds, while the others arrive; what it
    has finished is reduced while it goes on. Adapters need their inputs and outputs whole.

    Source: Userbuffers, ``tp_comm_overlap`` of Megatron-Core and Transformer Engine (te.pytorch.ub_overlap).
    """
    split = shard.sequence_parallel and shard.tensor_parallel > 1 and not shard.lora_rank
    return shard.software.pipelined_tensor_parallel and split


def add_reduce(into: PassBuilder, shard: Shard, name: str, message_bytes: int) -> None:
    """What a row-split matrix needs after it, beside its product but for the last piece, or behind it."""
    if not in_pieces(shard):
        into.add(reduce(shard, name, message_bytes))
        return
    product, last = into.last, message_bytes // _PIECES
    early = into.add(reduce(shard, name, message_bytes - last), after=into.nodes[product].after)
    into.add(reduce(shard, name, last), after=(product, early))


def casts_to_gather(shard: Shard) -> bool:
    """Whether operands are cast before they are gathered; adapters need them as they were."""
    split = shard.sequence_parallel and shard.tensor_parallel > 1
    return split and shard.casts and not shard.lora_rank and narrow(shard.tensor or shard.recipe)


def gathered_bytes(shard: Shard, elements: int) -> int:
    """Bytes of an operand on its way to the other GPUs."""
    return shard.operand_bytes(elements) if casts_to_gather(shard) else elements * shard.element_bytes


def reduce(shard: Shard, name: str, message_bytes: int) -> Communication | None:
    """What a row-split matrix needs after it: the sum over the GPUs."""
    return tensor(shard, name, "reduce_scatter" if shard.sequence_parallel else "all_reduce", message_bytes)


def scatter(shard: Shard, name: str, message_bytes: int) -> Communication | None:
    """The backward of `gather`, or of the copy that stands in its place."""
    return reduce(shard, name, message_bytes)


def add_column_gradient(
    into: PassBuilder, model: TransformerSpec, shard: Shard, name: str, columns: int, residual: int
) -> None:
    """Backward of a column-split matrix, its norm, and where the branch leaves the residual stream."""
    width, part, kept = model.hidden_size, name.partition(".")[0], reads_input(shard, name)
    reduced = add_split_gradient(into, shard, name, width, columns, about=part)
    into.add(
        chains.norm_gradient(f"{part}.norm.gradient", residual * width, model, shard),
        after=(reduced,),
        freed=residual * width * chains.kept_by_norm(model, shard, f"{part}.norm")
        + kept * shard.operand_bytes(residual * width),
    )
    last = "mlp.down" if part == "mlp" else f"{part}.output"
    biased = (model.mlp_bias if part == "mlp" else model.attention_output_bias) and shard.trains(last)
    into.add(
        chains.residual_gradient(f"{part}.residual.gradient", residual * width, biased, shard),
        freed=residual * width * shard.dropout,
    )
    if not shard.software.fused_gradient_accumulation:
        launches = (2 if model.norm == "layernorm" else 1) * shard.trains(f"{part}.norm")
        inner = (model.mlp_bias if part == "mlp" else model.attention_output_bias) and shard.trains(name)
        vectors, launches = width * (launches + biased) + columns * inner, launches + biased + inner
        if launches:
            into.add(chains.accumulation(f"{part}.vectors.accumulate", vectors, shard, launches))


def add_split_gradient(
    into: PassBuilder, shard: Shard, name: str, width: int, columns: int, *, about: str, freed: int = 0
) -> int:
    """Gradients of a column-split matrix and of its input: the one gathered again, the other reduced.

    Args:
        into: Takes the nodes.
        shard: One GPU's part of the micro-batch.
        name: Name of the product.
        width: Rows of the matrix: columns of its input.
        columns: Columns of the matrix on this GPU.
        about: What its input is called.
        freed: Bytes that its own gradient releases.

    Returns:
        Index of what the rest of the pass waits for.
    """
    tokens, before = shard.tokens, (len(into.nodes) - 1,)
    again: tuple[int, ...] = ()
    kept = reads_input(shard, name)
    if shard.sequence_parallel and kept:
        gathered = tensor(shard, f"{about}.input", "all_gather", gathered_bytes(shard, tokens * width))
        again = (into.add(gathered, after=before, role="weight_gradient"),)
    ready = before if shard.software.overlap_tensor_parallel else (*before, *again)
    data = add_input_gradient(into, name, tokens, width, columns, shard, after=ready)
    if casts_to_gather(shard) and kept:
        copied = transpose(f"{about}.input", tokens * width, shard)
        again = again if copied is None else (into.add(copied, after=again, role="weight_gradient"),)
    return beside_weight_gradient(
        into,
        shard,
        scatter(shard, f"{about}.gradient", tokens * width * shard.element_bytes),
        (f"{name}.weight_gradient", tokens, columns, width),
        data,
        shard.residual_tokens,
        again=again,
        freed=freed,
    )


def beside_weight_gradient(
    into: PassBuilder,
    shard: Shard,
    reduction: Communication | None,
    weight: tuple[str, int, int, int],
    data: int,
    kept_tokens: int,
    *,
    again: tuple[int, ...] = (),
    freed: int = 0,
    precision: str | None = None,
    overlaps: bool = True,
) -> int:
    """The gradient of a weight, and the reduction of the input's gradient beside it or behind it.

    It is behind it where nothing in the pass is left to wait for it (`overlaps` false).

    Returns:
        Index of what the rest of the pass waits for.
    """
    beside = shard.software.overlap_tensor_parallel and overlaps
    reduced = into.add(reduction, after=(data,)) if beside else data
    last = chains.add_weight_gradient(
        into,
        *weight,
        shard,
        after=(data, *again),
        freed=freed,
        kept_tokens=kept_tokens,
        precision=precision,
    )
    return reduced if beside or reduction is None else into.add(reduction, after=(last,))
