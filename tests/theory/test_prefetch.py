"""Gathers ahead of the block that needs them, in forward and backward passes: what hides, what it takes."""

from __future__ import annotations

import pytest

from simulator import Result, load_scenario, simulate
from simulator.errors import ScenarioError
from support.inputs import shipped

LAYERS, MICRO_BATCHES = 32, 4
LAYER_BYTES = 2 * (4 * 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096)
"""A layer of Llama-2-7B in bf16."""


def outcome(**parallelism: object) -> Result:
    changes = {f"parallelism.{key}": value for key, value in parallelism.items()}
    return simulate(load_scenario(shipped("llama2_7b_fsdp"), changes))


def test_what_is_not_ahead_shows_in_its_own_pass() -> None:
    """Without a gather ahead each layer of the pass waits for one; another ahead takes one layer's room."""
    neither, both = (outcome(gather_prefetch=ahead) for ahead in (0, 1))
    forward = outcome(gather_prefetch=1, gather_prefetch_backward=0)
    backward = outcome(gather_prefetch=0, gather_prefetch_backward=1)
    hidden = neither.step_time_s - both.step_time_s
    for one in (forward, backward):
        assert neither.step_time_s - one.step_time_s == pytest.approx(hidden / 2, rel=0.05)
    # 63 of 64 ranks' shares of all layers but the first, in each micro-batch, at 200 Gb/s a GPU at most.
    least = MICRO_BATCHES * (LAYERS - 1) * LAYER_BYTES * 63 / 64 / (8 * 25e9)
    assert least < hidden / 2 < 2 * least
    # The peak is in the backward pass.
    assert backward.peak_memory_bytes == both.peak_memory_bytes
    assert forward.peak_memory_bytes == neither.peak_memory_bytes
    assert both.peak_memory_bytes - neither.peak_memory_bytes == pytest.approx(LAYER_BYTES, rel=1e-3)


def test_the_same_number_given_twice_is_the_number_given_once() -> None:
    once, twice = outcome(gather_prefetch=2), outcome(gather_prefetch=2, gather_prefetch_backward=2)
    assert (once.step_time_s, once.peak_memory_bytes) == (twice.step_time_s, twice.peak_memory_bytes)


def test_backward_passes_that_gather_nothing_have_nothing_ahead() -> None:
    with pytest.raises(ScenarioError, match="nothing is gathered in a backward pass"):
        outcome(gather_prefetch_backward=2, reshard_after_forward=False)
