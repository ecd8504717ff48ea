"""A covering table of plans: every pair of settings, and many triples, runs or is refused by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import combinations
from typing import Any, get_args

import numpy as np
import pytest

from simulator.engine import play
from simulator.errors import PlanError, ScenarioError
from simulator.program import lower
from simulator.program.schedules.schedule import SCHEDULES
from simulator.scenario import scenario_from_mapping
from simulator.specs.training import Optimizer, TrainingPrecision
from support.laws import assert_conserves, play_on_both

FEWEST = 480
"""Combinations in the table; pairs need about 120."""
TO_THE_REFERENCE_PLAYER = 12
"""Every so many combinations are played on both players."""

Choice = dict[str, dict[str, Any]]
"""Keys by block."""


def plan(**keys: Any) -> Choice:
    return {"parallelism": keys}


def training(**keys: Any) -> Choice:
    return {"training": keys}


MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
SHARED = {**MIXTURE, "num_shared_experts": 1}

FACTORS: dict[str, list[Choice]] = {
    "schedule": [
        plan(pipeline_schedule=name, **({"virtual_pipeline": 2} if SCHEDULES[name].chunks is None else {}))
        for name in sorted(SCHEDULES)
    ],
    "sharding": [
        plan(),
        plan(data_parallel_sharding="optimizer"),
        plan(data_parallel_sharding="gradients"),
        plan(data_parallel_sharding="gradients", reduce_each_micro_batch=False),
        plan(data_parallel_sharding="parameters"),
        plan(data_parallel_sharding="parameters", sharding_group_size=2, gather_prefetch=2),
    ],
    "tensor": [
        plan(),
        plan(tensor_parallel=2),
        plan(tensor_parallel=2, sequence_parallel=True),
        plan(tensor_parallel=4, sequence_parallel=True),
    ],
    "context": [
        plan(),
        *(
            plan(context_parallel=2, context_parallel_method=method)
            for method in ("ring", "all_to_all", "all_gather")
        ),
    ],
    "experts": [
        {},
        {"model": {"mixture": MIXTURE}},
        {"model": {"mixture": MIXTURE}, **plan(expert_parallel=2, expert_tensor_parallel=1)},
        {"model": {"mixture": SHARED}, **plan(expert_parallel=2, expert_capacity_factor=1.25)},
        {"model": {"mixture": SHARED}, **plan(expert_parallel=4, expert_imbalance=1.5)},
    ],
    "recompute": [
        training(),
        training(recompute="selective"),
        training(recompute="selective", recompute_modules=["layernorm", "core_attention"]),
        training(recompute="full"),
        training(recompute="full", recompute_num_layers=1),
        training(attention="unfused"),
    ],
    "offload": [
        training(),
        training(offload={"activations": "host"}),
        training(offload={"optimizer": "host", "optimizer_fraction": 0.5}),
        training(offload={"activations": "nvme", "optimizer": "nvme", "optimizer_step": "gpu"}),
    ],
    "trained": [training(), training(frozen_layers=1)],
    "precision": [
        *(training(precision=name) for name in get_args(TrainingPrecision)),
        *(training(precision=name, parameter_precision=name) for name in ("fp8_block", "mxfp8")),
    ],
    "kept": [
        training(),
        training(parameter_precision="fp32"),
        training(gradient_precision="fp8", communication_precision="bf16"),
        training(communication_precision="fp8_block"),
        training(optimizer_precision="bf16"),
        training(activation_input_precision="fp8"),
    ],
    "optimizer": [training(optimizer=name) for name in get_args(Optimizer)],
    "accelerator": [{"cluster": {"system": name}} for name in ("dgx-b200", "dgx-h100")],
}
"""What is combined; two stages on 16 GPUs."""

Row = tuple[int, ...]
"""A choice of each factor."""


def covered(row: Row, strength: int) -> Iterable[tuple[tuple[int, int], ...]]:
    """All (factor, choice) combinations of so many factors that a row has."""
    return combinations(enumerate(row), strength)


@cache
def table() -> tuple[Row, ...]:
    """Rows that cover all pairs, and from there on as many triples as rows allow; the same at every call.

    Each row begins with a combination that is still missing and takes, factor by factor, the choice that
    covers most that is missing; choices that have been taken less often come first.
    """
    sizes = [len(choices) for choices in FACTORS.values()]
    rows: list[Row] = []
    used: Counter[tuple[int, int]] = Counter()
    for strength in (2, 3):
        had = {pairs for row in rows for pairs in covered(row, strength)}
        missing = dict.fromkeys(
            pairs
            for factors in combinations(range(len(sizes)), strength)
            for pairs in _choices(factors, sizes)
            if pairs not in had
        )
        while missing and (strength == 2 or len(rows) < FEWEST):
            row = _next_row(next(iter(missing)), missing, sizes, used, strength)
            rows.append(row)
            used.update(enumerate(row))
            for pairs in covered(row, strength):
                missing.pop(pairs, None)
    return tuple(rows)


def _choices(factors: tuple[int, ...], sizes: list[int]) -> Iterable[tuple[tuple[int, int], ...]]:
    every = np.stack(np.meshgrid(*(np.arange(sizes[f]) for f in factors), indexing="ij"), -1)
    for choice in every.reshape(-1, len(factors)).tolist():
        yield tuple(zip(factors, choice, strict=True))


def _next_row(
    first: tuple[tuple[int, int], ...],
    missing: dict[tuple[tuple[int, int], ...], None],
    sizes: list[int],
    used: Counter[tuple[int, int]],
    strength: int,
) -> Row:
    chosen = dict(first)
    for factor, size in enumerate(sizes):
        if factor in chosen:
            continue
        others = list(combinations(sorted(chosen.items()), strength - 1))

        def gain(choice: int, factor: int = factor, others: Any = others) -> tuple[int, int, int]:
            own = (factor, choice)
            new = sum(tuple(sorted((*rest, own))) in missing for rest in others)
            return new, -used[own], -choice

        chosen[factor] = max(range(size), key=gain)
    return tuple(chosen[factor] for factor in range(len(sizes)))


def mapping(row: Row) -> dict[str, Any]:
    """The scenario of a row: a model of four layers, four micro-batches a replica."""
    found: dict[str, Any] = {
        "name": "pairwise",
        "cluster": {"nodes": 2},
        "model": {
            "kind": "transformer",
            "name": "small",
            "num_hidden_layers": 4,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 64,
            "vocab_size": 1024,
            "max_position_embeddings": 128,
        },
        "training": {"sequence_length": 128, "micro_batch_size": 1},
        "parallelism": {"pipeline_parallel": 2},
    }
    for choices, number in zip(FACTORS.values(), row, strict=True):
        for block, keys in choices[number].items():
            found[block].update(keys)
    split = found["parallelism"].get("tensor_parallel", 1) * found["parallelism"].get("context_parallel", 1)
    found["training"]["global_batch_size"] = 4 * (16 // (2 * split))
    return found


def test_the_table_covers_every_pair() -> None:
    rows = table()
    assert len(set(rows)) == len(rows) >= 400
    sizes = [len(choices) for choices in FACTORS.values()]
    pairs = {pair for row in rows for pair in covered(row, 2)}
    products = (a * b for a, b in combinations(sizes, 2))
    assert len(pairs) == sum(products)


KEYS = (
    "parallelism.tensor_parallel",
    "parallelism.expert_parallel",
    "parallelism.expert_tensor_parallel",
    "parallelism.expert_capacity_factor",
    "parallelism.sharding_group_size",
    "parallelism.sequence_parallel",
    "parallelism.context_parallel",
    "training.precision",
    "training.attention",
    "training.recompute",
    "training.recompute_num_layers",
    "training.offload.optimizer",
    "training.offload.optimizer_step",
    "training.offload.optimizer_step",
    "training.parameter_precision",
    "training.gradient_precision",
    "training.optimizer_precision",
)
"""Keys that may be named by a refusal of this table."""


def outcome(number: int, row: Row) -> str:
    """The key that is refused, or an empty text for what runs."""
    try:
        scenario = scenario_from_mapping(mapping(row))
        program = lower(scenario).program
    except PlanError as refused:
        assert len(refused.message) > 20
        return ".".join(map(str, refused.path))
    except ScenarioError as refused:
        return next((key for key in KEYS if key in str(refused)), f"no key: {refused}")
    if number % TO_THE_REFERENCE_PLAYER == 0:
        play_on_both(program)
    else:
        assert_conserves(program, play(program, "compiled"))
    return ""


@pytest.mark.parametrize("part", range(2))
def test_every_combination_runs_or_is_refused_by_name(part: int) -> None:
    rows = list(enumerate(table()))[part::2]
    reasons = Counter(outcome(number, row) for number, row in rows)
    assert set(reasons) <= {"", *KEYS}, reasons
    assert reasons[""] >= 0.3 * len(rows), "refusing everything would be no feat"
