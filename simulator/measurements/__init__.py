"""Files of measurements: their cells, and what each row of a benchmark timed."""

from simulator.measurements._attention import EngineAttention, PaperAttention, attention_kernel
from simulator.measurements._benchmark import (
    WARM_SHARE,
    Benchmark,
    Cells,
    family,
    misses,
    problems_of_cells,
)
from simulator.measurements._cells import Fault, fault_of_count, fault_of_flag, fault_of_rate, number
from simulator.measurements._collective import NodeCollectives, TableCollectives
from simulator.measurements._copy import Copies
from simulator.measurements._hardware import (
    device,
    node_interconnect,
    reference_system,
    scale_out_link,
    scale_up_link,
)
from simulator.measurements._kinds import BENCHMARKS, benchmark_of
from simulator.measurements._matmul import Matmuls
from simulator.measurements._names import accelerator, words
from simulator.measurements._ranking import (
    CLOSE,
    Ranker,
    Ranking,
    RankingSummary,
    spearman,
    summarise_rankings,
)
from simulator.measurements._rates import KernelRates
from simulator.measurements._score import Metric, MetricScore, Point, Score, Scorer, WorstRow, quantile
from simulator.measurements._table import Row, Table
from simulator.measurements._validation import Validation
from simulator.measurements._work import CollectiveWork, KernelWork, Work

__all__ = [
    "BENCHMARKS",
    "CLOSE",
    "WARM_SHARE",
    "Benchmark",
    "Cells",
    "CollectiveWork",
    "Copies",
    "EngineAttention",
    "Fault",
    "KernelRates",
    "KernelWork",
    "Matmuls",
    "Metric",
    "MetricScore",
    "NodeCollectives",
    "PaperAttention",
    "Point",
    "Ranker",
    "Ranking",
    "RankingSummary",
    "Row",
    "Score",
    "Scorer",
    "Table",
    "TableCollectives",
    "Validation",
    "Work",
    "WorstRow",
    "accelerator",
    "attention_kernel",
    "benchmark_of",
    "device",
    "family",
    "fault_of_count",
    "fault_of_flag",
    "fault_of_rate",
    "misses",
    "node_interconnect",
    "number",
    "problems_of_cells",
    "quantile",
    "reference_system",
    "scale_out_link",
    "scale_up_link",
    "spearman",
    "summarise_rankings",
    "words",
]
