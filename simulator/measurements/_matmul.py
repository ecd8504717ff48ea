"""Matrix products as inference frameworks' kernel libraries time them."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import ClassVar, Final

from simulator.errors import UnsupportedError
from simulator.measurements._benchmark import VECTOR_WIDTH, Benchmark, Cells, misses
from simulator.measurements._cells import Fault, fault_of_count
from simulator.measurements._hardware import device
from simulator.measurements._work import KernelWork
from simulator.workload.kernels import Kernel, MatmulShape
from simulator.workload.precision import FORMATS, RECIPES, matrix_precision

_PRECISIONS: Final = ("fp8", "fp8_block", "mxfp8", "nvfp4", "bf16", "fp16", "tf32", "fp32")
"""Of the operands, those in which libraries multiply matrices of a model."""

_CAST_LAUNCHES: Final = {"trtllm": 3, "vllm": 1}
"""Launches that turn 16-bit activations into fp8: TensorRT-LLM's find the largest element of the whole, then
the scale, then cast; vLLM's is one, with a scale for each row."""

_ANY_CAST: Final = 2
"""Launches of the cast where the row does not say whose kernels they are."""

_ROW_CYCLES: Final = 2000
"""Time of one block of threads for the scale of a row, which it finds before it casts the row: two passes, a
reduction and its barriers [cycles]; a compute unit starts one after the other."""

_COPIES: Final = {"trtllm": 5, "vllm": 6}
"""Weights that take turns, so that each finds the cache full of others; TensorRT-LLM's no more than fill it.

Source: ai-dynamo/aiconfigurator, collector/trtllm/collect_gemm.py and collector/vllm/collect_gemm.py.
"""

_UNWRITTEN: Final = frozenset({"vllm"})
"""Whose benchmarks multiply by weights that were allocated and never written (the same source)."""


class Matmuls(Benchmark):
    """Products of [m, k] by [k, n] with 16-bit results; in 8 and 4 bits with the cast of the activations.

    Protocol: runs repeated on the same activations, and on several weights in turn, from a captured graph
    (`misses`; no launch time of the host); in 8 and 4 bits the activations arrive in 16 bits and are
    quantised within the time, by kernels that the column `kernels` names.
    """

    name = "matrix products"
    required = ("id", "gpu", "precision", "m", "n", "k")
    faults: ClassVar[Mapping[str, Fault]] = dict.fromkeys(("m", "n", "k"), fault_of_count)

    def work(self, cells: Cells) -> KernelWork:
        """The product, and the cast before it in 8 and 4 bits."""
        m, n, k = _sizes(cells)
        accelerator, precision = device(cells["gpu"]), cells["precision"]
        library, cache = cells.get("kernels", ""), accelerator.l2_capacity
        activations, weights, result = _traffic(m, n, k, precision)
        wide = 2 * m * k if precision in RECIPES else 0
        once = activations + result + wide
        fetched = misses(once + weights, cache)
        turns = misses(once + _copies(library, weights, cache) * weights, cache)
        own = product(m, n, k, precision, fetched=fetched, fetched_weights=turns)
        kernels = (own, _cast(m, k, activations, fetched, library)) if wide else (own,)
        return KernelWork(accelerator, kernels, unwritten=library in _UNWRITTEN)

    def group(self, cells: Cells) -> str:
        """Accelerator, precision and kernel library."""
        return " ".join(filter(None, (cells["gpu"], cells["precision"], cells.get("kernels", ""))))

    def size(self, cells: Cells) -> float:
        """2 m n k [FLOP]."""
        m, n, k = _sizes(cells)
        return 2.0 * m * n * k

    def source(self, cells: Cells) -> str:
        """The kernel library."""
        return cells.get("kernels") or cells.get("source", "")


def product(
    m: int, n: int, k: int, precision: str, *, fetched: float = 1.0, fetched_weights: float = 1.0
) -> Kernel:
    """A product of [m, k] by [k, n].

    Args:
        m: Rows of the activations.
        n: Columns of the weights.
        k: Length of the inner products.
        precision: Of the operands.
        fetched: Share of activations and result that device memory sees.
        fetched_weights: The same of the weights.

    Raises:
        UnsupportedError: The precision is none in which matrices are multiplied.
    """
    activations, weights, result = _traffic(m, n, k, precision)
    return Kernel(
        name="matmul",
        kind="matmul",
        flops=2 * m * n * k,
        read_bytes=int(fetched * activations + fetched_weights * weights),
        write_bytes=int(fetched * result),
        precision=matrix_precision(precision),
        shape=MatmulShape(m, n, k),
    )


def _copies(library: str, weights: int, cache: float | None) -> int:
    """Weights of so many bytes that take turns."""
    if library == "trtllm" and cache:
        return max(1, min(_COPIES[library], ceil(cache / weights)))
    return _COPIES.get(library, 1)


def _traffic(m: int, n: int, k: int, precision: str) -> tuple[int, int, int]:
    """Bytes of activations, weights and result, which has 16 bits where the operands have no more."""
    if precision not in _PRECISIONS:
        raise UnsupportedError(("precision",), f'"{precision}" is not one of {", ".join(_PRECISIONS)}')
    operand = FORMATS[precision]
    width = operand.number_bytes
    return int(width * m * k), int(width * n * k), (4 if operand.bits > 16 else 2) * m * n


def _sizes(cells: Cells) -> tuple[int, int, int]:
    return int(float(cells["m"])), int(float(cells["n"])), int(float(cells["k"]))


def _cast(m: int, k: int, written: int, fetched: float, library: str) -> Kernel:
    """The kernels that turn [m, k] in 16 bits into fewer: read once, or twice where one scale is for all."""
    launches = _CAST_LAUNCHES.get(library, _ANY_CAST)
    read = int(fetched * 2 * m * k * (2 if launches > 1 else 1))
    cycles = 0 if launches > 1 else _ROW_CYCLES * m
    return Kernel("quantise", "elementwise", cycles * VECTOR_WIDTH, read, written, "bf16", launches=launches)
