"""Collects figures while benchmarks run; with ``--write`` they become docs/BENCHMARKS.md and its chart."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]

_OPENING = """# Benchmarks

Written by `pytest -n 0 benchmarks --write`. Times are CPU time, medians of at least five runs in one process
unless it says cold; U is one timeout of SimPy with 1,000 processes, measured in the same process,
before or after each run: {unit:.2f} us in the median. That tells how busy the machine was; alone it is
0.75 us. A busy machine costs SimPy more than arrays, so figures in U flatter then; whole simulations are
therefore given in U of 0.75 us, too. Memory is the peak of the whole process, Python and libraries
included. {machine}

![Time and memory by number of GPUs](images/benchmarks.png)
"""


@dataclass
class Report:
    """Rows by section, and curves of the chart."""

    units: list[float] = field(default_factory=list)
    rows: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)

    def row(self, section: str, what: str, measured: str, target: str, *, met: bool | None = None) -> None:
        verdict = {None: "", True: "met", False: "**missed**"}[met]
        self.rows.setdefault(section, []).append((what, measured, target, verdict))
        print(f"\n{section}: {what}: {measured} (target {target}) {verdict}")

    def point(self, curve: str, gpus: int, seconds: float, mebibytes: float) -> None:
        self.curves.setdefault(curve, []).append((gpus, seconds, mebibytes))
        print(f"\n{curve}: {gpus:,} GPUs: {seconds * 1e3:.1f} ms, {mebibytes:.0f} MiB")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write", action="store_true", help="write docs/BENCHMARKS.md and its chart")


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    found = Report()
    yield found
    if request.config.getoption("--write"):
        _write(found)
        _draw(found)


def _write(report: Report) -> None:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}."
    lines = [_OPENING.format(unit=median(report.units) * 1e6, machine=machine)]
    for section, rows in report.rows.items():
        lines += [f"## {section}", "", "| what | measured | target | |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    for curve, points in report.curves.items():
        lines += [f"## {curve}", "", "| GPUs | time of one simulation | peak memory |", "|---|---|---|"]
        lines += [f"| {gpus:,} | {time * 1e3:.1f} ms | {memory:.0f} MiB |" for gpus, time, memory in points]
        lines.append("")
    (ROOT / "docs" / "BENCHMARKS.md").write_text("\n".join(lines), encoding="utf-8")


def _draw(report: Report) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for (curve, points), mark in zip(report.curves.items(), "osv^D", strict=False):
        gpus, times, memory = zip(*points, strict=True)
        left.plot(gpus, times, mark + "-", label=curve)
        right.plot(gpus, memory, mark + "-", label=curve)
    for axes, what in ((left, "time of one simulation [s]"), (right, "peak memory [MiB]")):
        axes.set(xlabel="GPUs simulated", ylabel=what)
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_yscale("log")
    right.set_ylim(0, 1.1 * right.get_ylim()[1])
    figure.legend(*left.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3)
    figure.savefig(ROOT / "docs" / "images" / "benchmarks.png", dpi=110)
    plt.close(figure)
