"""A micro-benchmark of this machine with PyTorch: rows in the same form as everybody else's measurements."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from simulator.calibration._device_collectives import collective_rows
from simulator.errors import ClustersimError, EnvironmentFailure
from simulator.measurements import PaperAttention, words

Progress = Callable[[float, str], None]
Cells = dict[str, object]

SOURCE: Final = "micro-benchmark of this machine"

_SIZES: Final = (128, 512, 2048, 8192)
_ATTENTION: Final = ((32, 512), (16, 1024), (4, 4096), (1, 16384))
"""Sequences and their length: 16,384 tokens each, as in the FlashAttention papers."""
_HEADS: Final = ((32, 64), (16, 128))
"""Heads and their size: 2,048 channels each."""
_COPIES: Final = tuple(2**power for power in range(16, 31, 2))
_SAME_MEMORY: Final = 0.15
"""Difference between the memory of a data sheet and what a driver leaves of it, relative, at most."""
_REPEATS: Final = 20
_CAPTURED: Final = 10
"""Runs in one graph; its launch costs a tenth of a run's share."""


def require_device() -> Any:
    """PyTorch, if it is there and sees a GPU.

    Raises:
        EnvironmentFailure: No PyTorch, or no GPU.
    """
    from importlib import import_module

    try:
        torch: Any = import_module("torch")
    except ImportError:
        raise EnvironmentFailure("calibrate --device needs PyTorch, which is not installed here") from None
    if not torch.cuda.is_available():
        raise EnvironmentFailure("calibrate --device needs a GPU, and PyTorch sees none here")
    return torch


def identify(torch: Any) -> str:
    """The catalogue's entry for GPU 0, by its name, form and memory.

    Raises:
        ClustersimError: None fits; `--accelerator` names one.
    """
    from simulator.catalog import entry, names
    from simulator.specs import AcceleratorSpec

    shown = str(torch.cuda.get_device_name(0))
    memory = float(torch.cuda.get_device_properties(0).total_memory)
    said = set(words(shown))
    fitting = []
    for name in names("accelerators"):
        family = name.split("-")[0]
        if not set(words(family)) <= said or ("pcie" in words(name)) != ("pcie" in said):
            continue
        capacity = AcceleratorSpec.model_validate(entry("accelerators", name)).memory_capacity
        fitting.append((abs(capacity / memory - 1.0), name))
    if not fitting or min(fitting)[0] > _SAME_MEMORY:
        raise ClustersimError(f'"{shown}" is not in the catalogue; name the nearest entry with --accelerator')
    return min(fitting)[1]


def measure(folder: Path, *, accelerator: str, scale_up: str | None, progress: Progress) -> None:
    """Run the micro-benchmark and write its files.

    Args:
        folder: An empty folder.
        accelerator: Name in the catalogue.
        scale_up: Interconnect between the GPUs; without one no collectives are run.
        progress: Called with the part done and what is being done.
    """
    torch = require_device()
    progress(0.0, "measuring matrix products")
    _write(folder / "gemm.csv", _matmuls(torch, accelerator))
    progress(0.4, "measuring copies")
    _write(folder / "copies.csv", _copies(torch, accelerator))
    progress(0.5, "measuring attention")
    _write(folder / "attention.csv", _attention(torch, accelerator))
    count = int(torch.cuda.device_count())
    if count > 1 and scale_up is not None:
        progress(0.7, f"measuring collectives of {count} GPUs")
        _write(folder / "collectives.csv", list(collective_rows(torch, accelerator, scale_up, count)))


def _matmuls(torch: Any, accelerator: str) -> list[Cells]:
    rows: list[Cells] = []
    shapes = [(m, n, k) for m in _SIZES for n in _SIZES for k in _SIZES]
    for m, n, k in shapes:
        a = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
        b = torch.randn(n, k, device="cuda", dtype=torch.bfloat16).t()
        out = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)

        def run(a: Any = a, b: Any = b, out: Any = out) -> None:
            torch.mm(a, b, out=out)

        seconds = _timed(torch, run)
        cells: Cells = {
            "id": f"mm-{m}-{n}-{k}",
            "gpu": accelerator,
            "precision": "bf16",
            "m": m,
            "n": n,
            "k": k,
        }
        rows.append({**cells, "time_us": seconds * 1e6, "kernels": "pytorch", "source": SOURCE})
    return rows


def _copies(torch: Any, accelerator: str) -> list[Cells]:
    rows: list[Cells] = []
    for size in _COPIES:
        # Several buffers in turn, so that none is still in the cache when its turn comes again.
        count = max(1, min(64, 2**30 // size))
        pairs = [
            (
                torch.empty(size, device="cuda", dtype=torch.uint8),
                torch.empty(size, device="cuda", dtype=torch.uint8),
            )
            for _ in range(count)
        ]

        def run(pairs: Sequence[tuple[Any, Any]] = pairs) -> None:
            for source, destination in pairs:
                destination.copy_(source)

        seconds = _timed(torch, run) / count
        rows.append(
            {
                "id": f"copy-{size}",
                "gpu": accelerator,
                "copy_bytes": size,
                "time_us": seconds * 1e6,
                "source": SOURCE,
            }
        )
    return rows


def _attention(torch: Any, accelerator: str) -> list[Cells]:
    rows: list[Cells] = []
    attention = torch.nn.functional.scaled_dot_product_attention
    for batch, length in _ATTENTION:
        for heads, size in _HEADS:
            for causal in (False, True):
                q, k, v = (
                    torch.randn(
                        batch, heads, length, size, device="cuda", dtype=torch.bfloat16, requires_grad=True
                    )
                    for _ in range(3)
                )

                def forward(q: Any = q, k: Any = k, v: Any = v, causal: bool = causal) -> Any:
                    return attention(q, k, v, is_causal=causal)

                out = forward()
                slope = torch.randn_like(out)

                def backward(out: Any = out, slope: Any = slope, inputs: Any = (q, k, v)) -> Any:
                    return torch.autograd.grad(out, inputs, slope, retain_graph=True)

                for direction, action in (("fwd", forward), ("bwd", backward)):
                    seconds = _timed(torch, action, captured=False)
                    cells: Cells = {
                        "id": f"attention-{direction}-{batch}-{length}-{size}-{causal}",
                        "gpu": accelerator,
                        "kernel": "attention PyTorch",
                        "precision": "bf16",
                        "batch": batch,
                        "seq_len": length,
                        "n_heads": heads,
                        "head_dim": size,
                        "causal": "yes" if causal else "no",
                        "direction": direction,
                        "source": SOURCE,
                    }
                    flops = PaperAttention().size({name: str(cell) for name, cell in cells.items()})
                    rows.append({**cells, "tflops": flops / seconds / 1e12})
    return rows


def _timed(torch: Any, action: Callable[[], Any], *, captured: bool = True) -> float:
    """Median time of one run on warm operands, the host's launch time left out [s].

    Kernels are captured in a graph of ten runs where that is possible; attention with gradients runs long
    enough for its launches to be queued ahead.
    """
    for _ in range(3):
        action()
    torch.cuda.synchronize()
    runs = 1
    if captured:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(_CAPTURED):
                action()
        action, runs = graph.replay, _CAPTURED
    times = []
    for _ in range(_REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        action()
        end.record()
        torch.cuda.synchronize()
        times.append(float(begin.elapsed_time(end)) / 1e3 / runs)
    return sorted(times)[len(times) // 2]


def _write(path: Path, rows: Sequence[Cells]) -> None:
    if not rows:
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def scale_up_of(accelerator: str) -> str | None:
    """The interconnect of the first system in the catalogue that has the accelerator."""
    return next(_scale_ups(accelerator), None)


def _scale_ups(accelerator: str) -> Iterator[str]:
    from simulator.catalog import entry, names

    for name in names("systems"):
        system = entry("systems", name)
        if system.get("accelerator") == accelerator and "scale_up" in system:
            yield str(system["scale_up"])
