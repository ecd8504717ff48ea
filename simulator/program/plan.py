"""A plan: the degrees of parallelism, checked against model, batch and cluster, with the arithmetic shown."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.errors import PlanError, UnsupportedError
from simulator.scenario import Scenario
from simulator.specs.hardware import NodeGroupSpec
from simulator.specs.model import LayerListSpec, TransformerSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """Who does what: degrees, batches and the place of every axis on the nodes.

    Ranks are numbered with the tensor axis innermost, then data, then pipeline: stage `p` of replica `d`
    holds ranks ``(p * data_parallel + d) * tensor_parallel + t``.

    Attributes:
        group: The nodes that the plan runs on.
        tensor_parallel: GPUs that each matrix is split over.
        pipeline_parallel: Stages.
        virtual_pipeline: Chunks of layers per stage.
        data_parallel: Replicas.
        num_micro_batches: Micro-batches per replica and step.
        layers_per_chunk: Layers of each chunk, in the order of the virtual stages.
        schedule: Name of the pipeline schedule.
        warnings: What the user should know.
    """

    group: NodeGroupSpec
    tensor_parallel: int
    pipeline_parallel: int
    virtual_pipeline: int
    data_parallel: int
    num_micro_batches: int
    layers_per_chunk: tuple[int, ...]
    schedule: str
    warnings: tuple[str, ...] = ()

    @property
    def num_gpus(self) -> int:
        """GPUs that the plan uses."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def num_gpus_per_stage(self) -> int:
        """GPUs that hold the same stage, folded into one representative."""
        return self.tensor_parallel * self.data_parallel

    def first_layer(self, stage: int, chunk: int) -> int:
        """Number of the first layer of a stage's chunk."""
        return sum(self.layers_per_chunk[: chunk * self.pipeline_parallel + stage])

    def stride(self, axis: str) -> int:
        """Distance in ranks between neighbours along an axis."""
        return {
            "tensor": 1,
            "data": self.tensor_parallel,
            "pipeline": self.tensor_parallel * self.data_parallel,
        }[axis]

    def degree(self, axis: str) -> int:
        """Ranks along an axis."""
        return {
            "tensor": self.tensor_parallel,
            "data": self.data_parallel,
            "pipeline": self.pipeline_parallel,
        }[axis]

    def ranks_per_domain(self, axis: str) -> int:
        """Members of one group along an axis that share a scale-up domain."""
        return max(1, min(self.degree(axis), self.group.domain // self.stride(axis)))


def make_plan(scenario: Scenario) -> Plan:
    """The plan of a scenario.

    Raises:
        PlanError: Something does not divide or does not match; the message shows the arithmetic.
        UnsupportedError: Something legal that is not modelled yet.
    """
    _refuse_unsupported(scenario)
    parallelism = scenario.parallelism
    tensor, pipeline = parallelism.tensor_parallel, parallelism.pipeline_parallel
    data = _data_parallel(scenario)
    if isinstance(scenario.model, TransformerSpec):
        _check_tensor_split(scenario, scenario.model)
    return Plan(
        group=scenario.cluster.node_groups[0],
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        virtual_pipeline=parallelism.virtual_pipeline,
        data_parallel=data,
        num_micro_batches=_micro_batches(scenario, data),
        layers_per_chunk=_layers_per_chunk(scenario),
        schedule=_schedule(scenario),
        warnings=_warnings(scenario),
    )


def _warnings(scenario: Scenario) -> tuple[str, ...]:
    group, tensor = scenario.cluster.node_groups[0], scenario.parallelism.tensor_parallel
    if tensor > group.domain:
        return (
            f"tensor_parallel {tensor} is wider than the scale-up domain of {group.domain}: "
            "its collectives cross the network between nodes",
        )
    return ()


def _refuse_unsupported(scenario: Scenario) -> None:
    parallelism = scenario.parallelism
    if len(scenario.cluster.node_groups) > 1:
        raise UnsupportedError(
            ("cluster", "node_groups"), "plans over several node groups are not modelled yet"
        )
    for key in ("context_parallel", "expert_parallel"):
        if getattr(parallelism, key) > 1:
            raise UnsupportedError(("parallelism", key), f"{key} above 1 is not modelled yet; leave it at 1")
    if parallelism.data_parallel_sharding in ("gradients", "parameters"):
        raise UnsupportedError(
            ("parallelism", "data_parallel_sharding"),
            f'"{parallelism.data_parallel_sharding}" is not modelled yet; "none" and "optimizer" are',
        )
    if isinstance(scenario.model, LayerListSpec):
        for key in ("tensor_parallel", "pipeline_parallel"):
            if getattr(parallelism, key) > 1:
                raise UnsupportedError(
                    ("parallelism", key), "a model given layer by layer can be data-parallel only"
                )


def _data_parallel(scenario: Scenario) -> int:
    parallelism, gpus = scenario.parallelism, scenario.cluster.num_gpus
    tensor, pipeline = parallelism.tensor_parallel, parallelism.pipeline_parallel
    model_ranks = tensor * pipeline
    product = f"tensor_parallel {tensor} x pipeline_parallel {pipeline}"
    if parallelism.data_parallel is None:
        if gpus % model_ranks:
            raise PlanError(
                ("parallelism",),
                f"{product} = {model_ranks} does not divide the cluster's {gpus} GPUs "
                f"({_nearest(gpus, model_ranks)})",
            )
        return gpus // model_ranks
    total = model_ranks * parallelism.data_parallel
    if total != gpus:
        raise PlanError(
            ("parallelism", "data_parallel"),
            f"{product} x data_parallel {parallelism.data_parallel} = {total} GPUs, "
            f"but the cluster has {gpus}",
        )
    return parallelism.data_parallel


def _micro_batches(scenario: Scenario, data: int) -> int:
    training = scenario.training
    at_once = training.micro_batch_size * data
    if training.global_batch_size % at_once:
        raise PlanError(
            ("training", "global_batch_size"),
            f"{training.global_batch_size} is not a multiple of "
            f"micro_batch_size {training.micro_batch_size} x data_parallel {data} = {at_once}; "
            f"{_nearest_multiples(training.global_batch_size, at_once)}",
        )
    return training.global_batch_size // at_once


def _layers_per_chunk(scenario: Scenario) -> tuple[int, ...]:
    parallelism = scenario.parallelism
    chunks = parallelism.pipeline_parallel * parallelism.virtual_pipeline
    if not isinstance(scenario.model, TransformerSpec):
        return (len(scenario.model.layers),)
    layers = scenario.model.num_hidden_layers
    if chunks > layers or layers % chunks:
        raise PlanError(
            ("parallelism", "pipeline_parallel"),
            f"pipeline_parallel {parallelism.pipeline_parallel} x "
            f"virtual_pipeline {parallelism.virtual_pipeline} = {chunks} does not divide "
            f"num_hidden_layers: {layers} ({_nearest(layers, chunks)})",
        )
    return (layers // chunks,) * chunks


def _check_tensor_split(scenario: Scenario, model: TransformerSpec) -> None:
    parallelism, tensor = scenario.parallelism, scenario.parallelism.tensor_parallel
    key = ("parallelism", "tensor_parallel")
    for name in ("num_attention_heads", "intermediate_size"):
        value = getattr(model, name)
        if value % tensor:
            raise PlanError(key, f"{tensor} does not divide {name}: {value} ({_nearest(value, tensor)})")
    heads = model.num_key_value_heads
    if heads % tensor and tensor % heads:
        raise PlanError(key, f"{tensor} and num_key_value_heads: {heads} do not divide one another")
    if parallelism.sequence_parallel and scenario.training.sequence_length % tensor:
        raise PlanError(
            ("parallelism", "sequence_parallel"),
            f"tensor_parallel {tensor} does not divide sequence_length: {scenario.training.sequence_length}",
        )


def _schedule(scenario: Scenario) -> str:
    parallelism = scenario.parallelism
    pipeline, chunks = parallelism.pipeline_parallel, parallelism.virtual_pipeline
    name = parallelism.pipeline_schedule or ("interleaved_1f1b" if chunks > 1 else "1f1b")
    if chunks > 1 and pipeline == 1:
        raise PlanError(
            ("parallelism", "virtual_pipeline"), f"{chunks} chunks a stage need pipeline_parallel above 1"
        )
    if (name == "interleaved_1f1b") != (chunks > 1):
        raise PlanError(
            ("parallelism", "pipeline_schedule"), f'"{name}" does not go with virtual_pipeline: {chunks}'
        )
    return name


def _nearest(total: int, wanted: int) -> str:
    """The divisors of `total` on both sides of `wanted`, in words."""
    divisors = [d for d in range(1, min(total, 100_000) + 1) if total % d == 0]
    below = max((d for d in divisors if d < wanted), default=None)
    above = min((d for d in divisors if d > wanted), default=None)
    names = [str(d) for d in (below, above) if d is not None]
    return f"{' and '.join(names)} {'do' if len(names) > 1 else 'does'}"


def _nearest_multiples(value: int, of: int) -> str:
    below = value // of * of
    return f"{below} and {below + of} are" if below else f"{of} is"
