"""Collectives across the GPUs of this machine, one process a GPU, as nccl-tests runs them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

_SIZES: Final = tuple(2**power for power in range(10, 31, 2))
_COLLECTIVES: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
_REPEATS: Final = 20


def collective_rows(torch: Any, accelerator: str, scale_up: str, count: int) -> Iterator[dict[str, object]]:
    """Rows of every collective and size on two GPUs and on all of them."""
    for ranks in sorted({2, count}):
        times = _run(torch, ranks)
        for (collective, size), seconds in times.items():
            yield {
                "id": f"{collective}-{ranks}-{size}",
                "gpu": accelerator,
                "gpus_per_node": count,
                "scale_up": scale_up,
                "n_ranks": ranks,
                "n_nodes": 1,
                "collective": collective,
                "bytes": size,
                "time_us": seconds * 1e6,
                "source": "micro-benchmark of this machine",
            }


def _run(torch: Any, ranks: int) -> dict[tuple[str, int], float]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    torch.multiprocessing.spawn(_worker, args=(ranks, port, queue), nprocs=ranks, join=True)
    times: dict[tuple[str, int], float] = queue.get()
    return times


def _worker(rank: int, ranks: int, port: int, queue: Any) -> None:
    from importlib import import_module

    torch: Any = import_module("torch")
    dist: Any = import_module("torch.distributed")
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(port)
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=ranks)
    times = {}
    for collective in _COLLECTIVES:
        for size in _SIZES:
            times[collective, size] = _timed(torch, dist, collective, size, ranks)
    if rank == 0:
        queue.put(times)
    dist.destroy_process_group()


def _timed(torch: Any, dist: Any, collective: str, size: int, ranks: int) -> float:
    """Time of one operation, the mean of a loop [s]; `size` is the full buffer."""
    elements = max(ranks, size // 2 // ranks * ranks)
    whole = torch.zeros(elements, device="cuda", dtype=torch.bfloat16)
    part = torch.zeros(elements // ranks, device="cuda", dtype=torch.bfloat16)
    other = torch.zeros_like(whole)
    actions: dict[str, Callable[[], Any]] = {
        "all_reduce": lambda: dist.all_reduce(whole),
        "all_gather": lambda: dist.all_gather_into_tensor(whole, part),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, whole),
        "all_to_all": lambda: dist.all_to_all_single(other, whole),
    }
    action = actions[collective]
    for _ in range(5):
        action()
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(_REPEATS):
        action()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / _REPEATS
