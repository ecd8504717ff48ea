"""Low-rank adapters: beside a frozen matrix [k, n], two trained ones of [k, r] and [r, n].

What a library keeps as modules of their own (queries, keys and values; gate and projection up) is one matrix
here; each of them that is named has an adapter of its own, on its part of the columns.

Source: Hu et al., LoRA, arXiv:2106.09685; PEFT, ``LoraConfig.target_modules``, matched by the last part of a
module's name; Hugging Face Transformers for the names.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.specs.model import TransformerSpec
from simulator.workload import operators
from simulator.workload.blocks import PassBuilder, Shard
from simulator.workload.kernels import Kernel

ALL = "all-linear"
"""Every module of the layers."""

SAME = {
    "cross_attention.query": "attention.qkv",
    "cross_attention.key_value": "attention.qkv",
    "cross_attention.output": "attention.output",
    "attention.down": "attention.qkv",
    "attention.query_up": "attention.qkv",
    "attention.key_value_up": "attention.qkv",
}
"""Matrices that are adapted with those of plain self-attention, for they do the same."""

Modules = dict[str, tuple[tuple[str, int], ...]]
"""By matrix: its modules, with their parts of its columns."""


def modules(model: TransformerSpec, tensor_parallel: int = 1) -> Modules:
    """The modules of a model's matrices as libraries call them, by matrix.

    Args:
        model: The transformer.
        tensor_parallel: GPUs that matrices are split over; few heads of keys are on several.
    """
    latent = model.latent_attention
    keys = max(1, model.num_key_value_heads // tensor_parallel)
    heads = model.num_attention_heads // tensor_parallel
    found: Modules = {"attention.output": (("o_proj", 1),)}
    if latent is None:
        found["attention.qkv"] = (("q_proj", heads), ("k_proj", keys), ("v_proj", keys))
    else:
        queries = [("q_a_proj", latent.q_lora_rank)] if latent.q_lora_rank else []
        keys_and_values = "kv_a_proj_with_mqa", latent.kv_lora_rank + latent.qk_rope_head_dim
        found["attention.down"] = (*queries, keys_and_values)
        found["attention.query_up"] = (("q_b_proj" if latent.q_lora_rank else "q_proj", 1),)
        found["attention.key_value_up"] = (("kv_b_proj", 1),)
    if model.num_encoder_layers:
        found["cross_attention.query"] = (("q_proj", 1),)
        found["cross_attention.key_value"] = (("k_proj", 1), ("v_proj", 1))
        found["cross_attention.output"] = (("o_proj", 1),)
    up = (("gate_proj", 1), ("up_proj", 1)) if model.gated_mlp else (("up_proj", 1),)
    mixture = model.mixture
    mlps = [] if all(map(model.has_experts, range(model.num_hidden_layers))) else ["mlp"]
    if mixture is not None:
        found["router"] = (("router", 1),)
        mlps += ["experts", *(["shared"] if mixture.num_shared_experts else [])]
    for name in mlps:
        found |= {f"{name}.up": up, f"{name}.down": (("down_proj", 1),)}
    return found


def targets(model: TransformerSpec) -> tuple[str, ...]:
    """All that may have an adapter: matrices, modules, and every module of the layers."""
    found = modules(model)
    matrices = [SAME.get(name, name) for name in found]
    single = [module for parts in found.values() for module, _ in parts]
    return tuple(dict.fromkeys((*matrices, *single, ALL)))


def adapters(name: str, columns: int, shard: Shard) -> tuple[int, ...]:
    """Columns of each adapter of a matrix of so many."""
    if not shard.lora_rank:
        return ()
    if SAME.get(name, name) in shard.lora_targets:
        return (columns,)
    parts = next((parts for matrix, parts in shard.lora_modules if matrix == name), ())
    whole = sum(part for _, part in parts)
    chosen = (part for module, part in parts if module in shard.lora_targets or ALL in shard.lora_targets)
    return tuple(columns * part // whole for part in chosen)


def reads_input(shard: Shard, *names: str) -> bool:
    """Whether the gradient of any of these matrices, or of an adapter of it, needs the input.

    Source: PyTorch keeps the input of a linear layer for its backward pass only if the weight has a gradient.
    """
    return any(shard.trains(name) or adapters(name, 1, shard) for name in names)


def add_forward(into: PassBuilder, name: str, m: int, n: int, k: int, shard: Shard, *, batch: int = 1) -> int:
    """The products of each adapter behind a frozen matrix, and their sum; keeps the narrow product.

    Returns:
        Index of the last node.
    """
    rank, element = shard.lora_rank, shard.element_bytes
    for columns in adapters(name, n, shard):
        into.add(_product(f"{name}.lora_a", m, rank, k, shard, batch), kept=batch * m * rank * element)
        into.add(_product(f"{name}.lora_b", m, columns, rank, shard, batch))
        summed, size = f"{name}.lora_sum", batch * m * columns
        into.add(operators.pointwise(summed, "elementwise", size, reads=2 * element, writes=element, flops=2))
    return len(into.nodes) - 1


def add_backward(
    into: PassBuilder, name: str, m: int, n: int, k: int, shard: Shard, *, batch: int = 1, freed: int = 0
) -> int:
    """Gradients of both matrices of each adapter and what they add to that of the input.

    The last one that reads what was kept for them releases it: `freed` bytes.

    Returns:
        Index of the last node.
    """
    rank, element = shard.lora_rank, shard.element_bytes
    chosen = adapters(name, n, shard)
    for number, columns in enumerate(chosen):
        last = number == len(chosen) - 1
        before = (len(into.nodes) - 1,)
        into.add(
            _gradient(f"{name}.lora_b", m, columns, rank, shard, batch),
            role="weight_gradient",
            held=batch * m * (rank + columns) * element,
        )
        back = _product(f"{name}.lora_b.input_gradient", m, rank, columns, shard, batch)
        data = into.add(back, after=before)
        into.add(
            _gradient(f"{name}.lora_a", m, rank, k, shard, batch),
            freed=batch * m * rank * element + freed * last,
            role="weight_gradient",
            held=batch * m * (rank + k) * element,
        )
        into.add(_product(f"{name}.lora_a.input_gradient", m, k, rank, shard, batch), after=(data,))
        summed, size = f"{name}.lora_sum.gradient", batch * m * k
        into.add(operators.pointwise(summed, "elementwise", size, reads=2 * element, writes=element, flops=1))
    return len(into.nodes) - 1


def _product(name: str, m: int, n: int, k: int, shard: Shard, batch: int) -> Kernel:
    product = operators.matmul(name, m, n, k, shard.precision, batch=batch)
    return shard.called(product, batch)


def _gradient(name: str, m: int, n: int, k: int, shard: Shard, batch: int) -> Kernel:
    name, gradient = f"{name}.weight_gradient", shard.gradient_bytes
    kernel = operators.weight_gradient(name, m, n, k, shard.precision, gradient, batch=batch)
    return replace(kernel, launches=shard.calls(batch))


def parameters(name: str, rows: int, columns: int, shard: Shard) -> int:
    """Trained parameters of the adapters of one matrix on one GPU."""
    return sum(shard.lora_rank * (rows + each) for each in adapters(name, columns, shard))
