"""Whatever stands in the cells of measurements: predictions, reasons or mistakes, never anything else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import ScenarioError
from simulator.validation import validate

FILES = (
    {"gpu": "H100-SXM-80GB", "precision": "fp8", "m": "4096", "n": "512", "k": "1024", "time_us": "9"},
    {"gpu": "A100-SXM-80GB", "copy_bytes": "1048576", "time_us": "3"},
    {
        "gpu": "H100-SXM-80GB",
        "precision": "bf16",
        "causal": "True",
        "batch": "2",
        "sequence_length": "4096",
        "num_attention_heads": "32",
        "num_key_value_heads": "8",
        "head_dim": "128",
        "time_us": "500",
        "source": "VLLM 1",
    },
    {
        "gpu": "H100",
        "kernel": "attention FA3",
        "precision": "fp16",
        "batch": "8",
        "seq_len": "2048",
        "n_heads": "16",
        "head_dim": "128",
        "causal": "yes",
        "direction": "fwd+bwd",
        "tflops": "500",
    },
    {
        "gpu": "H100",
        "gpus_per_node": "8",
        "scale_up": "NVLink4",
        "scale_out_gbps_per_gpu": "400",
        "n_ranks": "16",
        "n_nodes": "2",
        "collective": "alltoall",
        "bytes": "1024",
        "time_us": "30",
        "hardware": "IB NDR",
    },
    {
        "model": "bert-large",
        "gpu": "V100-SXM2-16GB",
        "num_gpus": "8",
        "micro_batch_size": "4",
        "sequence_length": "128",
        "global_batch_size": "32",
        "measured_samples_per_s": "100",
        "framework": "PyTorch 22.03",
        "notes": "",
    },
)
"""A row of each kind of file that is predicted in milliseconds."""

CELLS = st.sampled_from(
    [
        *("", "0", "1", "2", "3", "7", "64", "1e3", "1e9", "0.5", "-1", "nan", "x", "True", "no", '"', "é"),
        *("H100", "A100", "V100", "NVLink2", "NVLink4", "PCIe", "fp8", "fp32", "nvfp4"),
        *("all_reduce", "fwd", "backward"),
    ]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("measurements")


@settings(max_examples=200)
@given(st.sampled_from(FILES), st.lists(st.tuples(st.integers(0, 9), CELLS), min_size=1, max_size=3))
def test_whatever_stands_in_a_cell(folder: Path, row: dict[str, str], changes: list[tuple[int, str]]) -> None:
    cells = {"id": "a", **row}
    for place, text in changes:
        cells[list(row)[place % len(row)]] = text
    path = folder / "m.csv"
    path.write_text(f"{','.join(cells)}\n{','.join(cells.values())}\n", encoding="utf-8")
    try:
        report = validate(path)
    except ScenarioError as error:
        assert all(problem.line for problem in error.problems)
    else:
        assert report.predicted + sum(report.reasons.values()) == report.rows == 1
        assert all(math.isfinite(score.total.mape or 0.0) for score in report.metrics)
