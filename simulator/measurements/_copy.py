"""Copies inside device memory: what bandwidth is reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from simulator.measurements._benchmark import Benchmark, Cells
from simulator.measurements._cells import Fault, fault_of_count
from simulator.measurements._hardware import device
from simulator.measurements._work import KernelWork
from simulator.workload.kernels import Kernel

LARGEST_COPY = 2**50


class Copies(Benchmark):
    """A buffer copied to another one.

    Protocol: `copy_bytes` are read and as many written, from and to device memory; the host's launch time
    left out.
    """

    name = "copies"
    required = ("id", "gpu", "copy_bytes")
    faults: ClassVar[Mapping[str, Fault]] = {"copy_bytes": lambda text: fault_of_count(text, 1, LARGEST_COPY)}

    def work(self, cells: Cells) -> KernelWork:
        """One copy."""
        size = int(self.size(cells))
        return KernelWork(device(cells["gpu"]), (Kernel("copy", "elementwise", 0, size, size, "bf16"),))

    def group(self, cells: Cells) -> str:
        """Accelerator."""
        return cells["gpu"]

    def size(self, cells: Cells) -> float:
        """Bytes copied [B]."""
        return float(cells["copy_bytes"])
