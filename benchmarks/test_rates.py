"""Rates of what is done many times over: loading, points of a sweep, plans of a search.

Run with ``pytest -n 0 -s benchmarks/test_rates.py`` where nothing else runs: two workers need two cores.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from conftest import Report

from simulator.advise import search_plans
from simulator.run import run
from simulator.scenario import load_scenario
from simulator.sweep import load_sweep_file, run_sweep
from simulator.sweep.processes import warm_up

QUICKSTART = Path(__file__).parents[1] / "scenarios" / "quickstart.yaml"
KEY = "cluster.accelerator.memory_bandwidth"
SECTION = "Rates"
POINTS = 1000


def cpu_ms(action: Callable[[int], object], runs: int = 50) -> float:
    times = []
    for number in range(runs):
        begun = time.process_time()
        action(number)
        times.append(time.process_time() - begun)
    return statistics.median(times) * 1e3


def test_loading(report: Report) -> None:
    load_scenario(QUICKSTART)
    changed = cpu_ms(lambda number: load_scenario(QUICKSTART, {KEY: f"{3 + number / 1000} TB/s"}))
    same = cpu_ms(lambda _: load_scenario(QUICKSTART))
    report.row(SECTION, "load a changed scenario", f"{changed:.2f} ms", "0.7 ms", met=changed <= 0.7)
    report.row(SECTION, "load a file again", f"{same:.2f} ms", "2 ms", met=same <= 2)


def test_sweep(tmp_path: Path, report: Report) -> None:
    """Points a second with two workers, against simulations in one process that does nothing else."""
    file = tmp_path / "sweep.yaml"
    file.write_text(
        f"scenario: {QUICKSTART}\naxes: {{{KEY}: {{from: 1 TB/s, to: 16 TB/s, points: {POINTS}}}}}\n",
        encoding="utf-8",
    )
    sweep = load_sweep_file(file)
    warm_up()
    changed = [
        load_scenario(QUICKSTART, {KEY: f"{1 + number / 100} TB/s", "simulation.player": "compiled"})
        for number in range(101)
    ]
    run(changed.pop())
    begun = time.perf_counter()
    for scenario in changed:
        run(scenario)
    bare = len(changed) / (time.perf_counter() - begun)
    done = run_sweep(sweep, tmp_path / "out", workers=2)
    over = 2 * bare / done.rate - 1
    what = f"{POINTS:,} quickstart points, 2 workers"
    report.row(SECTION, what, f"{done.rate:.0f} points/s", "320 points/s", met=done.rate >= 320)
    report.row(SECTION, f"{what}: start-up", f"{done.start_s:.1f} s", "3 s", met=done.start_s < 3)
    report.row(SECTION, f"{what}: over bare simulations", f"{over:.0%}", "15 %", met=over <= 0.15)
    assert done.counts == {"ok": POINTS}


def test_plan_search(report: Report) -> None:
    warm_up()
    begun = time.process_time()
    found = search_plans(load_scenario(QUICKSTART), 64)
    seconds = time.process_time() - begun
    rate = found.simulated / found.simulating_s
    pruned = found.without_memory + found.bounded
    report.row(
        SECTION,
        f"plans of the quickstart on up to 64 GPUs, {found.simulated} simulated, {pruned:,} pruned",
        f"{rate:.0f} simulated/s, all {found.enumerated:,} in {seconds:.2f} s",
        "150 simulated/s",
        met=rate >= 150,
    )
