"""Benchmarks of kernels and collectives: the sizes that are scored apart, and what a row predicts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar

from simulator.errors import Problem, UnsupportedError
from simulator.measurements import (
    Benchmark,
    Copies,
    EngineAttention,
    KernelRates,
    Matmuls,
    Metric,
    NodeCollectives,
    PaperAttention,
    Row,
    TableCollectives,
)
from simulator.specs import Calibration
from simulator.validation._kind import MeasurementKind, measurement_kind

_GIGA = 1e9
_MIB = 2.0**20


class BenchmarkKind(MeasurementKind):
    """A file of which each row timed one thing; what it timed is known to the benchmark.

    Attributes:
        benchmark: What a row means.
    """

    benchmark: ClassVar[Benchmark]
    measured: ClassVar[tuple[str, ...]] = ("time_us",)
    predicted_columns = ("predicted_time_us",)
    quick = True

    @abstractmethod
    def metric_of(self, cells: Mapping[str, str]) -> Metric:
        """The size class of a row; each is scored apart."""

    def check(self, row: Row) -> Iterable[Problem]:
        """What the benchmark finds wrong."""
        return self.benchmark.problems(row)

    def measurement(self, cells: Mapping[str, str], metric: Metric) -> float | None:
        """The measured time [us], if the row is of the metric's size class."""
        return self.benchmark.seconds(cells) * 1e6 if self.metric_of(cells) is metric else None

    def predict(self, cells: Mapping[str, str], calibration: Calibration) -> dict[str, float]:
        """Time of the row [us]."""
        return {"predicted_time_us": self.benchmark.work(cells).seconds(calibration) * 1e6}

    def left_out(self, cells: Mapping[str, str]) -> tuple[str | None, str | None]:
        """The labels that fits use."""
        return self.benchmark.labels(cells, self.benchmark.work(cells))

    def group(self, cells: Mapping[str, str]) -> str:
        """As in the tables."""
        return self.benchmark.group(cells)

    def metric_group(self, cells: Mapping[str, str], metric: Metric) -> str:  # noqa: ARG002 - one for all
        """The benchmark's group."""
        return self.benchmark.group(cells)


def _time(name: str, groups: str) -> Metric:
    return Metric(name, "us", "predicted_time_us", groups)


_MATMUL_GROUPS = "gpu, precision, kernels"


@measurement_kind
class MatmulTimes(BenchmarkKind):
    """Matrix products."""

    benchmark = Matmuls()
    name = benchmark.name
    required = benchmark.required
    metrics = (
        _time("bf16 above 1 GFLOP", _MATMUL_GROUPS),
        _time("fp8 above 1 GFLOP", _MATMUL_GROUPS),
        _time("up to 1 GFLOP", _MATMUL_GROUPS),
    )

    def metric_of(self, cells: Mapping[str, str]) -> Metric:
        """By arithmetic and precision."""
        if self.benchmark.size(cells) <= _GIGA:
            return self.metrics[2]
        return self.metrics[1 if cells["precision"] == "fp8" else 0]


@measurement_kind
class AttentionTimes(BenchmarkKind):
    """Fused attention of inference engines."""

    benchmark = EngineAttention()
    name = benchmark.name
    required = benchmark.required
    metrics = (_time("above 1 GFLOP", "gpu, engine"), _time("up to 1 GFLOP", "gpu, engine"))

    def metric_of(self, cells: Mapping[str, str]) -> Metric:
        """By arithmetic."""
        return self.metrics[0 if self.benchmark.size(cells) > _GIGA else 1]


@measurement_kind
class PaperAttentionRates(BenchmarkKind):
    """Fused attention, forward and backward, as papers print it."""

    benchmark = PaperAttention()
    name = benchmark.name
    required = benchmark.required
    foreign = benchmark.foreign
    measured = ("tflops",)
    metrics = (_time("time", "gpu, kernel, direction"),)

    def metric_of(self, cells: Mapping[str, str]) -> Metric:  # noqa: ARG002 - there is one
        """The only one."""
        return self.metrics[0]

    def measurement(self, cells: Mapping[str, str], metric: Metric) -> float | None:
        """The time that the printed rate means [us]; None where the row does not say of what."""
        try:
            return super().measurement(cells, metric)
        except UnsupportedError:
            return None


@measurement_kind
class CopyTimes(BenchmarkKind):
    """Copies inside device memory."""

    benchmark = Copies()
    name = benchmark.name
    required = benchmark.required
    metrics = (_time("time", "gpu"),)

    def metric_of(self, cells: Mapping[str, str]) -> Metric:  # noqa: ARG002 - there is one
        """The only one."""
        return self.metrics[0]


_RATE_GROUPS = "gpu, kernel, precision"


@measurement_kind
class KernelRateTimes(BenchmarkKind):
    """Products and copies on many accelerators, as others print their rates."""

    benchmark = KernelRates()
    name = benchmark.name
    required = benchmark.required
    measured = ("tflops", "bandwidth_GBps", "time_ms")
    metrics = (_time("products", _RATE_GROUPS), _time("copies", _RATE_GROUPS))

    def metric_of(self, cells: Mapping[str, str]) -> Metric:
        """By what was timed."""
        return self.metrics[1 if cells["kernel"].startswith("memcpy") else 0]

    def measurement(self, cells: Mapping[str, str], metric: Metric) -> float | None:
        """The time that the printed rate means [us]; None for what is neither product nor copy."""
        try:
            self.benchmark.work(cells)
        except UnsupportedError:
            return None
        return super().measurement(cells, metric)


_COLLECTIVE_GROUPS = "collective x ranks"


@measurement_kind
class TableCollectiveTimes(BenchmarkKind):
    """Collectives of several clusters; before those of one node, whose columns it has too."""

    benchmark = TableCollectives()
    name = benchmark.name
    required = benchmark.required
    metrics = (
        _time("one node, 1 MiB and above", _COLLECTIVE_GROUPS),
        _time("several nodes, 1 MiB and above", _COLLECTIVE_GROUPS),
        _time("below 1 MiB", _COLLECTIVE_GROUPS),
    )

    def metric_of(self, cells: Mapping[str, str]) -> Metric:
        """By message and nodes."""
        if self.benchmark.size(cells) < _MIB:
            return self.metrics[2]
        return self.metrics[0 if float(cells["n_nodes"]) == 1 else 1]


@measurement_kind
class NodeCollectiveTimes(BenchmarkKind):
    """Collectives of one node."""

    benchmark = NodeCollectives()
    name = benchmark.name
    required = benchmark.required
    metrics = (
        _time("4 MiB and above", _COLLECTIVE_GROUPS),
        _time("below 4 MiB", _COLLECTIVE_GROUPS),
    )

    def metric_of(self, cells: Mapping[str, str]) -> Metric:
        """By message."""
        return self.metrics[0 if self.benchmark.size(cells) >= 4 * _MIB else 1]
