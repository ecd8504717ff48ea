"""The typed result of one simulation: what result.json says, and tables beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulator.campaign import Campaign

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """One capacity or cause, and what more of it would be worth.

    Attributes:
        resource: Kind of capacity (``tensor``, ``memory_bandwidth``, ``scale_up``, ``scale_out``, ``pcie``,
            ``storage_read``, ...) or of wait (``pipeline_bubble``, ``latency``).
        share: Part of the critical path that it limits, 0 to 1.
        elasticity: Percent more throughput for 10 % more of it, divided by 10; None where not asked for
            or where nothing can be scaled.
    """

    resource: str
    share: float
    elasticity: float | None = None


@dataclass(frozen=True, slots=True)
class BasisNote:
    """What one input of the result rests on.

    Attributes:
        item: Such as ``accelerator H100-SXM5-80GB``.
        basis: ``datasheet``, ``measured`` or ``assumed``, the weakest of its figures that matter.
        detail: Figures that are assumed, or the source.
    """

    item: str
    basis: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of the scenario, and what it does to memory and speed.

    Attributes:
        change: Key of the scenario -> new value; None for what is left to follow from the rest.
        peak_memory_bytes: Highest memory in use with it.
        step_time_s: Time of a step with it.
        throughput_change: Relative change of throughput against the scenario if its memory sufficed.
        num_gpus: GPUs that it takes.
        fits: Whether the model fits with it.
    """

    change: dict[str, Any]
    peak_memory_bytes: int
    step_time_s: float
    throughput_change: float
    num_gpus: int
    fits: bool


@dataclass(frozen=True, slots=True)
class PeakMoment:
    """When and where memory is fullest.

    Attributes:
        stage: Pipeline stage.
        time_s: First moment of the peak, from the beginning of the first simulated step.
        running: Operators that ran, the one that needed most first.
        over_s: When that stage first needed more than there is; None where it never did.
    """

    stage: int
    time_s: float
    running: tuple[str, ...]
    over_s: float | None = None


@dataclass(frozen=True, slots=True)
class ErrorBand:
    """How far measured step times were from predicted ones, as parts of the prediction.

    Attributes:
        low: The measured time was above (1 + low) times the predicted one in nine of ten cases.
        high: It was below (1 + high) times the predicted one in nine of ten cases.
        mean: Mean absolute error, as part of the measured time.
        coverage: Part of the measurements between `low` and `high`.
        source: Measurements that the band comes from, and how they were left out.
    """

    low: float
    high: float
    mean: float
    coverage: float
    source: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """How far to trust the step time.

    Attributes:
        grade: ``calibrated on this machine``, ``interpolated`` or ``extrapolated from data sheet``.
        error_band: Error of the step time where predictions were checked; None where none were.
        outside: What lies outside of the calibrated range, such as ``precision: fp32 (measured on ...)``.
    """

    grade: str
    error_band: ErrorBand | None
    outside: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """How the step time spreads where ranks differ.

    Attributes:
        seeds: Draws.
        samples: Step times drawn: measured steps of all draws.
        mean_s: Their mean.
        p50_s: Their median.
        p95_s: What 95 % of them do not exceed.
        p99_s: What 99 % of them do not exceed.
        undisturbed_s: Step time without jitter and slow GPUs.
        slowest_replica_s: What waiting for the slowest replica costs: mean step time, less the mean of what
            each replica would take if it waited for no other.
        method: How the draws were played, and why.
    """

    seeds: int
    samples: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    undisturbed_s: float
    slowest_replica_s: float
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All that one simulation found out; times in seconds, memory in bytes.

    Attributes:
        name: Name of the scenario.
        model: Name of the model.
        accelerator: Name of the accelerator.
        num_gpus: GPUs of the plan.
        parallelism: Degrees of the plan, such as ``{"tensor_parallel": 8, ...}``.
        step_time_s: Mean time of a measured step.
        tokens_per_s: Tokens per second, all GPUs together.
        tokens_per_s_per_gpu: The same per GPU.
        samples_per_s: Sequences (samples) per second.
        model_tflops_per_gpu: Arithmetic that the model needs (recomputation not counted) per GPU and second.
        mfu: `model_tflops_per_gpu` over the peak of the training precision.
        hfu: The same with recomputation counted.
        peak_memory_bytes: Highest memory in use on any GPU.
        memory_capacity_bytes: Memory of that GPU.
        fits: Whether it fits, on the GPUs and on their hosts.
        memory_by_part: Part (``parameters``, ``gradients``, ``optimizer``, ``activations``, ...) -> bytes
            at the peak.
        memory_by_stage: Peak bytes of each pipeline stage.
        memory_by_operator: Operator -> bytes of the activations that it keeps at the peak.
        memory_by_kind: What is measured -> peak bytes: ``allocated`` (tensors), ``reserved`` (what the
            allocator holds), ``nvidia-smi`` (everything on the device).
        host_memory_bytes: Highest use of any host's memory by what is offloaded.
        host_memory_capacity_bytes: Memory of that host; 0 where nothing is offloaded.
        host_memory_by_part: Part -> bytes of it at the peak.
        drives_by_part: Part -> bytes on the drives of the node that puts most there.
        drives_capacity_bytes: What those hold; None where that is not known.
        peak_moment: When, where and under which operators the peak is reached.
        remedies: Changes with which a model that does not fit would fit, the fastest first.
        breakdown: Cause -> seconds of the step; adds up to `step_time_s`.
        bottlenecks: Ranked, the worst first.
        utilization: Kind of capacity -> mean use over the measured steps, 0 to 1.
        basis: What the figures rest on.
        evidence: How far to trust the step time.
        warnings: What the user should know.
        num_activities: Activities simulated.
        num_events: Events that the player processed.
        wall_s: Wall time of the simulation.
        player: Which player ran, and why where it was not the one asked for.
        version: Version of clustersim.
        seed: Seed.
        step_times: Spread of the step time under jitter and slow GPUs; `step_time_s` is its mean then.
        campaign: The whole training, if the scenario has one and the model fits.
        activities: A row an activity: ``id, name, cause, phase, lane, owner, stage, step, micro_batch, layer,
            ready_s, start_s, end_s, limited_by, awaited``.
        operators: A row an operator and phase: ``name, cause, phase, count, time_s, flops, bytes,
            peak_flops, memory_bandwidth, limited_by``; times and counts of one GPU of the busiest stage in
            the last measured step.
        utilization_timeline: ``time_s, kind, utilization`` in equal intervals over the measured steps.
        memory_timeline: ``time_s, stage, bytes``, a row a change.
    """

    name: str
    model: str
    accelerator: str
    num_gpus: int
    parallelism: dict[str, int]
    step_time_s: float
    tokens_per_s: float | None
    tokens_per_s_per_gpu: float | None
    samples_per_s: float | None
    model_tflops_per_gpu: float | None
    mfu: float | None
    hfu: float | None
    peak_memory_bytes: int
    memory_capacity_bytes: int
    fits: bool
    memory_by_part: dict[str, int]
    memory_by_stage: list[int]
    memory_by_operator: dict[str, int] = field(default_factory=dict)
    memory_by_kind: dict[str, int] = field(default_factory=dict)
    host_memory_bytes: int = 0
    host_memory_capacity_bytes: int = 0
    host_memory_by_part: dict[str, int] = field(default_factory=dict)
    drives_by_part: dict[str, int] = field(default_factory=dict)
    drives_capacity_bytes: int | None = None
    peak_moment: PeakMoment | None = None
    remedies: list[Remedy] = field(default_factory=list)
    breakdown: dict[str, float]
    bottlenecks: list[Bottleneck]
    utilization: dict[str, float]
    basis: list[BasisNote]
    evidence: Evidence | None = None
    warnings: list[str]
    num_activities: int
    num_events: int
    wall_s: float
    player: str
    version: str
    seed: int
    step_times: StepTimes | None = None
    campaign: Campaign | None = None
    _tables: Any = field(default=None, repr=False, compare=False)

    @property
    def activities(self) -> pd.DataFrame:
        """A row an activity."""
        frame: pd.DataFrame = self._tables.activities()
        return frame

    @property
    def operators(self) -> pd.DataFrame:
        """A row an operator and phase."""
        frame: pd.DataFrame = self._tables.operators()
        return frame

    @property
    def utilization_timeline(self) -> pd.DataFrame:
        """Use of every kind of capacity over time."""
        frame: pd.DataFrame = self._tables.utilization_timeline()
        return frame

    @property
    def link_timeline(self) -> pd.DataFrame:
        """Use of every single link and storage capacity over time: ``time_s, link, utilization``."""
        frame: pd.DataFrame = self._tables.link_timeline()
        return frame

    @property
    def memory_timeline(self) -> pd.DataFrame:
        """Memory in use over time, by stage."""
        frame: pd.DataFrame = self._tables.memory_timeline()
        return frame
