"""Numbers of few bits: bytes against formats counted number by number, traffic of casts, what travels."""

from __future__ import annotations

from math import ceil

import pytest

from simulator.scenario import load_scenario
from simulator.specs.model import TransformerSpec
from simulator.workload import Block, Kernel, Shard, layer_block, transients
from simulator.workload.precision import FORMATS, RECIPES

TOKENS = 512


def stored(precision: str, rows: int, columns: int, *, weight: bool = False) -> int:
    """Bytes of a matrix, counted: numbers, and a scale for every block of them."""
    bits = {"fp8": 8, "fp8_block": 8, "mxfp8": 8, "nvfp4": 4, "bf16": 16, "fp16": 16, "fp32": 32}[precision]
    whole = rows * columns * bits // 8
    if precision == "fp8_block":
        blocks = ceil(rows / 128) * (columns // 128) if weight else rows * columns // 128
        return whole + 4 * blocks
    per_scale = {"mxfp8": 32, "nvfp4": 16}.get(precision)
    return whole + (rows * (columns // per_scale) if per_scale else 0)


def layer(recipe: str) -> Block:
    """A layer of Llama-2-7B on one GPU."""
    model = load_scenario("scenarios/llama2_7b_fsdp.yaml").model
    assert isinstance(model, TransformerSpec)
    return layer_block(model, Shard(1, TOKENS, 1, False, "bf16", "fused", 4, recipe=recipe))


def kernel(block: Block, name: str) -> Kernel:
    found = next(node.op for node in (*block.forward, *block.backward) if node.op.name == name)
    assert isinstance(found, Kernel)
    return found


def kept(block: Block, name: str) -> int:
    return next(node.kept_bytes for node in block.forward if node.op.name == name)


@pytest.mark.parametrize("precision", FORMATS)
def test_a_scale_for_each_block(precision: str) -> None:
    if precision in ("fp64", "tf32"):
        return
    rows, columns = 256, 4096
    each = FORMATS[precision]
    assert rows * columns * each.number_bytes == stored(precision, rows, columns)
    assert rows * columns * each.weight_bytes == stored(precision, rows, columns, weight=True)


@pytest.mark.parametrize("recipe", RECIPES)
def test_operands_are_kept_and_read_with_their_scales(recipe: str) -> None:
    """Of an MLP: the cast output of the norm, and of the activation; a product reads both its operands."""
    block, width, inner = layer(recipe), 4096, 11008
    assert kept(block, "mlp.norm") == TOKENS * width * 2 + stored(recipe, TOKENS, width)
    assert kept(block, "mlp.activation") == stored(recipe, TOKENS, inner)
    product = kernel(block, "mlp.down")
    assert product.read_bytes == stored(recipe, TOKENS, inner) + stored(recipe, inner, width)
    assert product.write_bytes == TOKENS * width * 2
    cast = kernel(block, "mlp.down.cast")
    assert cast.read_bytes == TOKENS * inner * 2 * RECIPES[recipe].reads
    assert cast.write_bytes == 2 * stored(recipe, TOKENS, inner)
    freed = sum(node.freed_bytes for node in block.backward)
    assert block.kept_bytes == freed


def test_products_in_few_bits_write_what_the_passes_read() -> None:
    """A product of fp8 operands hands on bf16: while it runs, that is what stands in memory."""
    shard = Shard(1, TOKENS, 1, False, "bf16", "fused", 4, recipe="fp8")
    block = layer("fp8")
    needs = transients(block, shard).forward
    place = next(number for number, node in enumerate(block.forward) if node.op.name == "attention.output")
    assert needs[place] >= TOKENS * 4096 * 2
