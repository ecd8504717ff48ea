"""The micro-benchmark of this machine, with a stand-in for PyTorch that knows how long things take."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulator.calibration import identify, measure, read_measurements, scale_up_of
from simulator.cli import main
from simulator.measurements import Copies, Matmuls, PaperAttention
from simulator.specs import Calibration

CARD = "A100-SXM4-80GB"
TRUTH = Calibration.load().with_values(memory_fraction=0.6, matmul_peak_fraction=0.7)


class Tensor:
    """A shape; whatever runs on it advances the clock by what the cost models say."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.causal = False

    def t(self) -> Tensor:
        return self

    def copy_(self, other: Tensor) -> None:
        clock.run(Copies().work({"gpu": CARD, "copy_bytes": str(other.shape[0])}).seconds(TRUTH))


class Clock:
    """Simulated seconds; inside a graph they are gathered and spent at each replay."""

    def __init__(self) -> None:
        self.now = 0.0
        self.graph: Graph | None = None

    def run(self, seconds: float) -> None:
        if self.graph is not None:
            self.graph.seconds += seconds
        else:
            self.now += seconds


clock = Clock()


class Graph:
    def __init__(self) -> None:
        self.seconds = 0.0

    def replay(self) -> None:
        clock.now += self.seconds


class Capture:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __enter__(self) -> None:
        clock.graph = self.graph

    def __exit__(self, *_: object) -> None:
        clock.graph = None


class Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = 0.0

    def record(self) -> None:
        self.at = clock.now

    def elapsed_time(self, end: Event) -> float:
        return (end.at - self.at) * 1e3


def attention(direction: str) -> Callable[..., Tensor]:
    def run(q: Tensor, *_others: Tensor, is_causal: bool = False) -> Tensor:
        batch, heads, length, size = q.shape
        row = {
            "gpu": CARD,
            "kernel": "attention PyTorch",
            "precision": "bf16",
            "batch": str(batch),
            "seq_len": str(length),
            "n_heads": str(heads),
            "head_dim": str(size),
            "causal": "yes" if is_causal else "no",
            "direction": direction,
        }
        clock.run(PaperAttention().work(row).seconds(TRUTH))
        out = Tensor(*q.shape)
        out.causal = is_causal
        return out

    return run


def matmul(a: Tensor, b: Tensor, out: Tensor) -> None:
    (m, k), (n, _) = a.shape, b.shape
    assert out.shape == (m, n)
    row = {"gpu": CARD, "precision": "bf16", "m": str(m), "n": str(n), "k": str(k)}
    clock.run(Matmuls().work(row).seconds(TRUTH))


def torch_with(gpu: bool = True, name: str = "NVIDIA A100-SXM4-80GB") -> Any:
    cuda = types.SimpleNamespace(
        is_available=lambda: gpu,
        get_device_name=lambda _index: name,
        get_device_properties=lambda _index: types.SimpleNamespace(total_memory=85_031_714_816),
        device_count=lambda: 1,
        synchronize=lambda: None,
        CUDAGraph=Graph,
        graph=Capture,
        Event=Event,
    )
    new = lambda *shape, **_named: Tensor(*shape)  # noqa: E731 - three names for one thing
    return types.SimpleNamespace(
        cuda=cuda,
        randn=new,
        empty=new,
        randn_like=lambda other: Tensor(*other.shape),
        bfloat16="bf16",
        uint8="u8",
        mm=matmul,
        nn=types.SimpleNamespace(
            functional=types.SimpleNamespace(scaled_dot_product_attention=attention("fwd"))
        ),
        autograd=types.SimpleNamespace(
            grad=lambda out, inputs, _slope, retain_graph: attention("bwd")(*inputs, is_causal=out.causal)
        ),
    )


def test_without_pytorch_one_line_and_the_environments_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    out = tmp_path / "mine.yaml"
    assert main(["calibrate", "--device", "--out", str(out)]) == 4
    assert capsys.readouterr().err == "calibrate --device needs PyTorch, which is not installed here\n"
    monkeypatch.setitem(sys.modules, "torch", torch_with(gpu=False))
    assert main(["calibrate", "--device", "--out", str(out)]) == 4
    assert capsys.readouterr().err == "calibrate --device needs a GPU, and PyTorch sees none here\n"
    assert not out.exists()


def test_the_card_is_found_by_name_form_and_memory() -> None:
    assert identify(torch_with()) == CARD
    assert identify(torch_with(name="NVIDIA A100 80GB PCIe")) == "A100-PCIe-80GB"
    with pytest.raises(Exception, match="--accelerator"):
        identify(torch_with(name="NVIDIA GeForce 256"))
    assert scale_up_of(CARD) == "NVLink3"


def test_rows_are_of_the_public_files_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch_with())
    measure(tmp_path, accelerator=CARD, scale_up="NVLink3", progress=lambda _part, _what: None)
    read = read_measurements(tmp_path)
    assert sorted(Path(name).name for name in read.files) == ["attention.csv", "copies.csv", "gemm.csv"]
    # Ten runs a graph, copies over many buffers, forward and backward: one run's time comes back.
    for row in read.observations:
        expected = row.work.seconds(TRUTH)
        assert row.seconds == pytest.approx(expected, rel=1e-6)


def test_a_machine_gets_its_own_constants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch_with())
    out = tmp_path / "mine.yaml"
    assert main(["calibrate", "--device", "--out", str(out)]) == 0
    found = Calibration.load(out)
    assert found.machine == CARD
    for name in ("memory_fraction", "matmul_peak_fraction"):
        assert found.constants[name].value == pytest.approx(TRUTH.constants[name].value, rel=0.06), name
    assert found.constants["scale_up_fraction"] == Calibration.load().constants["scale_up_fraction"]
    assert "--device" in found.constants["memory_fraction"].command
