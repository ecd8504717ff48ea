"""Fused attention: as inference engines time it, and as the FlashAttention papers print it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

from simulator.cost.attention import FLASH, PORTABLE, AttentionKernel
from simulator.cost.device import ASYNCHRONOUS_WIDTH, matrix_unit
from simulator.errors import Problem, UnsupportedError
from simulator.measurements._benchmark import VECTOR_WIDTH, Benchmark, Cells, misses
from simulator.measurements._cells import Fault, fault_of_count, fault_of_flag, fault_of_rate
from simulator.measurements._hardware import device
from simulator.measurements._table import Row
from simulator.measurements._work import KernelWork
from simulator.specs import AcceleratorSpec
from simulator.workload.kernels import AttentionShape, Kernel

Direction = Literal["forward", "backward"]

_BYTES: Final = 2
_SCHEDULED: Final = AttentionKernel(scheduled=True)
_SERIAL: Final = AttentionKernel(interleaved=False)
_SERIAL_64: Final = AttentionKernel(queries=64, interleaved=False)
"""Four warps of 16 queries: FlashAttention-2 on a paged cache (flash_fwd_launch_template.h), TensorRT-LLM's
kernels before Hopper."""

_STORE_LAUNCHES: Final = {"TRTLLM": 3}
"""Launches that put keys and values into the paged cache before attention reads them; one by default.
TensorRT-LLM counts tokens and sequences first."""

_STORE_THREADS: Final = 512
"""Most threads that vLLM's store gives a token (reshape_and_cache_flash); it takes one for each element of
its keys."""

_STORE_CYCLES: Final = 5000
"""Time that these threads hold their places: where to write, then what, one after the other out of memory
[cycles]; what prompts of few heads take longer on H100 than in SGLang, which stores by warps."""

_THREADS: Final = 2048
"""Threads that a compute unit holds."""


def attention_kernel(shape: AttentionShape, precision: str = "bf16") -> Kernel:
    """Fused attention on its own: compulsory traffic, and FLOPs of the lower triangle where it is causal.

    Forward 4 b h s s d, backward 10 b h s s d [FLOP], half of it if causal.
    """
    b, s, d = shape.batch, shape.query_length, shape.head_dim
    backward = shape.direction == "backward"
    flops = (10 if backward else 4) * b * shape.heads * s * shape.key_length * d // (1 + shape.causal)
    queries = _BYTES * b * s * shape.heads * d
    keys = _BYTES * b * shape.key_length * shape.kv_heads * d
    return Kernel(
        name="attention",
        kind="attention",
        flops=flops,
        read_bytes=3 * queries + 2 * keys if backward else queries + 2 * keys,
        write_bytes=queries + 2 * keys if backward else queries,
        precision=precision,
        shape=shape,
    )


class EngineAttention(Benchmark):
    """Attention over a whole prompt in an inference engine.

    Protocol: as `Matmuls`; within the time keys and values are copied to the paged cache, by TRTLLM the
    queries, too (it turns them by their positions there). Kernels as the engines choose them: SGLang takes
    FlashAttention-3 on every GPU before Blackwell, vLLM on Hopper; a kernel before them schedules sequences
    of many lengths. vLLM takes FlashAttention-2 for paged caches before Hopper, TensorRT-LLM kernels of its
    own, which leave products and softmax of a group of warps in turn.
    """

    name = "attention of inference engines"
    required = ("id", "gpu", "batch", "sequence_length", "num_attention_heads", "head_dim")
    faults: ClassVar[Mapping[str, Fault]] = {
        "batch": fault_of_count,
        "sequence_length": fault_of_count,
        "num_attention_heads": fault_of_count,
        "num_key_value_heads": fault_of_count,
        "head_dim": fault_of_count,
        "causal": fault_of_flag,
    }

    def problems(self, row: Row) -> list[Problem]:
        """As every benchmark, and query heads that do not share key heads evenly."""
        found = list(super().problems(row))
        if not found and "num_key_value_heads" in row.cells:
            heads, keys = row.cells["num_attention_heads"], row.cells["num_key_value_heads"]
            if float(heads) % float(keys):
                message = f"{keys} does not divide num_attention_heads: {heads}"
                found.append(row.problem("num_key_value_heads", message))
        return found

    def work(self, cells: Cells) -> KernelWork:
        """The cache write and the attention."""
        if cells.get("precision", "bf16") not in ("bf16", "fp16"):
            raise UnsupportedError(("precision",), f'attention in "{cells["precision"]}" is not modelled')
        shape, accelerator = _shape(cells), device(cells["gpu"])
        engine = self._engine(cells)
        rows = _BYTES * shape.batch * shape.query_length * shape.head_dim
        turned = (engine == "TRTLLM") * shape.heads
        touched = rows * (2 * shape.heads + 4 * shape.kv_heads + turned)
        fetched = misses(touched, accelerator.l2_capacity)
        moved = int(fetched * rows * (2 * shape.kv_heads + turned))
        waiting = _store_cycles(shape) * VECTOR_WIDTH if engine == "VLLM" else 0
        launches = _STORE_LAUNCHES.get(engine, 1)
        store = Kernel("cache", "elementwise", waiting, moved, moved, "bf16", launches=launches)
        layout = _layout(engine, accelerator)
        plain = attention_kernel(shape)
        core = Kernel(
            name=plain.name,
            kind=plain.kind,
            flops=plain.flops,
            read_bytes=int(fetched * plain.read_bytes),
            write_bytes=int(fetched * plain.write_bytes),
            precision=plain.precision,
            shape=shape,
            launches=1 + layout.scheduled,
        )
        return KernelWork(accelerator, (core, store), layout)

    def group(self, cells: Cells) -> str:
        """Accelerator and engine."""
        return f"{cells['gpu']} {self._engine(cells)}".strip()

    def size(self, cells: Cells) -> float:
        """Arithmetic of the attention [FLOP]."""
        return float(attention_kernel(_shape(cells)).flops)

    def source(self, cells: Cells) -> str:
        """The engine."""
        return self._engine(cells)

    @staticmethod
    def _engine(cells: Cells) -> str:
        known = (word for word in cells.get("source", "").split() if word in ("SGLang", "TRTLLM", "VLLM"))
        return next(known, "")


def _layout(engine: str, accelerator: AcceleratorSpec) -> AttentionKernel:
    """The kernels that an engine chooses on an accelerator."""
    width = matrix_unit(accelerator, "bf16").width
    hopper, newer = width > 0.75 * ASYNCHRONOUS_WIDTH, width > 1.5 * ASYNCHRONOUS_WIDTH
    if engine == "SGLang" or (engine == "VLLM" and hopper):
        return _SCHEDULED
    if engine == "TRTLLM" and hopper:
        return FLASH if newer else _SERIAL
    return _SERIAL_64 if engine in ("VLLM", "TRTLLM") else FLASH


def _store_cycles(shape: AttentionShape) -> int:
    """Cycles of a compute unit for vLLM's store: a block of threads for each token, of which few fit."""
    threads = min(_STORE_THREADS, shape.kv_heads * shape.head_dim)
    return _STORE_CYCLES * shape.batch * shape.query_length * threads // _THREADS


def _shape(cells: Cells) -> AttentionShape:
    direction = cells.get("direction", "forward")
    if direction not in ("forward", "backward"):
        raise UnsupportedError(("direction",), f'"{direction}" is neither forward nor backward')
    length, heads = int(float(cells["sequence_length"])), int(float(cells["num_attention_heads"]))
    return AttentionShape(
        batch=int(float(cells["batch"])),
        heads=heads,
        kv_heads=int(float(cells.get("num_key_value_heads", heads))),
        query_length=length,
        key_length=length,
        head_dim=int(float(cells["head_dim"])),
        causal=cells.get("causal", "true").lower() == "true",
        direction="backward" if direction == "backward" else "forward",
    )


_PAPER_KERNELS: Final = {
    "attention FA2": PORTABLE,
    "attention FA3": FLASH,
    "attention cuDNN": FLASH,
    "attention PyTorch": FLASH,
}
_PASSES: Final[dict[str, tuple[Direction, ...]]] = {
    "fwd": ("forward",),
    "bwd": ("backward",),
    "fwd+bwd": ("forward", "backward"),
}
_PAPER_PRECISIONS: Final = {"fp16": "fp16", "bf16": "bf16", "bf16/fp16": "bf16", "fp8": "fp8"}


class PaperAttention(Benchmark):
    """Attention alone, in TFLOP/s, as the FlashAttention papers print it.

    Protocol: the paper's count of FLOPs (4 or 10 b h s s d, half if causal); operands from device memory;
    FlashAttention-2 is in the instructions of 2020, whatever it runs on.
    """

    name = "attention in TFLOP/s"
    required = ("id", "gpu", "kernel", "precision", "seq_len", "head_dim", "causal", "direction")
    foreign = ("m", "n", "k")
    measured = "tflops"
    faults: ClassVar[Mapping[str, Fault]] = {
        "batch": fault_of_count,
        "seq_len": fault_of_count,
        "n_heads": fault_of_count,
        "head_dim": fault_of_count,
        "tflops": fault_of_rate,
    }

    def work(self, cells: Cells) -> KernelWork:
        """One pass of the attention, or both."""
        accelerator = device(cells["gpu"])
        layout = _PAPER_KERNELS.get(cells["kernel"])
        if layout is None:
            raise UnsupportedError(("kernel",), f'"{cells["kernel"]}" is not modelled')
        precision = _PAPER_PRECISIONS.get(cells["precision"])
        if precision is None:
            raise UnsupportedError(("precision",), f'attention in "{cells["precision"]}" is not modelled')
        kernels = tuple(attention_kernel(shape, precision) for shape in self._shapes(cells))
        return KernelWork(accelerator, kernels, layout)

    def group(self, cells: Cells) -> str:
        """Accelerator, kernel and direction."""
        return f"{cells['gpu']} {cells['kernel'].removeprefix('attention ')} {cells['direction']}"

    def size(self, cells: Cells) -> float:
        """Arithmetic of the attention [FLOP]."""
        return float(sum(attention_kernel(shape).flops for shape in self._shapes(cells)))

    def source(self, cells: Cells) -> str:
        """The kernel."""
        return cells["kernel"]

    def seconds(self, cells: Cells) -> float:
        """Arithmetic over the printed rate [s]."""
        return self.size(cells) / (float(cells["tflops"]) * 1e12)

    @staticmethod
    def _shapes(cells: Cells) -> list[AttentionShape]:
        for column in ("batch", "n_heads"):
            if column not in cells:
                raise UnsupportedError((column,), "not given")
        if cells["direction"] not in _PASSES:
            known = ", ".join(_PASSES)
            raise UnsupportedError(("direction",), f'"{cells["direction"]}" is not one of {known}')
        length, heads = int(float(cells["seq_len"])), int(float(cells["n_heads"]))
        return [
            AttentionShape(
                batch=int(float(cells["batch"])),
                heads=heads,
                kv_heads=heads,
                query_length=length,
                key_length=length,
                head_dim=int(float(cells["head_dim"])),
                causal=cells["causal"] == "yes",
                direction=direction,
            )
            for direction in _PASSES[cells["direction"]]
        ]
