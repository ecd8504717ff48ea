"""A plan: the degrees of parallelism, checked against model, batch and cluster, with the arithmetic shown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from simulator.errors import PlanError
from simulator.program.planning.admissible import (
    check_frozen,
    check_idle,
    check_precision,
    check_split,
    check_tensor,
)
from simulator.program.planning.axes import Axes
from simulator.program.planning.degrees import (
    axes_of,
    layers_of,
    micro_batches_of,
    refuse_unsupported,
    replicas_of,
    runs_pairs,
    schedule_of,
    shares_teacher,
    teacher_layers_of,
    warnings_of,
)
from simulator.program.planning.outline import ClusterShape, Outline
from simulator.program.planning.precisions import check_precisions
from simulator.program.planning.recomputation import check_recomputation
from simulator.program.schedules.order import Visits, merged, own_order, visits
from simulator.program.schedules.schedule import SCHEDULES, Held, Order, Placement
from simulator.scenario import Scenario
from simulator.specs.model import TransformerSpec

KEPT_PLANS: Final = 256
"""Plans that are kept at most, and models laid out by them: a search looks at many before it plays some."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """What replicas share out, and when they communicate for it.

    Attributes:
        optimizer: Whether the optimizer's state is shared out.
        gradients: Whether accumulated gradients are.
        parameters: Whether parameters are.
        reshard: Whether gathered parameters are let go between forward and backward pass.
        prefetch: Layers gathered ahead in a forward pass.
        prefetch_backward: The same in a backward pass.
        each: Whether gradients are reduced after each micro-batch.
        teacher: Whether a teacher's parameters are shared out.
    """

    optimizer: bool = False
    gradients: bool = False
    parameters: bool = False
    reshard: bool = True
    prefetch: int = 1
    prefetch_backward: int = 1
    each: bool = False
    teacher: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Who does what: degrees, batches and the place of every axis on the nodes.

    Attributes:
        group: Shape of the nodes that the plan runs on.
        axes: Degrees and numbering of the ranks.
        virtual_pipeline: Chunks of layers per stage.
        data_parallel: Replicas of the model that have samples of their own.
        num_micro_batches: Micro-batches per replica and step.
        layers_per_part: Layers of each part of the model, in the order in which samples visit them.
        schedule: Name of the pipeline schedule.
        placement: Where the parts lie on the stages.
        sharding: What replicas share out.
        teacher_layers_per_part: Layers of a teacher in each part; empty without one.
        own_order: The user's own order of passes, if any.
        pairs: Whether forward and backward passes run side by side.
        warnings: What the user should know.
    """

    group: ClusterShape
    axes: Axes
    virtual_pipeline: int
    data_parallel: int
    num_micro_batches: int
    layers_per_part: tuple[int, ...]
    schedule: str
    placement: Placement
    sharding: Sharding
    teacher_layers_per_part: tuple[int, ...] = ()
    own_order: Order | None = None
    pairs: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def tensor_parallel(self) -> int:
        """GPUs that each matrix is split over."""
        return self.axes.along("tensor")

    @property
    def pipeline_parallel(self) -> int:
        """Stages."""
        return self.axes.along("pipeline")

    @property
    def context_parallel(self) -> int:
        """GPUs that each sequence is split over."""
        return self.axes.along("context")

    @property
    def num_gpus(self) -> int:
        """GPUs that the plan uses."""
        return self.axes.num_ranks

    @property
    def num_gpus_per_stage(self) -> int:
        """GPUs that hold the same stage, folded into one representative."""
        return self.num_gpus // self.pipeline_parallel

    def visits(self, held: tuple[Held, ...] = ()) -> Visits:
        """All passes of a step in an order in which nothing comes before what it depends on.

        Args:
            held: What a micro-batch takes on each stage; as much put off as in flight if not given.
        """
        if self.own_order is not None:
            return merged(self.own_order, self.placement, pairs=self.pairs)
        return visits(
            self.schedule,
            self.pipeline_parallel,
            self.num_micro_batches,
            self.placement.chunks,
            pairs=self.pairs,
            held=held,
        )

    def degree(self, group: str) -> int:
        """Ranks in one group."""
        return len(self.axes.members(group))

    def ranks_per_domain(self, group: str) -> int:
        """Members of one group that share a scale-up domain."""
        return max(1, int((self.axes.members(group) < self.group.domain).sum()))


def make_plan(scenario: Scenario) -> Plan:
    """The plan of a scenario.

    Raises:
        PlanError: Something does not divide or does not match; the message shows the arithmetic.
        UnsupportedError: Something legal that is not modelled yet.
    """
    plan = plan_of(Outline.of(scenario))
    check_precision(scenario)
    return plan


@lru_cache(maxsize=KEPT_PLANS)
def plan_of(scenario: Outline) -> Plan:
    """The plan of all scenarios of an outline, made once; `make_plan` says what it raises."""
    refuse_unsupported(scenario)
    parallelism = scenario.parallelism
    if isinstance(scenario.model, TransformerSpec):
        check_tensor(scenario, scenario.model)
    data = replicas_of(scenario)
    if isinstance(scenario.model, TransformerSpec):
        check_split(scenario, scenario.model, data)
    check_idle(scenario)
    check_precisions(scenario)
    check_frozen(scenario)
    schedule = schedule_of(scenario)
    placement = SCHEDULES[schedule].placement(parallelism.pipeline_parallel, parallelism.virtual_pipeline)
    micro_batches = micro_batches_of(scenario, data)
    layers = layers_of(scenario, placement)
    check_recomputation(scenario, layers)
    return Plan(
        group=scenario.cluster,
        axes=axes_of(scenario, data, placement),
        virtual_pipeline=placement.chunks,
        data_parallel=data,
        num_micro_batches=micro_batches,
        layers_per_part=layers,
        schedule=schedule,
        placement=placement,
        sharding=_sharding(scenario),
        teacher_layers_per_part=teacher_layers_of(scenario, data, placement),
        own_order=own_order(parallelism.pipeline_order, placement, micro_batches),
        pairs=runs_pairs(scenario, schedule),
        warnings=warnings_of(scenario, data),
    )


def _sharding(scenario: Outline) -> Sharding:
    parallelism = scenario.parallelism
    level = ("none", "optimizer", "gradients", "parameters").index(parallelism.data_parallel_sharding)
    each, backward = parallelism.reduce_each_micro_batch, parallelism.gather_prefetch_backward
    leave = scenario.training.offload.gradients is not None
    if leave and each is False:
        raise PlanError(
            ("parallelism", "reduce_each_micro_batch"),
            "false keeps gradients on the GPU, but training.offload.gradients wants them off it",
        )
    if not parallelism.reshard_after_forward and parallelism.pipeline_parallel > 1:
        raise PlanError(
            ("parallelism", "reshard_after_forward"),
            "false keeps the gathered parameters of every micro-batch in flight; "
            "with a pipeline, shard gradients instead",
        )
    return Sharding(
        optimizer=level >= 1,
        gradients=level >= 2,
        parameters=level >= 3,
        reshard=parallelism.reshard_after_forward,
        prefetch=parallelism.gather_prefetch,
        prefetch_backward=parallelism.gather_prefetch if backward is None else backward,
        each=level >= 2 or leave if each is None else each,
        teacher=shares_teacher(scenario),
    )
