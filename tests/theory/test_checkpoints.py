"""What a checkpoint stops training for: the copy to the host, and the write where training waits for it."""

from pathlib import Path

import pytest

from simulator import load_scenario, simulate
from simulator.errors import ScenarioError

QUICKSTART = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"
PARAMETERS = 8_030_261_248
STATE = PARAMETERS * (2 + 4 + 4 + 4)
"""Llama-3-8B: parameters in bf16, their fp32 copies and both moments [B]."""
STORAGE = {
    "name": "one server",
    "servers": 1,
    "read_bandwidth": "20 GB/s",
    "write_bandwidth": "5 GB/s",
    "read_iops": "100 kIOPS",
    "write_iops": "100 kIOPS",
    "latency": "1 ms",
}


def stall(interval: int, asynchronous: bool, **changes: object) -> float:
    """Seconds that one checkpoint adds."""
    overrides = {"cluster.storage": STORAGE, "checkpoint.interval": interval, **changes}
    result = simulate(load_scenario(QUICKSTART, {**overrides, "checkpoint.asynchronous": asynchronous}))
    return result.breakdown["checkpoint"] * interval


def test_an_asynchronous_one_hides_the_write() -> None:
    hidden = stall(1000, False) - stall(1000, True)
    assert hidden == pytest.approx(STATE / 5e9 + 1e-3, rel=1e-3)


def test_an_asynchronous_one_takes_the_copy() -> None:
    """Two tensor-parallel GPUs copy half of the parameters each, and an eighth of the sharded optimizer."""
    link = load_scenario(QUICKSTART).cluster.node_groups[0].host.pcie_bandwidth
    assert stall(1000, True) == pytest.approx(PARAMETERS * (2 / 2 + 12 / 8) / link, rel=0.001)


def test_the_next_one_waits_for_the_last() -> None:
    """Written at every step and longer than that, it stops training as a synchronous one, but for a step."""
    whole, often = stall(1000, False), stall(1, True)
    step = simulate(load_scenario(QUICKSTART)).step_time_s
    assert often == pytest.approx(whole - step, rel=0.02)


def test_jitter_and_asynchronous_ones_are_refused() -> None:
    changes = {"simulation.jitter": {"kernels": {"sigma": "1 %"}}}
    with pytest.raises(ScenarioError, match=r"checkpoint\.asynchronous: not modelled with jitter"):
        stall(10, True, **changes)
