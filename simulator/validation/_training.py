"""Training runs of transformers: the columns, and what a row of them predicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from simulator.errors import Problem
from simulator.measurements import (
    Fault,
    Metric,
    Row,
    accelerator,
    family,
    fault_of_count,
    fault_of_flag,
    fault_of_rate,
    problems_of_cells,
)
from simulator.specs import Calibration
from simulator.validation._kind import MeasurementKind, measurement_kind
from simulator.validation._memory import as_printed, peak_bytes
from simulator.validation._recompute import OBVIOUS_LACK, heavier
from simulator.validation._scenario import scenario_mapping, tokens_per_gpu_and_step

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
_PLAN: Final = {
    "tensor_parallel": "tensor",
    "pipeline_parallel": "pipeline",
    "virtual_pipeline": "virtual",
    "context_parallel": "context",
    "expert_parallel": "expert",
    "data_parallel": "data",
    "data_parallel_sharding": "sharding",
    "sequence_parallel": "sequence",
    "pipeline_schedule": "schedule",
    "micro_batch_size": "micro-batch",
    "recompute": "recompute",
}
"""What may differ between the runs of one job, and its word in a table."""

_COUNTS_OR_ZERO: Final = ("num_shared_experts",)
_RATES: Final = ("scale_out_gbps_per_gpu",)
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
        return problems_of_cells(row, self.required, _FAULTS)

    def measurement(self, cells: Mapping[str, str], metric: Metric) -> float | None:
        """Step time [s] (from the throughput where only that is given) or peak memory [GiB]."""
        if metric is PEAK_MEMORY:
            return float(cells["measured_peak_memory_gib"]) if "measured_peak_memory_gib" in cells else None
        if "measured_step_time_s" in cells:
            return float(cells["measured_step_time_s"])
        if "measured_tokens_per_s_per_gpu" in cells:
            return tokens_per_gpu_and_step(cells) / float(cells["measured_tokens_per_s_per_gpu"])
        return None

    def left_out(self, cells: Mapping[str, str]) -> tuple[str | None, str | None]:
        """The accelerator's family and the source, to both of which constants of whole steps are fitted."""
        card = f"accelerator {family(accelerator(cells['gpu'], cells.get('scale_up', '')))}"
        return card, f"runs {self.group(cells)}"

    def plan(self, cells: Mapping[str, str]) -> tuple[str, str] | None:
        """One model, batch and precision on the same GPUs, by one source with one framework, are a job."""
        sequences = (
            tokens_per_gpu_and_step(cells) * float(cells["num_gpus"]) / float(cells["sequence_length"])
        )
        told = (
            self.group(cells),
            cells.get("workload", "pretrain"),
            f"{cells.get('model', '')} {cells['num_hidden_layers']} x {cells['hidden_size']}".strip(),
            f"{cells['num_gpus']} {cells['gpu']}",
            f"batch {sequences:.0f} x {cells['sequence_length']}",
            cells.get("precision", ""),
            cells.get("framework", ""),
        )
        plan = " ".join(f"{word}={cells[column]}" for column, word in _PLAN.items() if column in cells)
        return ", ".join(word for word in told if word), plan

    def predict(self, cells: Mapping[str, str], calibration: Calibration) -> dict[str, float]:
        """Simulate the run; one that does not fit in memory still gets its time."""
        from simulator.run import simulate
        from simulator.scenario import scenario_from_mapping

        mapping = scenario_mapping(cells)
        scenario = scenario_from_mapping(mapping)
        result = simulate(scenario, calibration=calibration)
        capacity = scenario.cluster.node_groups[0].accelerator.memory_capacity
        if result.peak_memory_bytes > OBVIOUS_LACK * capacity:
            for recompute in heavier(mapping["training"]["recompute"]):
                mapping["training"] |= {"recompute": recompute, "recompute_modules": None}
                scenario = scenario_from_mapping(mapping)
                result = simulate(scenario, calibration=calibration)
                if result.fits:
                    break
        seen = peak_bytes(result, cells, scenario.cluster.node_groups[0].gpus_per_node)
        return {
            "predicted_step_time_s": result.step_time_s,
            "predicted_tokens_per_s_per_gpu": tokens_per_gpu_and_step(cells) / result.step_time_s,
            **({} if seen is None else {"predicted_peak_memory_gib": as_printed(seen, cells)}),
        }


_FAULTS: Final[dict[str, Fault]] = {
    **dict.fromkeys(_COUNTS, fault_of_count),
    **dict.fromkeys(_COUNTS_OR_ZERO, partial(fault_of_count, least=0)),
    **dict.fromkeys(_RATES, fault_of_rate),
    **dict.fromkeys(_FLAGS, fault_of_flag),
}
