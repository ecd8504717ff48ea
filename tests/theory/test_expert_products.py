"""Products of experts: one launch for all of a GPU's, or one an expert; tokens put into their order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.specs.model import MixtureSpec, TransformerSpec
from simulator.specs.software import SoftwareSpec
from simulator.workload import Kernel, Shard, layer_block

SHARD = Shard(
    micro_batch_size=1,
    sequence_length=512,
    tensor_parallel=1,
    sequence_parallel=False,
    precision="bf16",
    attention="fused",
    gradient_bytes=4,
    expert_parallel=4,
    recipe="fp8",
)
MODEL = TransformerSpec(
    name="experts",
    num_hidden_layers=2,
    hidden_size=512,
    intermediate_size=1024,
    num_attention_heads=8,
    num_key_value_heads=8,
    head_dim=64,
    vocab_size=1000,
    max_position_embeddings=512,
    position_embedding="rotary",
    mixture=MixtureSpec(num_experts=16, num_experts_per_tok=2, moe_intermediate_size=256),
)


@pytest.mark.parametrize(("way", "calls"), [("one_kernel", 1), ("one_each", 4)])
def test_launches_of_products_and_casts_are_those_of_the_experts_on_a_gpu(way: str, calls: int) -> None:
    software = SoftwareSpec.model_validate({"name": "test", "grouped_products": way})
    block = layer_block(MODEL, replace(SHARD, software=software), dense=False)
    kernels = [node.op for node in (*block.forward, *block.backward) if isinstance(node.op, Kernel)]
    experts = {kernel.name: kernel.launches for kernel in kernels if kernel.name.startswith("experts.")}
    products = [name for name in experts if name.startswith(("experts.up", "experts.down"))]
    assert {"experts.up", "experts.down.input_gradient", "experts.up.weight_gradient"} <= set(products)
    assert sum("cast" in name for name in products) == 4  # both inputs and both gradients of outputs
    once = layer_block(MODEL, replace(SHARD, software=SoftwareSpec(name="test")), dense=False)
    alone = {
        node.op.name: node.op.launches
        for node in (*once.forward, *once.backward)
        if isinstance(node.op, Kernel)
    }
    assert {name: experts[name] for name in products} == {name: calls * alone[name] for name in products}
    others = [kernel for kernel in kernels if kernel.name not in products]
    assert all(kernel.launches == alone[kernel.name] for kernel in others)


@pytest.mark.parametrize(("recipe", "looped"), [("", 3), ("fp8", 0)])
def test_compiled_code_loops_over_products_of_weights_that_the_interpreter_does_not_see(
    recipe: str, looped: int
) -> None:
    """Four experts: the first launch is the operator's; gradients pass through autograd one by one."""
    software = SoftwareSpec(name="test", grouped_products="one_each")
    block = layer_block(MODEL, replace(SHARD, recipe=recipe, software=software), dense=False)
    found = {n.op.name: n.op.looped for n in (*block.forward, *block.backward) if isinstance(n.op, Kernel)}
    assert found["experts.up"] == found["experts.down.input_gradient"] == looped
    assert found["experts.up.weight_gradient"] == found["attention.qkv"] == 0


@pytest.mark.parametrize(
    ("recipe", "looped"), [("fp8", 0), ("fp8_current", 4), ("fp8_block", 3), ("nvfp4", 7)]
)
def test_tensors_with_blocks_are_made_at_once_others_one_by_one(recipe: str, looped: int) -> None:
    """Four experts, each read once or twice to be cast."""
    software = SoftwareSpec(name="test", grouped_products="one_each")
    block = layer_block(MODEL, replace(SHARD, recipe=recipe, software=software), dense=False)
    found = {n.op.name: n.op for n in (*block.forward, *block.backward) if isinstance(n.op, Kernel)}
    assert found["experts.up.cast"].looped == found["experts.down.gradient.cast"].looped == looped


@pytest.mark.parametrize(("dispatch", "reads"), [("all_to_all", 1), ("deduplicated", 2)])
def test_tokens_are_read_once_and_written_for_each_of_their_experts(dispatch: str, reads: int) -> None:
    software = SoftwareSpec.model_validate({"name": "test", "expert_dispatch": dispatch})
    block = layer_block(MODEL, replace(SHARD, recipe="", software=software), dense=False)
    kernels = {n.op.name: n.op for n in (*block.forward, *block.backward) if isinstance(n.op, Kernel)}
    tokens = 512 * 512 * 2
    for name in ("experts.permute", "experts.unpermute.gradient"):
        assert (kernels[name].read_bytes, kernels[name].write_bytes) == (reads * tokens, 2 * tokens)


@pytest.mark.parametrize(
    ("recipe", "fixed", "padded"), [("fp8", False, True), ("fp8", True, False), ("", False, False)]
)
def test_rows_of_experts_are_padded_where_products_of_fewer_bits_want_multiples(
    recipe: str, fixed: bool, padded: bool
) -> None:
    """Every number of what comes and goes, forward and backward, is read and written once more in bf16."""
    software = SoftwareSpec(name="test", padded_experts=True)
    shard = replace(SHARD, recipe=recipe, software=software, expert_capacity=fixed)
    block = layer_block(MODEL, shard, dense=False)
    kernels = [n.op for n in (*block.forward, *block.backward) if isinstance(n.op, Kernel)]
    pads = [k for k in kernels if k.name.startswith(("experts.pad", "experts.unpad"))]
    assert [k.name for k in pads] == padded * [
        "experts.pad",
        "experts.unpad",
        "experts.unpad.gradient",
        "experts.pad.gradient",
    ]
    assert all(k.read_bytes == k.write_bytes == 512 * 2 * 512 * 2 for k in pads)
