"""Training runs of transformers: the columns, and what a row of them predicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from simulator.errors import Problem
from simulator.validation._kind import MeasurementKind, Metric, measurement_kind, number
from simulator.validation._scenario import scenario_mapping, tokens_per_gpu_and_step
from simulator.validation._table import Row

GIB: Final = 2**30

STEP_TIME: Final = Metric("step time", "s", "predicted_step_time_s", "group")
PEAK_MEMORY: Final = Metric("peak memory", "GiB", "predicted_peak_memory_gib", "memory_kind")

_COUNTS: Final = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "sequence_length",
    "micro_batch_size",
    "global_batch_size",
    "num_gpus",
    "gpus_per_node",
    "tensor_parallel",
    "pipeline_parallel",
    "virtual_pipeline",
    "context_parallel",
    "expert_parallel",
    "data_parallel",
    "sharding_group_size",
)
_COUNTS_OR_ZERO: Final = ("num_shared_experts",)
_NUMBERS: Final = ("scale_out_gbps_per_gpu",)
_FLAGS: Final = ("gated_mlp", "tie_word_embeddings", "sequence_parallel", "flash_attention")


@measurement_kind
class TrainingRuns(MeasurementKind):
    """Step time, throughput or peak memory of whole training runs."""

    name = "training runs"
    required = (
        "id",
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "vocab_size",
        "sequence_length",
        "micro_batch_size",
        "gpu",
        "num_gpus",
    )
    measured = ("measured_step_time_s", "measured_tokens_per_s_per_gpu", "measured_peak_memory_gib")
    predicted_columns = (
        "predicted_step_time_s",
        "predicted_tokens_per_s_per_gpu",
        "predicted_peak_memory_gib",
    )
    metrics = (STEP_TIME, PEAK_MEMORY)

    def check(self, row: Row) -> Iterable[Problem]:
        """Cells that are not of their column's type, and required cells that are empty."""
        for column in self.required:
            if column not in row.cells and column != "id":
                yield row.problem(column, "an empty cell; this column must be filled")
        for columns, least in ((_COUNTS, 1), (_COUNTS_OR_ZERO, 0)):
            for column in columns:
                yield from _problems_of_count(row, column, least)
        for column in _NUMBERS:
            yield from _problems_of_number(row, column)
        for column in _FLAGS:
            if row.cells.get(column, "true").lower() not in ("true", "false"):
                yield row.problem(column, f'"{row.cells[column][:40]}" is neither true nor false')

    def measurement(self, cells: Mapping[str, str], metric: Metric) -> float | None:
        """Step time [s] (from the throughput where only that is given) or peak memory [GiB]."""
        if metric is PEAK_MEMORY:
            return float(cells["measured_peak_memory_gib"]) if "measured_peak_memory_gib" in cells else None
        if "measured_step_time_s" in cells:
            return float(cells["measured_step_time_s"])
        if "measured_tokens_per_s_per_gpu" in cells:
            return tokens_per_gpu_and_step(cells) / float(cells["measured_tokens_per_s_per_gpu"])
        return None

    def predict(self, cells: Mapping[str, str]) -> dict[str, float]:
        """Simulate the run; one that does not fit in memory still gets its time."""
        from simulator.run import simulate
        from simulator.scenario import scenario_from_mapping

        result = simulate(scenario_from_mapping(scenario_mapping(cells)))
        return {
            "predicted_step_time_s": result.step_time_s,
            "predicted_tokens_per_s_per_gpu": tokens_per_gpu_and_step(cells) / result.step_time_s,
            "predicted_peak_memory_gib": result.peak_memory_bytes / GIB,
        }


def _problems_of_count(row: Row, column: str, least: int) -> Iterable[Problem]:
    text = row.cells.get(column)
    if text is None:
        return
    try:
        value = number(text)
    except ValueError as error:
        yield row.problem(column, str(error))
        return
    if not value.is_integer() or not least <= value <= 1e9:
        yield row.problem(column, f"{text[:40]} is not a whole number from {least} to 1,000,000,000")


def _problems_of_number(row: Row, column: str) -> Iterable[Problem]:
    text = row.cells.get(column)
    if text is None:
        return
    try:
        value = number(text)
    except ValueError as error:
        yield row.problem(column, str(error))
        return
    if value <= 0:
        yield row.problem(column, f"{text[:40]} must be more than 0")
