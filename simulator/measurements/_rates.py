"""Rates of single kernels: the best products that searches found, libraries' own tables, copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from simulator.errors import UnsupportedError
from simulator.measurements._benchmark import Benchmark, Cells, misses
from simulator.measurements._cells import Fault, fault_of_count, fault_of_rate
from simulator.measurements._copy import LARGEST_COPY
from simulator.measurements._hardware import device
from simulator.measurements._matmul import product
from simulator.measurements._work import KernelWork
from simulator.workload.kernels import Kernel

_COPY: Final = "memcpy_d2d"
_PRODUCTS: Final = ("gemm", "gemm (DeepGEMM dense)")


class KernelRates(Benchmark):
    """Products alone, in TFLOP/s, and copies inside device memory, in GB/s read and written.

    Protocol: operands of products from device memory; no cast; the host's launch time left out. A copy of `n`
    bytes moves 2 n, again and again between the same buffers (`misses`). No fit takes these rows: they check
    what the fits claim for hardware that none of them saw.
    """

    name = "rates of kernels"
    required = ("id", "gpu", "kernel", "precision", "m", "n", "k", "bandwidth_GBps")
    may_be_empty = ("precision", "m", "n", "k", "bandwidth_GBps")
    measured = "tflops"
    fitted = False
    faults: ClassVar[Mapping[str, Fault]] = {
        "m": fault_of_count,
        "n": lambda text: fault_of_count(text, 1, LARGEST_COPY),
        "k": fault_of_count,
        "tflops": fault_of_rate,
        "bandwidth_GBps": fault_of_rate,
    }

    def work(self, cells: Cells) -> KernelWork:
        """The product, or the copy."""
        kernel = cells["kernel"]
        if kernel == _COPY:
            accelerator, size = device(cells["gpu"]), _size(cells, "n")
            moved = int(misses(2 * size, accelerator.l2_capacity) * size)
            return KernelWork(accelerator, (Kernel("copy", "elementwise", 0, moved, moved, "bf16"),))
        if kernel not in _PRODUCTS:
            raise UnsupportedError(("kernel",), f'"{kernel}" is not modelled')
        precision = cells.get("precision", "").partition(" ")[0]
        shape = _size(cells, "m"), _size(cells, "n"), _size(cells, "k")
        return KernelWork(device(cells["gpu"]), (product(*shape, precision),))

    def group(self, cells: Cells) -> str:
        """Accelerator, kernel and precision."""
        precision = cells.get("precision", "").partition(" ")[0]
        return " ".join(filter(None, (cells["gpu"], cells["kernel"], precision)))

    def size(self, cells: Cells) -> float:
        """Arithmetic of a product [FLOP], or what a copy moves [B]."""
        if cells["kernel"] == _COPY:
            return 2.0 * _size(cells, "n")
        return 2.0 * _size(cells, "m") * _size(cells, "n") * _size(cells, "k")

    def seconds(self, cells: Cells) -> float:
        """Arithmetic, or bytes, over the printed rate [s]."""
        copy = cells["kernel"] == _COPY
        column, unit = ("bandwidth_GBps", 1e9) if copy else ("tflops", 1e12)
        if column not in cells:
            raise UnsupportedError((column,), "not given")
        return self.size(cells) / (float(cells[column]) * unit)


def _size(cells: Cells, column: str) -> int:
    if column not in cells:
        raise UnsupportedError((column,), "not given")
    return int(float(cells[column]))
