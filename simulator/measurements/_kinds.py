"""All kinds of benchmark, and which one a file holds."""

from __future__ import annotations

from typing import Final

from simulator.measurements._attention import EngineAttention, PaperAttention
from simulator.measurements._benchmark import Benchmark
from simulator.measurements._collective import NodeCollectives, TableCollectives
from simulator.measurements._copy import Copies
from simulator.measurements._matmul import Matmuls
from simulator.measurements._rates import KernelRates
from simulator.measurements._table import Table

BENCHMARKS: Final[tuple[Benchmark, ...]] = (
    Matmuls(),
    EngineAttention(),
    PaperAttention(),
    TableCollectives(),
    NodeCollectives(),
    Copies(),
    KernelRates(),
)
"""In the order in which they are tried: what has more columns comes first."""


def benchmark_of(table: Table) -> Benchmark | None:
    """The kind of a file, by its header; None if it holds no benchmark."""
    header = set(table.header)
    for benchmark in BENCHMARKS:
        wanted = {*benchmark.required, benchmark.measured}
        if header.issuperset(wanted) and header.isdisjoint(benchmark.foreign):
            return benchmark
    return None
