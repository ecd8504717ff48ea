"""What a plan asks of model, batch and accelerator, refused with the arithmetic shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

from simulator.errors import PlanError, UnsupportedError
from simulator.program.planning.divide import nearest, nearest_multiples
from simulator.program.planning.outline import Outline
from simulator.scenario import Scenario
from simulator.specs.hardware import Precision
from simulator.specs.model import LayerListSpec, MixtureSpec, TransformerSpec
from simulator.specs.training import ParallelismSpec
from simulator.workload import lora
from simulator.workload.names import frozen_names, parameter_names
from simulator.workload.precision import FORMATS, RECIPES, base_precision, matrix_precision

_TENSOR = ("parallelism", "tensor_parallel")
_CONTEXT = ("parallelism", "context_parallel")
_EXPERT = ("parallelism", "expert_parallel")


def check_split(scenario: Outline, model: TransformerSpec, data: int) -> None:
    """Refuses splits that do not divide what they split.

    Args:
        scenario: The outline.
        model: Its transformer.
        data: Replicas.

    Raises:
        PlanError: With the nearest degrees that do.
        UnsupportedError: Something legal that is not modelled.
    """
    _check_context(scenario, model)
    if model.num_nextn_predict_layers:
        _check_ahead(scenario)
    mixture, parallelism = model.mixture, scenario.parallelism
    if mixture is not None:
        _check_experts(scenario, mixture, data)
    elif parallelism.expert_parallel > 1:
        raise PlanError(_EXPERT, f"{parallelism.expert_parallel}, but the model has no experts")
    if scenario.training.lora_rank:
        _check_adapters(scenario, model)


def _check_ahead(scenario: Outline) -> None:
    """Refuses what is not modelled where a model predicts tokens further on."""
    training, parallelism = scenario.training, scenario.parallelism
    beside = {
        "parallelism.tensor_parallel": parallelism.tensor_parallel > 1,
        "parallelism.context_parallel": parallelism.context_parallel > 1,
        "training.lora_rank": training.lora_rank > 0,
        "training.frozen": bool(training.frozen),
        "training.frozen_layers": training.frozen_layers > 0,
        "distillation": scenario.distillation is not None,
    }
    for key, there in beside.items():
        if there:
            raise UnsupportedError(
                ("model", "num_nextn_predict_layers"), f"modules that look ahead are not modelled with {key}"
            )


def check_idle(scenario: Outline) -> None:
    """Refuses settings that would change nothing: what they are about is not there.

    Raises:
        PlanError: Names the setting and what it would need.
    """
    for block, needs in (("parallelism", _of_parallelism(scenario)), ("training", _of_training(scenario))):
        settings = getattr(scenario, block)
        for need in needs:
            for key in need.keys:
                changed = getattr(settings, key) != type(settings).model_fields[key].default
                if changed and not need.met:
                    raise PlanError((block, key), f"does nothing without {need.what}")


class _Need(NamedTuple):
    """What settings are about, and whether it is there."""

    keys: tuple[str, ...]
    met: bool
    what: str


def _of_parallelism(scenario: Outline) -> Iterator[_Need]:
    plan, training, model = scenario.parallelism, scenario.training, scenario.model
    sharding = plan.data_parallel_sharding
    gathers = sharding == "parameters" or training.offload.parameters is not None
    gathering = ("reshard_after_forward", "gather_prefetch", "gather_prefetch_backward")
    yield _Need(gathering, gathers, "sharded or offloaded parameters")
    again = "reshard_after_forward: nothing is gathered in a backward pass"
    yield _Need(("gather_prefetch_backward",), plan.reshard_after_forward, again)
    yield _Need(("sharding_group_size",), sharding != "none", "data_parallel_sharding")
    yield _Need(("context_parallel_method",), plan.context_parallel > 1, "context_parallel above 1")
    mixture = isinstance(model, TransformerSpec) and model.mixture is not None
    routed = ("expert_tensor_parallel", "expert_capacity_factor", "expert_imbalance")
    yield _Need(routed, mixture, "a model with routed experts")
    clips = plan.pipeline_parallel > 1 and training.gradient_clipping
    needed = "pipeline_parallel above 1 and gradient_clipping"
    yield _Need(("optimizer_post_validation",), clips, needed)
    whole = "whole parameters on each GPU: sharded ones are reduced layer by layer"
    yield _Need(("gradient_bucket",), sharding != "parameters", whole)


def _of_training(scenario: Outline) -> Iterator[_Need]:
    training, model = scenario.training, scenario.model
    transformer = isinstance(model, TransformerSpec)
    yield _Need(("lora_targets",), training.lora_rank > 0, "lora_rank above 0")
    yield _Need(("lora_rank", "attention", "dropout"), transformer, "a transformer")
    encoder = isinstance(model, TransformerSpec) and model.family == "encoder"
    yield _Need(("predicted_share",), encoder, "an encoder")
    kept = training.parameter_precision or base_precision(training.precision)
    shorter = FORMATS[kept].bits < FORMATS["fp32"].bits
    yield _Need(("master_parameters",), shorter, "parameters in 16 bits or fewer")


def check_frozen(scenario: Outline) -> None:
    """Refuses frozen parameters that leave nothing to train, or that cannot be frozen apart.

    Raises:
        PlanError: With the arithmetic, or the nearest names.
        UnsupportedError: The embedding is trained as the head.
    """
    model, training, key = scenario.model, scenario.training, ("training", "frozen_layers")
    number, adapted = training.frozen_layers, training.lora_rank > 0
    if not number and not training.frozen:
        return
    if training.frozen and adapted:
        raise PlanError(
            ("training", "frozen"),
            "does nothing beside lora_rank, which trains adapters alone; see lora_targets",
        )
    total = len(model.layers) if isinstance(model, LayerListSpec) else model.num_hidden_layers
    if number > total:
        raise PlanError(key, f"{number} layers, but the model has {total}")
    if number == total and adapted:
        raise PlanError(key, f"{number} of {total} layers leave none with adapters, and nothing to train")
    if number and isinstance(model, TransformerSpec) and not adapted:
        if model.family == "encoder-decoder":
            raise UnsupportedError(
                key, "the stacks share one embedding; name what is frozen: frozen: [encoder]"
            )
        if model.tie_word_embeddings:
            raise UnsupportedError(
                key,
                "the embedding is the head's matrix, too, and cannot be frozen apart from it; name the "
                f"layers alone, frozen: [layers.0-{number - 1}], or embedding with them",
            )
    try:
        fixed = frozen_names(model, training)
    except LookupError as error:
        raise PlanError(("training", "frozen"), str(error.args[0])) from error
    if not adapted and fixed.issuperset(parameter_names(model)):
        if training.frozen:
            raise PlanError(("training", "frozen"), "leaves none with parameters to train")
        raise PlanError(key, f"{number} of {total} layers leave none with parameters to train")


def check_precision(scenario: Scenario) -> None:
    """Refuses precisions that the accelerator has no rate for.

    Raises:
        UnsupportedError: Lists those that it has.
    """
    accelerator = scenario.cluster.node_groups[0].accelerator
    precision = scenario.training.precision
    recipe, rates = RECIPES.get(precision), accelerator.peak_flops
    has = f"it has: {', '.join(rates)}"
    key = ("training", "precision")
    if recipe is None:
        return
    for needed in (matrix_precision(precision), recipe.base):
        if cast(Precision, needed) not in rates:
            raise UnsupportedError(
                key, f'{accelerator.name} has no matrix rate for "{needed}", as {precision} needs; {has}'
            )
    if FORMATS[precision].block_units and "fp4" not in rates:
        raise UnsupportedError(
            key, f"{accelerator.name} has no matrix units that scale by blocks, as {precision} needs; {has}"
        )


def check_tensor(scenario: Outline, model: TransformerSpec) -> None:
    """Refuses a tensor-parallel degree that does not divide the matrices.

    Raises:
        PlanError: With the nearest degrees that do.
    """
    parallelism, tensor = scenario.parallelism, scenario.parallelism.tensor_parallel
    for name in ("num_attention_heads", "intermediate_size"):
        value = getattr(model, name)
        if value % tensor:
            raise PlanError(_TENSOR, f"{tensor} does not divide {name}: {value} ({nearest(value, tensor)})")
    heads = model.num_key_value_heads
    if heads % tensor and tensor % heads:
        raise PlanError(
            _TENSOR,
            f"{tensor} and num_key_value_heads: {heads} do not divide one another ({nearest(heads, tensor)})",
        )
    for key in ("sequence_length", "decoder_sequence_length"):
        length, ranks = getattr(scenario.training, key) or 0, tensor * parallelism.context_parallel
        if parallelism.sequence_parallel and length % ranks:
            raise PlanError(
                ("parallelism", "sequence_parallel"),
                f"tensor_parallel {tensor} x context_parallel {parallelism.context_parallel} = {ranks} "
                f"does not divide {key}: {length}; of lengths, {nearest_multiples(length, ranks)} multiples",
            )


def _check_context(scenario: Outline, model: TransformerSpec) -> None:
    parallelism, training = scenario.parallelism, scenario.training
    context, length = parallelism.context_parallel, training.sequence_length
    if context == 1:
        return
    for key in ("sequence_length", "decoder_sequence_length"):
        tokens = getattr(training, key) or 0
        # Where heads are split, or no mask is, all do the same; else two chunks each make it even.
        masked = model.family == "decoder" or key == "decoder_sequence_length"
        chunks = 2 if masked and parallelism.context_parallel_method != "all_to_all" else 1
        if tokens % (chunks * context):
            raise PlanError(
                _CONTEXT,
                f"{chunks} x {context} chunks do not divide {key}: {tokens}; "
                f"of lengths, {nearest_multiples(tokens, chunks * context)} multiples",
            )
    if (training.attention or scenario.software.attention) != "fused":
        raise UnsupportedError(_CONTEXT, "a split sequence needs attention: fused")
    window = model.sliding_window or length
    if window < length and parallelism.context_parallel_method == "ring":
        raise UnsupportedError(
            ("parallelism", "context_parallel_method"),
            f"keys that go round a ring are not modelled with sliding_window: {window}; "
            "all_to_all and all_gather are",
        )
    heads = model.num_attention_heads // parallelism.tensor_parallel
    if parallelism.context_parallel_method == "all_to_all" and heads % context:
        raise PlanError(
            _CONTEXT,
            f"{context} does not divide the {heads} heads of one tensor-parallel GPU "
            f"({nearest(heads, context)})",
        )
    of_keys = max(1, model.num_key_value_heads // parallelism.tensor_parallel)
    if parallelism.context_parallel_method == "all_to_all" and of_keys % context and context % of_keys:
        raise PlanError(
            _CONTEXT,
            f"{context} and the {of_keys} heads of keys of one tensor-parallel GPU do not divide one another "
            f"({nearest(of_keys, context)})",
        )


def _check_experts(scenario: Outline, mixture: MixtureSpec, data: int) -> None:
    parallelism = scenario.parallelism
    expert, tensor = parallelism.expert_parallel, parallelism.tensor_parallel
    split = parallelism.expert_tensor_parallel or tensor
    if mixture.num_experts % expert:
        raise PlanError(
            _EXPERT,
            f"{expert} does not divide num_experts: {mixture.num_experts} "
            f"({nearest(mixture.num_experts, expert)})",
        )
    if mixture.moe_intermediate_size % split:
        raise PlanError(
            ("parallelism", "expert_tensor_parallel"),
            f"{split} does not divide moe_intermediate_size: {mixture.moe_intermediate_size} "
            f"({nearest(mixture.moe_intermediate_size, split)})",
        )
    _check_spread(parallelism, data, split)
    _check_load(parallelism, mixture)
    if tensor > 1 and not parallelism.sequence_parallel:
        raise UnsupportedError(
            ("parallelism", "sequence_parallel"),
            "routed experts with tensor_parallel above 1 need it, or every GPU would route the same tokens",
        )


def _check_spread(parallelism: ParallelismSpec, data: int, split: int) -> None:
    """Refuses experts that do not come out even on the GPUs that share one copy of the dense layers.

    Source: Liu et al., MoE Parallel Folding, arXiv:2504.14960: the experts' layers have a mapping of their
        own on the ranks of a stage.
    """
    tensor, context, expert = (
        parallelism.tensor_parallel,
        parallelism.context_parallel,
        parallelism.expert_parallel,
    )
    ranks = tensor * context * data
    shown = f"tensor_parallel {tensor} x context_parallel {context} x data_parallel {data} = {ranks} GPUs"
    if ranks % split:
        raise PlanError(
            ("parallelism", "expert_tensor_parallel"),
            f"{split} does not divide {shown} of a stage ({nearest(ranks, split)})",
        )
    if ranks // split % expert:
        raise PlanError(
            _EXPERT,
            f"{expert} does not divide {shown} of a stage / expert_tensor_parallel {split} = "
            f"{ranks // split} ({nearest(ranks // split, expert)})",
        )


def _check_load(parallelism: ParallelismSpec, mixture: MixtureSpec) -> None:
    """Refuses tokens of an expert that no routing can bring about."""
    imbalance, capacity = parallelism.expert_imbalance, parallelism.expert_capacity_factor
    experts, visited, ranks = mixture.num_experts, mixture.num_experts_per_tok, parallelism.expert_parallel
    if capacity is not None and capacity * visited > experts:
        raise PlanError(
            ("parallelism", "expert_capacity_factor"),
            f"{capacity:g} is more slots than tokens; num_experts: {experts} / "
            f"num_experts_per_tok: {visited} = {experts / visited:g} has room for all",
        )
    if imbalance == 1.0 or (imbalance > 1.0 and ranks == 1 and capacity is None):
        return  # a GPU that has all experts has the mean, which is a warning
    key = ("parallelism", "expert_imbalance")
    if capacity is not None:
        raise PlanError(
            key, "does nothing beside expert_capacity_factor, which says how many tokens there are"
        )
    most = ranks * min(visited, experts // ranks) / visited
    if not 1.0 <= imbalance <= most:
        raise PlanError(
            key,
            f"{imbalance:g} is not between 1 (all have the mean) and {most:g}: the busiest of {ranks} GPUs "
            f"has {experts // ranks} of {experts} experts, and a token visits {visited}",
        )


def _check_adapters(scenario: Outline, model: TransformerSpec) -> None:
    chosen, key = scenario.training.lora_targets, ("training", "lora_targets")
    if not chosen:
        raise PlanError(key, "names no matrix: nothing would be trained")
    if len(set(chosen)) < len(chosen):
        twice = next(name for name in chosen if chosen.count(name) > 1)
        raise PlanError(key, f"names {twice} more than once")
    there = lora.targets(model)
    missing = [name for name in chosen if name not in there]
    if missing:
        raise PlanError(key, f"{missing[0]}: {model.name} has none; it has: {', '.join(there)}")
    for name, parts in lora.modules(model).items():
        matrix = lora.SAME.get(name, name)
        own = [module for module, _ in parts if module in chosen and module != matrix]
        if (matrix in chosen) + bool(own) + (lora.ALL in chosen) > 1:
            others = [*([matrix] if matrix in chosen else []), *own, *([lora.ALL] * (lora.ALL in chosen))]
            raise PlanError(key, f"{' and '.join(others)} are adapters of the same matrix")
    if scenario.training.lora_rank >= model.hidden_size:
        raise PlanError(
            ("training", "lora_rank"),
            f"{scenario.training.lora_rank} is no low rank of hidden_size: {model.hidden_size}",
        )
