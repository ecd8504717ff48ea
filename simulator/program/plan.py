"""A plan: the degrees of parallelism, checked against model, batch and cluster, with the arithmetic shown."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.errors import PlanError, UnsupportedError
from simulator.program.admissible import check_frozen, check_idle, check_precision, check_split, check_tensor
from simulator.program.axes import DEFAULT_ORDER, Axes
from simulator.program.divide import layers_by_stack, layers_per_part, nearest, nearest_multiples
from simulator.program.order import Visits, merged, own_order, visits
from simulator.program.outline import ClusterShape, Outline
from simulator.program.precisions import check_precisions
from simulator.program.recomputation import check_recomputation
from simulator.program.schedules import KEY, SCHEDULES, Held, Order, Placement
from simulator.scenario import Scenario
from simulator.specs.model import LayerListSpec, TransformerSpec
from simulator.workload.optimizers import OPTIMIZERS


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


def plan_of(scenario: Outline) -> Plan:
    """The plan of all scenarios of an outline; `make_plan` says what it raises."""
    _refuse_unsupported(scenario)
    parallelism = scenario.parallelism
    if isinstance(scenario.model, TransformerSpec):
        check_tensor(scenario, scenario.model)
    data = _data_parallel(scenario)
    if isinstance(scenario.model, TransformerSpec):
        check_split(scenario, scenario.model, data)
    check_idle(scenario)
    check_precisions(scenario)
    check_frozen(scenario)
    schedule = _schedule(scenario)
    placement = SCHEDULES[schedule].placement(parallelism.pipeline_parallel, parallelism.virtual_pipeline)
    micro_batches = _micro_batches(scenario, data)
    layers = _layers_per_part(scenario, placement)
    check_recomputation(scenario, layers)
    return Plan(
        group=scenario.cluster,
        axes=_axes(scenario, data, placement),
        virtual_pipeline=placement.chunks,
        data_parallel=data,
        num_micro_batches=micro_batches,
        layers_per_part=layers,
        schedule=schedule,
        placement=placement,
        sharding=_sharding(scenario),
        teacher_layers_per_part=_teacher_layers(scenario, data, placement),
        own_order=own_order(parallelism.pipeline_order, placement, micro_batches),
        pairs=_pairs(scenario, schedule),
        warnings=_warnings(scenario, data),
    )


def _axes(scenario: Outline, data: int, placement: Placement) -> Axes:
    parallelism = scenario.parallelism
    if sorted(parallelism.order) != sorted(DEFAULT_ORDER):
        raise PlanError(
            ("parallelism", "order"), f"must name each of {', '.join(DEFAULT_ORDER)} once, innermost first"
        )
    degrees = {
        "tensor": parallelism.tensor_parallel,
        "context": parallelism.context_parallel,
        "data": data,
        "pipeline": parallelism.pipeline_parallel,
    }
    copies = 2 if placement.layout == "two_way" else 1
    share = data * parallelism.context_parallel * copies
    group = parallelism.sharding_group_size or share
    if share % group:
        raise PlanError(
            ("parallelism", "sharding_group_size"),
            f"{group} does not divide the {share} replicas ({nearest(share, group)})",
        )
    if group < share and (share // copies) % group:
        raise PlanError(
            ("parallelism", "sharding_group_size"),
            f"{group} does not divide the {share // copies} replicas at each end of the pipeline "
            f"({nearest(share // copies, group)})",
        )
    _check_expert_groups(scenario, share, group, copies)
    return Axes(
        order=tuple(parallelism.order),
        degrees=tuple(degrees[axis] for axis in parallelism.order),
        expert_parallel=parallelism.expert_parallel,
        expert_tensor_parallel=parallelism.expert_tensor_parallel or parallelism.tensor_parallel,
        sharding_group=group,
        copies=copies,
    )


def _check_expert_groups(scenario: Outline, share: int, group: int, copies: int) -> None:
    """Refuses groups that share out dense state and cut through those that hold the same experts."""
    parallelism = scenario.parallelism
    if not isinstance(scenario.model, TransformerSpec) or scenario.model.mixture is None:
        return
    split = parallelism.expert_tensor_parallel or parallelism.tensor_parallel
    same = share * parallelism.tensor_parallel // (parallelism.expert_parallel * split)

    def fits(size: int) -> bool:
        parts = share // size
        return same % parts == 0 and (parts == 1 or same // copies % (same // parts) == 0)

    if not fits(group):
        legal = [size for size in range(1, share + 1) if share % size == 0 and fits(size)]
        near = ", ".join(str(size) for size in sorted(legal, key=lambda size: abs(size - group))[:2])
        raise PlanError(
            ("parallelism", "sharding_group_size"),
            f"{group} makes {share // group} groups of the {share} replicas, but only {same} GPUs hold the "
            f"same experts, whose state is shared out in as many groups (nearest that work: {near})",
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
        teacher=_shares_teacher(scenario),
    )


def _pairs(scenario: Outline, schedule: str) -> bool:
    parallelism, model = scenario.parallelism, scenario.model
    wanted = parallelism.overlap_expert_exchange
    exchanges = isinstance(model, TransformerSpec) and parallelism.expert_parallel > 1
    if wanted and not exchanges:
        raise PlanError(("parallelism", "overlap_expert_exchange"), "there is no exchange among experts")
    by_layer = parallelism.data_parallel_sharding == "parameters" or scenario.training.offload.parameters
    if wanted and by_layer:
        raise UnsupportedError(
            ("parallelism", "overlap_expert_exchange"),
            "not modelled where parameters are gathered layer by layer",
        )
    usual = schedule.startswith("dualpipe") and not by_layer
    return exchanges and (usual if wanted is None else wanted)


def _warnings(scenario: Outline, data: int) -> tuple[str, ...]:
    group, parallelism = scenario.cluster, scenario.parallelism
    tensor, said = parallelism.tensor_parallel, []
    if tensor > group.domain:
        said.append(
            f"tensor_parallel {tensor} is wider than the scale-up domain of {group.domain}: "
            "its collectives cross the network between nodes"
        )
    # Legal, for sweeps go down to degrees of 1, but worth a word.
    of_reductions = ("reduce_each_micro_batch", "overlap_gradient_reduction", "gradient_bucket")
    idle = [(key, "there is one replica: no gradients are reduced") for key in of_reductions]
    same = data * parallelism.context_parallel
    if isinstance(scenario.model, TransformerSpec) and scenario.model.mixture is not None:
        split = parallelism.expert_tensor_parallel or tensor
        same = max(same, same * tensor // (split * parallelism.expert_parallel))
    if same > 1 or scenario.training.offload.gradients:
        idle = []
    if parallelism.pipeline_parallel == 1:
        idle.append(("overlap_point_to_point", "there is one stage: nothing is sent on"))
    said += [f"{key} changes nothing: {why}" for key, why in idle if getattr(parallelism, key) is not None]
    if parallelism.expert_imbalance != 1.0 and parallelism.expert_parallel == 1:
        said.append("expert_imbalance changes nothing: every GPU has all experts")
    sent = scenario.training.communication_precision
    if parallelism.expert_parallel == 1 and (sent.dispatch or sent.combine):
        said.append("communication_precision of dispatch and combine changes nothing: no token travels")
    if parallelism.sequence_parallel and tensor == 1:
        said.append("sequence_parallel changes nothing: tensor_parallel is 1")
    return tuple(said)


def _refuse_unsupported(scenario: Outline) -> None:
    parallelism = scenario.parallelism
    if scenario.cluster.groups > 1:
        raise UnsupportedError(
            ("cluster", "node_groups"), "plans over several node groups are not modelled yet"
        )
    two_way = SCHEDULES[_schedule(scenario)].layout == "two_way"
    if isinstance(scenario.model, TransformerSpec) and scenario.model.num_encoder_layers and two_way:
        raise UnsupportedError(KEY, "an encoder-decoder whose micro-batches enter at both ends")
    if isinstance(scenario.model, LayerListSpec):
        if SCHEDULES[_schedule(scenario)].layout != "loop":
            raise UnsupportedError(KEY, "a model given layer by layer has one stage")
        if OPTIMIZERS[scenario.training.optimizer].orthogonal:
            raise UnsupportedError(
                ("training", "optimizer"),
                f"{scenario.training.optimizer} works on matrices of a transformer's layers; "
                "those of a model given layer by layer are not told apart",
            )
        for key in ("tensor_parallel", "pipeline_parallel", "context_parallel", "expert_parallel"):
            if getattr(parallelism, key) > 1:
                raise UnsupportedError(
                    ("parallelism", key), "a model given layer by layer can be data-parallel only"
                )


def _data_parallel(scenario: Outline) -> int:
    parallelism, gpus = scenario.parallelism, scenario.cluster.num_gpus
    tensor, pipeline = parallelism.tensor_parallel, parallelism.pipeline_parallel
    context = parallelism.context_parallel
    model_ranks = tensor * pipeline * context
    product = f"tensor_parallel {tensor} x pipeline_parallel {pipeline}"
    if context > 1:
        product += f" x context_parallel {context}"
    if parallelism.data_parallel is None:
        if gpus % model_ranks:
            raise PlanError(
                ("parallelism",),
                f"{product} = {model_ranks} does not divide the cluster's {gpus} GPUs "
                f"({nearest(gpus, model_ranks)})",
            )
        return gpus // model_ranks
    total = model_ranks * parallelism.data_parallel
    if total != gpus:
        raise PlanError(
            ("parallelism", "data_parallel"),
            f"{product} x data_parallel {parallelism.data_parallel} = {total} GPUs, "
            f"but the cluster has {gpus}"
            + (f"; data_parallel {gpus // model_ranks} takes them all" if gpus % model_ranks == 0 else ""),
        )
    return parallelism.data_parallel


def _micro_batches(scenario: Outline, data: int) -> int:
    training = scenario.training
    at_once = training.micro_batch_size * data
    if training.global_batch_size % at_once:
        raise PlanError(
            ("training", "global_batch_size"),
            f"{training.global_batch_size} is not a multiple of "
            f"micro_batch_size {training.micro_batch_size} x data_parallel {data} = {at_once}; "
            f"{nearest_multiples(training.global_batch_size, at_once)}",
        )
    return training.global_batch_size // at_once


def _layers_per_part(scenario: Outline, placement: Placement) -> tuple[int, ...]:
    model, parallelism = scenario.model, scenario.parallelism
    if not isinstance(model, TransformerSpec):
        return (len(model.layers),)
    if parallelism.encoder_pipeline_parallel is not None:
        return layers_by_stack(model, placement, parallelism)
    return layers_per_part(model.num_hidden_layers, placement, parallelism.pipeline_layers)


def _shares_teacher(scenario: Outline) -> bool:
    if scenario.distillation is None:
        return False
    own = scenario.distillation.teacher_sharding
    return (own or scenario.parallelism.data_parallel_sharding) == "parameters"


def _teacher_layers(scenario: Outline, data: int, placement: Placement) -> tuple[int, ...]:
    """Layers of the teacher in each part; refuses one that cannot be split as the student is.

    Raises:
        PlanError: As for the student, with the teacher's sizes.
    """
    if scenario.distillation is None:
        return ()
    teacher = scenario.distillation.teacher
    if not scenario.parallelism.reshard_after_forward:
        raise UnsupportedError(
            ("parallelism", "reshard_after_forward"),
            "false would keep the teacher's parameters gathered, too",
        )
    # It has no adapters, and without experts no part in how the student's are spread.
    parallelism, training = scenario.parallelism, scenario.training.model_copy(update={"lora_rank": 0})
    if teacher.mixture is None:
        parallelism = parallelism.model_copy(update={"expert_parallel": 1})
    its = replace(scenario, parallelism=parallelism, training=training)
    try:
        check_tensor(its, teacher)
        check_split(its, teacher, data)
        return layers_per_part(teacher.num_hidden_layers, placement)
    except UnsupportedError as error:
        raise UnsupportedError(error.path, f"teacher {teacher.name}: {error.message}") from error
    except PlanError as error:
        raise PlanError(error.path, f"teacher {teacher.name}: {error.message}") from error


def _schedule(scenario: Outline) -> str:
    parallelism = scenario.parallelism
    pipeline, chunks = parallelism.pipeline_parallel, parallelism.virtual_pipeline
    name = parallelism.pipeline_schedule or ("interleaved_1f1b" if chunks > 1 else "1f1b")
    if chunks > 1 and pipeline == 1:
        raise PlanError(
            ("parallelism", "virtual_pipeline"), f"{chunks} chunks a stage need pipeline_parallel above 1"
        )
    takes = SCHEDULES[name].chunks
    fits = chunks > 1 if takes is None else chunks in (1, takes)
    if not fits:
        wanted = "2 or more" if takes is None else " or ".join(str(number) for number in sorted({1, takes}))
        raise PlanError(KEY, f'"{name}" does not go with virtual_pipeline: {chunks}, only with {wanted}')
    return name
