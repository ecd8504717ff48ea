"""Files of measurements: their cells, and what each row of a benchmark timed."""

from simulator.measurements._attention import EngineAttention, PaperAttention, attention_kernel
from simulator.measurements._benchmark import WARM_SHARE, Benchmark, Cells, misses
from simulator.measurements._cells import fault_of_count, fault_of_flag, fault_of_rate, number
from simulator.measurements._collective import NodeCollectives, TableCollectives
from simulator.measurements._hardware import device, scale_out_link, scale_up_link
from simulator.measurements._matmul import Matmuls
from simulator.measurements._names import accelerator, interconnect, words
from simulator.measurements._table import Row, Table
from simulator.measurements._work import CollectiveWork, KernelWork, Work

__all__ = [
    "WARM_SHARE",
    "Benchmark",
    "Cells",
    "CollectiveWork",
    "EngineAttention",
    "KernelWork",
    "Matmuls",
    "NodeCollectives",
    "PaperAttention",
    "Row",
    "Table",
    "TableCollectives",
    "Work",
    "accelerator",
    "attention_kernel",
    "device",
    "fault_of_count",
    "fault_of_flag",
    "fault_of_rate",
    "interconnect",
    "misses",
    "number",
    "scale_out_link",
    "scale_up_link",
    "words",
]
