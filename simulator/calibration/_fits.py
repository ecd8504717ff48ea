"""Which constants are fitted to which measurements, from where they start, and which rows count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from simulator.calibration._observations import Observation
from simulator.measurements import (
    CollectiveWork,
    Copies,
    KernelWork,
    NodeCollectives,
    PaperAttention,
)
from simulator.workload.kernels import AttentionShape

_GIGA: Final = 1e9
_MIB: Final = 2.0**20
_FEW: Final = 5
"""Of small kernels, one row in so many takes part."""
_MOST_ROWS: Final = 1200
"""About as many rows of a file take part; more of them say the same."""
_LARGEST_FITTED_HEAD: Final = 256
"""Head size beyond which engines fall back to other kernels."""


@dataclass(frozen=True, slots=True)
class Free:
    """One constant that a fit determines.

    Attributes:
        name: Which one.
        start: Where the fit begins: a round figure that owes nothing to the measurements.
        spread: One standard deviation of the weak prior around it, of the logarithm.
    """

    name: str
    start: float
    spread: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Constants that are fitted together.

    Attributes:
        name: What the measurements are.
        benchmarks: Kinds of files that they come from.
        free: The constants.
        scale: Error from which a row counts less.
        choose: Which observations take part, in a fixed order.
        weight: How much one counts.
    """

    name: str
    benchmarks: tuple[str, ...]
    free: tuple[Free, ...]
    scale: float
    choose: Callable[[Sequence[Observation]], list[Observation]]
    weight: Callable[[Observation], float]


def _matmuls(rows: Sequence[Observation]) -> list[Observation]:
    """Large products, a fifth of the small ones; of a long file every few rows, which say the same."""
    copies = [row for row in rows if row.benchmark.name == Copies.name]
    products = [row for row in rows if row.benchmark.name != Copies.name]
    return _thinned(products) + copies


def _matmul_weight(row: Observation) -> float:
    """Products in fp8 count less: two libraries differ by up to 44 % on one shape, in bf16 by 7 %."""
    return 0.3 if _is_fp8(row) else 1.0


def _is_fp8(row: Observation) -> bool:
    return isinstance(row.work, KernelWork) and row.work.kernels[0].precision == "fp8"


def _attention(rows: Sequence[Observation]) -> list[Observation]:
    """Large ones with the heads that fused kernels are made for, a fifth of the small ones."""
    return _thinned([row for row in rows if _head(row) <= _LARGEST_FITTED_HEAD and not _is_fp8(row)])


def _thinned(rows: Sequence[Observation]) -> list[Observation]:
    kept = [row for place, row in enumerate(rows) if row.size > _GIGA or place % _FEW == 0]
    return kept[:: 1 + len(kept) // _MOST_ROWS]


def _attention_weight(row: Observation) -> float:
    """The kernels that training runs, timed alone, are few beside those of inference engines."""
    return 2.0 if row.benchmark.name == PaperAttention.name else 1.0


def _head(row: Observation) -> int:
    shape = row.work.kernels[0].shape if isinstance(row.work, KernelWork) else None
    return shape.head_dim if isinstance(shape, AttentionShape) else 0


def _collective_weight(row: Observation) -> float:
    """Small messages scatter more, clusters repeat each other, and there are few rows of several nodes."""
    if row.benchmark.name == NodeCollectives.name:
        return 1.0 if row.size >= 4 * _MIB else 0.6
    if row.size < _MIB:
        return 0.5
    return 2.0 if _nodes(row) > 1 else 0.7


def _nodes(row: Observation) -> int:
    return row.work.group.domains if isinstance(row.work, CollectiveWork) else 1


FITS: Final = (
    Fit(
        name="matrix products",
        benchmarks=("matrix products", "copies"),
        free=(
            Free("matmul_peak_fraction", 0.9, 0.2),
            Free("matmul_tile_overhead", 20.0, 1.0),
            Free("matmul_tile_latency", 1e-6, 1.0),
            Free("matmul_epilogue_time", 5e-11, 1.0),
            Free("roofline_softness", 0.3, 0.3),
            Free("memory_fraction", 0.85, 0.2),
            Free("kernel_latency", 3e-6, 0.5),
            Free("matrix_energy", 0.8e-12, 1.0),
            Free("operand_energy", 0.4e-12, 0.5),
            Free("unwritten_energy_fraction", 0.8, 0.3),
        ),
        scale=0.1,
        choose=_matmuls,
        weight=_matmul_weight,
    ),
    Fit(
        name="attention",
        benchmarks=("attention of inference engines", "attention in TFLOP/s"),
        free=(
            Free("attention_peak_fraction", 0.7, 0.3),
            Free("attention_score_time", 3e-11, 0.7),
            Free("attention_block_latency", 2e-6, 0.7),
            Free("attention_fill_keys", 64.0, 0.7),
            Free("attention_operand_share", 0.5, 0.7),
            Free("attention_unevenness", 0.5, 0.3),
            Free("attention_backward_latency", 4.0, 0.5),
            Free("portable_unit_width", 2400.0, 0.2),
        ),
        scale=0.1,
        choose=_attention,
        weight=_attention_weight,
    ),
    Fit(
        name="collectives",
        benchmarks=("collectives of one node", "collectives of several clusters"),
        free=(
            Free("direct_link_fraction", 0.85, 0.2),
            Free("collective_latency", 5e-6, 0.7),
            Free("scale_up_fraction", 0.8, 0.2),
            Free("scale_out_fraction", 0.85, 0.2),
            Free("local_passes", 3.0, 0.5),
            Free("exchange_meetings", 0.1, 0.7),
            Free("early_launch", 30e-6, 0.7),
            Free("in_network_fraction", 0.7, 0.2),
            Free("ll_fraction", 0.3, 0.5),
            Free("ll128_fraction", 0.9, 0.2),
            Free("ll128_latency", 10e-6, 0.7),
            Free("bulk_latency", 25e-6, 0.7),
            Free("early_scale_out", 50e-6, 0.7),
            Free("in_network_latency", 30e-6, 0.7),
        ),
        scale=0.07,
        choose=list,
        weight=_collective_weight,
    ),
)
"""In this order: attention and collectives use constants of the kernels before them."""
