"""Rates of what is done many times over: loading, points of a sweep, plans of a search.

Run with ``pytest -n 0 -s benchmarks/test_rates.py`` where nothing else runs: two workers need two cores.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from conftest import Report
from simulator.advise import search_plans
from simulator.program.drafting.drafts import DRAFTS
from simulator.run import run
from simulator.scenario import load_scenario
from simulator.sweep import load_sweep_file, run_sweep
from simulator.sweep.processes import warm_up

QUICKSTART = Path(__file__).parents[1] / "scenarios" / "quickstart.yaml"
KEY = "cluster.accelerator.memory_bandwidth"
SECTION = "Rates"
POINTS = 1000
TURNS = 5


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
    """Points a second with two workers, against two processes that simulate as many and do nothing else.

    Two, since cores that share caches and memory are slower together than one alone; in turns, since the
    speed of a machine that is shared changes within seconds. Medians.
    """
    file = tmp_path / "sweep.yaml"
    file.write_text(
        f"scenario: {QUICKSTART}\naxes: {{{KEY}: {{from: 1 TB/s, to: 16 TB/s, points: {POINTS}}}}}\n",
        encoding="utf-8",
    )
    sweep, bare, done = load_sweep_file(file), [], []
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(simulations_per_s, (8, 8)))  # both have started and loaded what they need
        for turn in range(TURNS):
            bare.append(sum(pool.map(simulations_per_s, (POINTS // 2, POINTS // 2))))
            done.append(run_sweep(sweep, tmp_path / f"out{turn}", workers=2))
    rate = statistics.median(each.rate for each in done)
    start = statistics.median(each.start_s for each in done)
    over = statistics.median(alone / each.rate - 1 for alone, each in zip(bare, done, strict=True))
    what = f"{POINTS:,} quickstart points, 2 workers"
    spread = f"{min(each.rate for each in done):.0f} to {max(each.rate for each in done):.0f}"
    report.row(SECTION, what, f"{rate:.0f} points/s ({spread})", "320 points/s", met=rate >= 320)
    report.row(SECTION, f"{what}: start-up", f"{start:.1f} s", "3 s", met=start < 3)
    report.row(SECTION, f"{what}: over bare simulations", f"{over:.0%}", "15 %", met=over <= 0.15)
    assert all(each.counts == {"ok": POINTS} for each in done)


def simulations_per_s(count: int) -> float:
    """Changed quickstarts that one process simulates a second, its scenarios being loaded already.

    As in a worker of a sweep, the first of them is planned, and all others take its plan.
    """
    warm_up()
    changed = [
        load_scenario(QUICKSTART, {KEY: f"{1 + number / 100} TB/s", "simulation.player": "compiled"})
        for number in range(count)
    ]
    DRAFTS.clear()
    begun = time.perf_counter()
    for scenario in changed:
        run(scenario)
    return count / (time.perf_counter() - begun)


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
