"""A made-up result that every test of the reports draws from: two pipeline stages, four micro-batches."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest

from simulator.analysis.result import BasisNote, Bottleneck, Result

GIB = 2**30
PEAK = 989.4e12
BANDWIDTH = 3.35e12
# name, cause, seconds forward, flops, bytes: one layer of a transformer on one of four tensor-parallel GPUs
LAYER = (
    ("attention.norm", "compute.norm", 45e-6, 2.7e8, 1.34e8, "memory_bandwidth"),
    ("attention.qkv", "compute.matmul", 310e-6, 2.06e11, 1.5e8, "tensor"),
    ("attention.core", "compute.attention", 240e-6, 1.37e11, 6.7e7, "tensor"),
    ("attention.out", "compute.matmul", 210e-6, 1.37e11, 1.2e8, "tensor"),
    ("attention.all_reduce", "communication.all_reduce", 330e-6, 0.0, 0.0, "scale_up"),
    ("mlp.up", "compute.matmul", 1100e-6, 7.6e11, 3.9e8, "tensor"),
    ("mlp.activation", "compute.activation", 60e-6, 4e8, 1.76e8, "memory_bandwidth"),
    ("mlp.down", "compute.matmul", 560e-6, 3.8e11, 2.5e8, "tensor"),
    ("mlp.all_reduce", "communication.all_reduce", 330e-6, 0.0, 0.0, "scale_up"),
)


@dataclass
class Tables:
    frames: dict[str, pd.DataFrame]

    def activities(self) -> pd.DataFrame:
        return self.frames["activities"]

    def operators(self) -> pd.DataFrame:
        return self.frames["operators"]

    def utilization_timeline(self) -> pd.DataFrame:
        return self.frames["utilization"]

    def link_timeline(self) -> pd.DataFrame:
        use = self.frames["utilization"]
        links = use[use["kind"].isin(["scale_up", "storage_read"])]
        names = {"scale_up": "stage0.scale_up.send", "storage_read": "storage.storage_read"}
        return links.assign(link=links["kind"].map(names))[["time_s", "link", "utilization"]]

    def memory_timeline(self) -> pd.DataFrame:
        return self.frames["memory"]


@dataclass
class Clock:
    """Plays activities in the order given: each waits for its lane and for `after`."""

    free: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def play(self, lane: str, seconds: float, after: float = 0.0, **labels: Any) -> float:
        start = max(self.free.get(lane, 0.0), after)
        defaults = {
            "phase": "",
            "stage": -1,
            "step": 0,
            "micro_batch": -1,
            "layer": -1,
            "limited_by": "",
            "awaited": "",
        }
        row = {"id": len(self.rows), "lane": lane, "owner": lane.rsplit(".", 1)[0], **defaults, **labels}
        self.rows.append(row | {"ready_s": after, "start_s": start, "end_s": start + seconds})
        self.free[lane] = start + seconds
        return start + seconds


def one_f_one_b(stage: int, stages: int, micro_batches: int) -> list[tuple[str, int]]:
    warm = min(stages - stage - 1, micro_batches)
    order = [("forward", m) for m in range(warm)]
    for m in range(micro_batches - warm):
        order += [("forward", m + warm), ("backward", m)]
    return order + [("backward", m) for m in range(micro_batches - warm, micro_batches)]


def play_step(clock: Clock, step: int, stages: int, micro_batches: int, layers: int) -> None:
    data = [
        clock.play(
            "storage.read",
            9e-3,
            name="samples",
            cause="data",
            phase="data",
            step=step,
            limited_by="storage_read",
        )
        for _ in range(micro_batches)
    ]
    queue = {stage: one_f_one_b(stage, stages, micro_batches) for stage in range(stages)}
    done: dict[tuple[str, int, int], float] = {}
    while any(queue.values()):
        for stage in range(stages):
            if not queue[stage]:
                continue
            phase, m = queue[stage][0]
            before = (phase, stage - 1, m) if phase == "forward" else (phase, stage + 1, m)
            if 0 <= before[1] < stages and before not in done:
                continue
            queue[stage].pop(0)
            after = done.get(before, data[m] if phase == "forward" else done.get(("forward", stage, m), 0.0))
            end = play_pass(clock, step, stage, phase, m, layers, after)
            sends = 0 <= (stage + 1 if phase == "forward" else stage - 1) < stages
            if sends:
                end = clock.play(
                    f"stage{stage}.gpu.send", 1.3e-3, end, name=f"{phase}.send", cause="communication.send",
                    phase=phase, stage=stage, step=step, micro_batch=m, limited_by="scale_out",
                )  # fmt: skip
            done[phase, stage, m] = end
    for stage in range(stages):
        labels = {"stage": stage, "step": step}
        end = clock.play(
            f"stage{stage}.gpu.communication", 9e-3, clock.free[f"stage{stage}.gpu.compute"],
            name="gradients", cause="communication.reduce_scatter", phase="backward",
            limited_by="scale_out", **labels,
        )  # fmt: skip
        clock.play(
            f"stage{stage}.gpu.compute", 6e-3, end, name="adam", cause="compute.optimizer", phase="optimizer",
            limited_by="memory_bandwidth", **labels,
        )  # fmt: skip


def play_pass(clock: Clock, step: int, stage: int, phase: str, m: int, layers: int, after: float) -> float:
    end = after
    factor = 1.0 if phase == "forward" else 2.0
    for layer in range(layers):
        for name, cause, seconds, _, _, limit in LAYER:
            lane = "compute" if cause.startswith("compute") else "communication"
            end = clock.play(
                f"stage{stage}.gpu.{lane}", seconds * (factor if lane == "compute" else 1.0), end, name=name,
                cause=cause, phase=phase, stage=stage, step=step, micro_batch=m, layer=layer,
                limited_by=limit,
            )  # fmt: skip
    return end


def operators(count: int) -> pd.DataFrame:
    rows = []
    for phase, factor in (("forward", 1.0), ("backward", 2.0)):
        for name, cause, seconds, flops, size, limit in LAYER:
            if flops:
                work = {
                    "time_s": seconds * factor * count,
                    "flops": flops * factor * count,
                    "bytes": size * factor * count,
                }
                roofs = {"peak_flops": PEAK if limit == "tensor" else 67e12, "memory_bandwidth": BANDWIDTH}
                rows.append(
                    {
                        "name": name,
                        "cause": cause,
                        "phase": phase,
                        "count": count,
                        **work,
                        **roofs,
                        "limited_by": limit,
                    }
                )
    return pd.DataFrame(rows)


def utilization(begin: float, end: float) -> pd.DataFrame:
    kinds = ("tensor", "memory_bandwidth", "vector", "scale_up", "scale_out", "pcie", "storage_read", "cpu")
    rows = []
    for position in range(160):
        time = begin + (end - begin) * position / 160
        for index, kind in enumerate(kinds):
            wave = 0.5 + 0.5 * math.sin(position / (3 + index) + index)
            rows.append({"time_s": time, "kind": kind, "utilization": wave * (0.9 / (1 + index))})
    return pd.DataFrame(rows)


def memory(begin: float, end: float, stages: int) -> pd.DataFrame:
    rows = []
    for stage in range(stages):
        for position in range(60):
            used = (38 - 3 * stage + 8 * abs(math.sin(position / 5 + stage))) * GIB
            rows.append({"time_s": begin + (end - begin) * position / 60, "stage": stage, "bytes": int(used)})
    return pd.DataFrame(rows)


def make_result(
    *, stages: int = 2, micro_batches: int = 4, layers: int = 4, steps: int = 3, **changes: Any
) -> Result:
    """Steps 1 and later are measured; the first is the warm-up."""
    clock = Clock()
    marks = [0.0]
    for step in range(steps):
        play_step(clock, step, stages, micro_batches, layers)
        marks.append(max(row["end_s"] for row in clock.rows))
    frame = pd.DataFrame(clock.rows)
    step_time = (marks[-1] - marks[1]) / (steps - 1)
    busy = frame[(frame.stage == 0) & (frame.step == steps - 1)].groupby("cause")[["start_s", "end_s"]].sum()
    breakdown = {str(cause): float(row.end_s - row.start_s) for cause, row in busy.iterrows()}
    breakdown["communication.reduce_scatter"] *= 0.5  # the other half hides behind the backward pass
    breakdown["data_stall"] = 0.2 * (step_time - math.fsum(breakdown.values()))
    breakdown["pipeline_bubble"] = step_time - math.fsum(breakdown.values())
    parts = {
        "parameters": 4 * GIB,
        "gradients": 4 * GIB,
        "optimizer": 24 * GIB,
        "activations": 13 * GIB,
        "workspace": GIB,
    }
    tokens = micro_batches * 8192 / step_time
    values: dict[str, Any] = {
        "name": "sample", "model": "llama3-8b", "accelerator": "H100-SXM5-80GB", "num_gpus": 4 * stages,
        "parallelism": {"tensor_parallel": 4, "pipeline_parallel": stages, "data_parallel": 1},
        "step_time_s": step_time, "tokens_per_s": tokens, "tokens_per_s_per_gpu": tokens / (4 * stages),
        "samples_per_s": micro_batches / step_time, "model_tflops_per_gpu": 427.4, "mfu": 0.432, "hfu": 0.461,
        "peak_memory_bytes": sum(parts.values()), "memory_capacity_bytes": 80 * 10**9, "fits": True,
        "memory_by_part": parts, "memory_by_stage": [(46 - 3 * stage) * GIB for stage in range(stages)],
        "breakdown": breakdown,
        "bottlenecks": [
            Bottleneck("tensor", 0.56, 0.61), Bottleneck("scale_up", 0.17, 0.16),
            Bottleneck("pipeline_bubble", 0.14), Bottleneck("memory_bandwidth", 0.06, 0.05),
            Bottleneck("storage_read", 0.04, 0.02),
        ],
        "utilization": {"tensor": 0.45, "memory_bandwidth": 0.31, "scale_up": 0.2, "storage_read": 0.1},
        "basis": [
            BasisNote("accelerator H100-SXM5-80GB", "datasheet"),
            BasisNote("kernel efficiencies", "measured", "published matmul sweeps"),
            BasisNote("storage nfs-100g", "assumed", "latency 0.5 ms, operations per second"),
        ],
        "warnings": ["tensor_parallel 4 spans half of the node"],
        "num_activities": len(frame), "num_events": 3 * len(frame), "wall_s": 0.42, "player": "reference",
        "version": "0.1.0", "seed": 0,
    }  # fmt: skip
    tables = Tables(
        {
            "activities": frame,
            "operators": operators(layers * micro_batches),
            "utilization": utilization(marks[1], marks[-1]),
            "memory": memory(marks[1], marks[-1], stages),
        }
    )
    return dataclasses.replace(Result(**values, _tables=tables), **changes)


@pytest.mark.parametrize("stages", [1, 2])
def test_the_sample_keeps_the_promises_of_a_result(stages: int) -> None:
    result = make_result(stages=stages)
    assert math.fsum(result.breakdown.values()) == pytest.approx(result.step_time_s, rel=1e-12)
    assert min(result.breakdown.values()) >= 0
    for _, lane in result.activities.groupby("lane"):
        assert (lane.start_s.to_numpy()[1:] >= lane.end_s.to_numpy()[:-1]).all()
