"""What a scenario says of its plan, part by part: degrees and axes, batches, layers, schedule; checked."""

from __future__ import annotations

from dataclasses import replace

from simulator.errors import PlanError, UnsupportedError
from simulator.program.planning.admissible import check_split, check_tensor
from simulator.program.planning.axes import DEFAULT_ORDER, Axes
from simulator.program.planning.divide import layers_by_stack, layers_per_part, nearest, nearest_multiples
from simulator.program.planning.outline import Outline
from simulator.program.schedules.schedule import KEY, SCHEDULES, Placement
from simulator.specs.model import LayerListSpec, TransformerSpec
from simulator.workload.optimizers import OPTIMIZERS


def axes_of(scenario: Outline, data: int, placement: Placement) -> Axes:
    """Degrees and numbering of the ranks; sharding groups must divide the replicas."""
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


def runs_pairs(scenario: Outline, schedule: str) -> bool:
    """Whether forward and backward passes run side by side."""
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


def warnings_of(scenario: Outline, data: int) -> tuple[str, ...]:
    """What the user should know: what is slow, and what changes nothing."""
    group, parallelism = scenario.cluster, scenario.parallelism
    tensor, said = parallelism.tensor_parallel, []
    if tensor > group.domain:
        said.append(
            f"tensor_parallel {tensor} is wider than the scale-up domain of {group.domain}: "
            "its collectives cross the network between nodes"
        )
    elif group.num_gpus > group.domain and group.domain % tensor:
        said.append(
            f"tensor_parallel {tensor} does not divide the scale-up domain of {group.domain}: "
            "some of its groups cross the network between nodes, but all are taken to be like the first"
        )
    if parallelism.sharding_group_size == 1 and data * parallelism.context_parallel > 1:
        said.append("sharding_group_size 1 shares nothing out: every replica keeps all of it")
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


def refuse_unsupported(scenario: Outline) -> None:
    """Refuses what no plan is made for."""
    parallelism = scenario.parallelism
    if scenario.cluster.groups > 1:
        raise UnsupportedError(
            ("cluster", "node_groups"), "plans over several node groups are not modelled yet"
        )
    two_way = SCHEDULES[schedule_of(scenario)].layout == "two_way"
    if isinstance(scenario.model, TransformerSpec) and scenario.model.num_encoder_layers and two_way:
        raise UnsupportedError(KEY, "an encoder-decoder whose micro-batches enter at both ends")
    if isinstance(scenario.model, LayerListSpec):
        if SCHEDULES[schedule_of(scenario)].layout != "loop":
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


def replicas_of(scenario: Outline) -> int:
    """Replicas of the model that have samples of their own: what all GPUs leave room for."""
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


def micro_batches_of(scenario: Outline, data: int) -> int:
    """Micro-batches per replica and step."""
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


def layers_of(scenario: Outline, placement: Placement) -> tuple[int, ...]:
    """Layers of each part of the model."""
    model, parallelism = scenario.model, scenario.parallelism
    if not isinstance(model, TransformerSpec):
        return (len(model.layers),)
    if parallelism.encoder_pipeline_parallel is not None:
        return layers_by_stack(model, placement, parallelism)
    return layers_per_part(model.num_hidden_layers, placement, parallelism.pipeline_layers)


def shares_teacher(scenario: Outline) -> bool:
    """Whether a teacher's parameters are shared out."""
    if scenario.distillation is None:
        return False
    own = scenario.distillation.teacher_sharding
    return (own or scenario.parallelism.data_parallel_sharding) == "parameters"


def teacher_layers_of(scenario: Outline, data: int, placement: Placement) -> tuple[int, ...]:
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


def schedule_of(scenario: Outline) -> str:
    """Name of the pipeline schedule, which must go with the number of chunks."""
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
