"""The fused softmax takes scores in multiples and up to a number of keys; others are masked in fp32."""

from __future__ import annotations

import pytest

from simulator.specs import SoftwareSpec, TransformerSpec
from simulator.workload import Block, Kernel, Shard, layer_block
from simulator.workload.kernels import KernelKind

MEGATRON = SoftwareSpec(name="megatron", fused_softmax_multiple=4, fused_softmax_keys=2048)
MODEL = TransformerSpec(
    name="gpt",
    num_hidden_layers=1,
    hidden_size=1024,
    intermediate_size=4096,
    num_attention_heads=16,
    num_key_value_heads=16,
    head_dim=64,
    vocab_size=512,
    max_position_embeddings=4096,
)


def layer(batch: int, split: int, length: int = 1024) -> Block:
    shard = Shard(batch, length, split, False, "fp16", "unfused", 4, software=MEGATRON)
    return layer_block(MODEL, shard)


def softmaxes(block: Block) -> tuple[Kernel, Kernel]:
    kind: KernelKind = "softmax"
    ops = [node.op for node in (*block.forward, *block.backward)]
    first, second = [op for op in ops if isinstance(op, Kernel) and op.kind == kind]
    return first, second


@pytest.mark.parametrize(
    ("batch", "split", "length", "launches"),
    [(1, 8, 1024, 4), (2, 8, 1024, 1), (1, 4, 1024, 1), (3, 8, 1024, 4), (4, 8, 2048, 1), (4, 8, 2052, 4)],
)
def test_two_heads_are_too_few_for_it_and_four_are_not(
    batch: int, split: int, length: int, launches: int
) -> None:
    assert [op.launches for op in softmaxes(layer(batch, split, length))] == [launches, launches]


def test_in_fp32_each_step_reads_and_writes_all_scores() -> None:
    scores = 1 * 2 * 1024 * 1024
    forward, backward = softmaxes(layer(1, 8))
    # To fp32, mask (a byte), softmax, back; backwards the weights are read with their gradient.
    assert forward.read_bytes == scores * (2 + (4 + 1) + 4 + 4)
    assert forward.write_bytes == scores * (4 + 4 + 4 + 2)
    assert backward.read_bytes == scores * (2 + (4 + 4) + (4 + 1) + 4)
    assert backward.write_bytes == scores * (4 + 4 + 4 + 2)


def test_what_is_kept_in_fp32_is_freed() -> None:
    block, fused = layer(1, 8), layer(2, 8)
    assert block.kept_bytes == sum(node.freed_bytes for node in block.backward)
    assert block.kept_bytes - fused.kept_bytes / 2 == pytest.approx(4 * 2 * 1024 * 1024, rel=1e-3)


@pytest.mark.parametrize("batch", [1, 4])
def test_heads_that_are_transposed_are_read_and_written_once_more(batch: int) -> None:
    """Queries, keys and values forward (three widths), backward the gradient of their outputs (one)."""
    blocks = []
    for turned in (False, True):
        software = SoftwareSpec(name="graph", transposed_heads=turned)
        shard = Shard(batch, 512, 1, False, "fp16", "unfused", 4, software=software)
        blocks.append(layer_block(MODEL, shard))
    plain, turned_block = blocks
    width = 2 * batch * 512 * MODEL.hidden_size  # bytes of one activation of the layer's width
    for passes, copies in (("forward", 3), ("backward", 1)):
        before, after = (
            sum(op.read_bytes + op.write_bytes for op in ops if isinstance(op, Kernel))
            for ops in ([node.op for node in getattr(block, passes)] for block in (plain, turned_block))
        )
        assert after - before == 2 * copies * width
    assert turned_block.kept_bytes == plain.kept_bytes
