"""Wall time and memory of whole simulations: by GPU count, folded and unfolded, cold and warm, with jitter.

Run with ``pytest -n 0 -s benchmarks/test_scale.py``; add ``--write`` for docs/BENCHMARKS.md.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_engine_speed import (
    contended_lanes,
    fixed_order,
    grid,
    groups_of_eight,
    inside_a_gpu,
    median_time,
    program,
    unit,
)

from conftest import Report
from simulator.engine import Program, play
from simulator.engine.vectors import plan_vectors, sweep_vectors
from simulator.run import simulate
from simulator.scenario import load_scenario

HERE = Path(__file__).parent
SCENARIOS = HERE.parent / "scenarios"
LARGE, YARDSTICK = SCENARIOS / "llama3_405b_16k.yaml", SCENARIOS / "transformer_1k.yaml"
QUICKSTART = SCENARIOS / "quickstart.yaml"
QUIET = 0.75e-6
"""U where nothing else runs [s]."""
COMMAND = str(Path(sys.executable).with_name("clustersim"))


def measured(path: Path, runs: int = 5, **changes: str) -> dict[str, Any]:
    items = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    command = [sys.executable, str(HERE / "measured.py"), str(path), str(runs), *items]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def noted(report: Report, found: dict[str, Any]) -> dict[str, Any]:
    report.units.append(found["unit"])
    return found


@pytest.mark.parametrize(
    ("what", "build", "changes", "target"),
    [
        ("fixed order, an activity", fixed_order, 1, 0.03),
        ("contended lanes, an activity", contended_lanes, 1, 0.07),
        ("compute beside communication in a GPU, a change", inside_a_gpu, 2, 0.3),
        ("max-min sharing, groups of 8, 1,000 running, a change", lambda: groups_of_eight(1000), 1, 3.0),
        ("max-min sharing, groups of 8, 100,000 running, a change", lambda: groups_of_eight(100_000), 1, 6.0),
    ],
)
def test_players(
    report: Report, what: str, build: Callable[[], Program], changes: int, target: float
) -> None:
    made = build()
    play(made, "compiled")
    before = unit()
    seconds = median_time(lambda: play(made, "compiled")) / made.num_activities / changes
    report.units += [before, unit()]
    units = seconds / min(report.units[-2:])
    report.row("Compiled player", what, f"{units:.3f} U", f"{target:g} U", met=units <= target)


def test_vectors(report: Report) -> None:
    """64 lanes in a grid of joins, and every hundredth activity waits for all copies."""
    lane, step, deps = grid(64, 1000)
    made = program(lane, lane * 4 + step % 4, deps, [{k // 4: 10 + k % 4} for k in range(256)], [10**9] * 64)
    count, width, generator = made.num_activities, 256, np.random.default_rng(1)
    meet = np.full(count, -1, np.int32)
    meet[::100] = 0
    mark = np.full(count, -1, np.int32)
    plan, lengths = plan_vectors(made), generator.integers(10**6, 10**8, count).astype(np.float64)
    factors = np.exp(0.01 * generator.standard_normal((64, width)))
    groups = np.zeros((1, 128), np.int32)

    def action() -> object:
        return sweep_vectors(
            *(plan, lengths, factors), row=made.lane, meet=meet, groups=groups, mark=mark, marks=1
        )

    action()
    report.units.append(unit())
    rate = count * width / (median_time(action) / report.units[-1])
    what = "vectors over replicas and seeds, activity-replicas per U"
    report.row("Compiled player", what, f"{rate:,.0f}", "1,000", met=rate >= 1000)


@pytest.mark.parametrize("gpus", [8, 128, 1024, 16_384, 131_072])
def test_transformer_by_gpus(report: Report, gpus: int) -> None:
    nodes = str(gpus // 8)
    found = noted(report, measured(YARDSTICK, cluster__nodes=nodes, training__global_batch_size=nodes))
    name = "32-layer transformer, TP 8, rest data parallel, folded"
    report.point(name, gpus, found["seconds"], found["mebibytes"])
    if gpus == 1024:
        what = "32-layer transformer on 1,024 GPUs, one step, warm"
        report.row(
            "Whole simulations", what, f"{found['seconds']:.3f} s", "0.12 s", met=found["seconds"] <= 0.12
        )
        used = found["mebibytes"]
        report.row("Whole simulations", "memory of it", f"{used:.0f} MiB", "300 MB", met=used <= 286)


@pytest.mark.parametrize("gpus", [1024, 16_384, 131_072])
def test_405b_by_gpus(report: Report, gpus: int) -> None:
    changes = {"cluster.nodes": str(gpus // 8), "training.global_batch_size": str(gpus // 128 * 16)}
    found = noted(report, measured(LARGE, 7, **changes))
    name = "Llama-3-405B, TP 8 x PP 16, 16 micro-batches a replica, folded"
    report.point(name, gpus, found["seconds"], found["mebibytes"])
    units = found["seconds"] / found["unit"]
    if gpus == 16_384:
        what = f"Llama-3-405B on 16,384 GPUs, {found['activities']:,} activities, another scenario each time"
        text = (
            f"{found['seconds'] * 1e3:.0f} ms = {units:,.0f} U ({found['seconds'] / QUIET:,.0f} of 0.75 us)"
        )
        report.row("Whole simulations", what, text, "100,000 U", met=units <= 100_000)
    if gpus == 131_072:
        first = report.curves[name][0]
        time_ratio, memory_ratio = found["seconds"] / first[1], found["mebibytes"] / first[2]
        text = f"{time_ratio:.2f}x time, {memory_ratio:.2f}x memory"
        met = max(time_ratio, memory_ratio) <= 1.5
        report.row("Whole simulations", "131,072 GPUs over 1,024, same TP and PP", text, "1.5x", met=met)


def test_405b_with_jitter(report: Report) -> None:
    changes = {"simulation.jitter.kernels.sigma": "1 %", "simulation.seeds": "100"}
    found = noted(report, measured(LARGE, 5, **changes, **{"simulation.jitter.contention": "undisturbed"}))
    units = found["seconds"] / found["unit"]
    text = f"{found['seconds']:.2f} s = {units:,.0f} U ({found['seconds'] / QUIET:,.0f} of 0.75 us)"
    what = "Llama-3-405B, 1 % jitter on 128 replicas, 100 seeds, lengths of the undisturbed run"
    report.row("Whole simulations", what, text, "2,000,000 U", met=units <= 2_000_000)
    exact = measured(LARGE, 0, **(changes | {"simulation.seeds": "1"}))
    text = f"{exact['seconds']:.1f} s, {exact['mebibytes']:,.0f} MiB"
    report.row("Whole simulations", "the same, 1 seed, every replica played by events (exact)", text, "none")


@pytest.mark.parametrize("gpus", [8, 64, 256, 1024])
def test_unfolded(report: Report, gpus: int) -> None:
    nodes = str(gpus // 8)
    changes = {"cluster.nodes": nodes, "training.global_batch_size": nodes, "simulation.fold": "off"}
    found = noted(report, measured(YARDSTICK, **changes))
    name = "32-layer transformer, wholly unfolded"
    report.point(name, gpus, found["seconds"], found["mebibytes"])
    if gpus == 1024:
        what = f"32-layer transformer on 1,024 GPUs, wholly unfolded, {found['activities']:,} activities"
        report.row("Whole simulations", what, f"{found['seconds']:.2f} s", "20 s", met=found["seconds"] <= 20)


def test_changed_quickstarts(report: Report) -> None:
    def one(number: int) -> None:
        simulate(load_scenario(QUICKSTART, {"cluster.scale_out.bandwidth": f"{40 + number} GB/s"}))

    rates = []
    one(0)
    for repeat in range(5):
        begun = time.process_time()
        for number in range(20):
            one(20 * repeat + number)
        rates.append(20 / (time.process_time() - begun))
    rate = statistics.median(rates)
    report.row("Whole simulations", "changed quickstarts a second", f"{rate:.0f}", "200", met=rate >= 200)


@pytest.mark.parametrize(
    ("arguments", "target"), [(("--help",), 0.3), (("run", str(QUICKSTART), "--json"), 1.5)]
)
def test_cold_start(report: Report, arguments: tuple[str, ...], target: float) -> None:
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([COMMAND, *arguments], capture_output=True, check=True)
        times.append(time.perf_counter() - begun)
    wall = statistics.median(times)
    what = f"`clustersim {' '.join(Path(a).stem if '/' in a else a for a in arguments)}`, wall time"
    report.row("Cold starts", what, f"{wall:.2f} s", f"{target:g} s", met=wall <= target)
