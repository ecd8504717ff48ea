"""The precisions of a plan with their defaults, and what cannot be together."""

from __future__ import annotations

from typing import Literal

from simulator.errors import PlanError, UnsupportedError
from simulator.program.planning.outline import Outline
from simulator.specs.model import TransformerSpec
from simulator.specs.training import TrainingSpec
from simulator.workload import StateBytes, state_bytes
from simulator.workload.optimizers import OPTIMIZERS
from simulator.workload.precision import FORMATS, RECIPES, base_precision
from simulator.workload.state import narrow

_SENT = ("training", "communication_precision")


def precisions(scenario: Outline, num_micro_batches: int) -> StateBytes:
    """In which precision parameters, gradients and state lie and travel.

    Args:
        scenario: The outline.
        num_micro_batches: Micro-batches per replica and step.
    """
    training = scenario.training
    sent, kept = training.communication_precision, training.optimizer_precision
    return state_bytes(
        training.parameter_precision or base_precision(training.precision),
        _gradient_precision(scenario, num_micro_batches),
        training.optimizer,
        passes=base_precision(training.precision),
        recipe=training.precision,
        one_layout=scenario.cluster.any_fp8_layout,
        master=training.master_parameters,
        master_precision=kept.master,
        first_moment=kept.first_moment,
        second_moment=kept.second_moment,
        gathered=sent.parameters,
        reduced=sent.gradients,
    )


def _gradient_precision(scenario: Outline, num_micro_batches: int) -> str:
    """As training says; else the software's: fp32, or that of the passes but for bf16."""
    training = scenario.training
    if training.gradient_precision is not None:
        return training.gradient_precision
    software = scenario.software.gradients
    own = software == "passes" or (software == "added_in_fp32" and num_micro_batches == 1)
    return "fp16" if own and training.precision == "fp16" else "fp32"


def check_precisions(scenario: Outline) -> None:
    """Refuses precisions that cannot be together, and those that would change nothing.

    Raises:
        PlanError: Names the setting and what would do.
        UnsupportedError: Something that is not modelled.
    """
    training = scenario.training
    per = precisions(scenario, 1)
    _check_kept(training, per)
    _check_gathered(scenario, per)
    _check_state(training)
    _check_operands(scenario, per)
    _check_experts(scenario, per)
    _check_activation(scenario, per)
    few: tuple[tuple[tuple[str, ...], str], ...] = (
        (("training", "parameter_precision"), per.kept),
        (("training", "gradient_precision"), per.accumulated),
    )
    for key, precision in few:
        if not narrow(precision):
            continue
        if not isinstance(scenario.model, TransformerSpec):
            raise UnsupportedError(
                key, f"{precision} is for matrices of a transformer's layers; bf16, fp16, fp32 are for all"
            )
        if key[1] == "parameter_precision" and training.offload.optimizer:
            raise UnsupportedError(
                key, f"{precision} is not modelled with an offloaded optimizer; bf16, fp16, fp32 are"
            )
    if narrow(per.accumulated) and training.lora_rank:
        raise PlanError(
            few[1][0], f"{per.accumulated} does nothing: no matrix of a layer is trained beside adapters"
        )


def _check_kept(training: TrainingSpec, per: StateBytes) -> None:
    key = ("training", "parameter_precision")
    if not narrow(per.kept):
        return
    if per.kept != training.precision:
        own = training.precision if training.precision in RECIPES else per.passes
        raise PlanError(
            key,
            f"{per.kept}, but no product of precision: {training.precision} reads it; "
            f"{_listed(dict.fromkeys((own, 'bf16', 'fp16', 'fp32')))} would do",
        )
    if training.master_parameters is False:
        raise PlanError(
            ("training", "master_parameters"),
            f"false, but parameters in {per.kept} are cast from a copy: true, or parameter_precision: bf16",
        )


def _check_gathered(scenario: Outline, per: StateBytes) -> None:
    key, given = (*_SENT, "parameters"), scenario.training.communication_precision.parameters
    if given is None:
        return
    if scenario.parallelism.data_parallel_sharding == "none":
        raise PlanError(key, "does nothing without data_parallel_sharding: no parameters are gathered")
    recipe = scenario.training.precision
    if narrow(per.kept) and given != per.kept:
        raise PlanError(key, f"{given}, but parameters are kept in {per.kept}, which alone would do")
    if FORMATS[given].bits > FORMATS[per.kept].bits:
        raise PlanError(
            key, f"{given} is wider than {per.kept}, in which parameters are kept and which would do"
        )
    if narrow(given) and recipe in RECIPES and given != recipe:
        raise PlanError(key, f"{given}, but products read {recipe}, which would do, as would {per.kept}")


def _check_state(training: TrainingSpec) -> None:
    rule, asked, key = (
        OPTIMIZERS[training.optimizer],
        training.optimizer_precision,
        ("training", "optimizer_precision"),
    )
    moments = set(OPTIMIZERS["adamw"].moments if rule.orthogonal else rule.moments)
    kinds: tuple[Literal["first", "second"], ...] = ("first", "second")
    for name in kinds:
        if getattr(asked, f"{name}_moment") == "fp32":
            continue
        if rule.state_bytes is not None:
            what = f"{training.optimizer} does not keep moments in a precision of one's choice"
            raise PlanError(key, f"does nothing: {what}")
        both = asked.first_moment == asked.second_moment and moments
        if name not in moments and not both:
            what = "state in a precision of one's choice" if not moments else f"a {name} moment"
            raise PlanError(key, f"does nothing without {what}, which {training.optimizer} does not keep")
    kept = training.parameter_precision or base_precision(training.precision)
    if asked.master == "fp32":
        return
    if FORMATS[kept].bits >= FORMATS["fp32"].bits or training.master_parameters is False:
        raise PlanError((*key, "master"), "does nothing: the optimizer has no copy of the parameters")
    if asked.master == kept:
        raise PlanError(
            (*key, "master"),
            f"{kept} is that of the parameters; fp32 has more, master_parameters: false keeps none",
        )


def _check_operands(scenario: Outline, per: StateBytes) -> None:
    """Operands that tensor-parallel GPUs gather are in the precision of the passes, or of the products."""
    key, given, parallelism = (
        (*_SENT, "tensor"),
        scenario.training.communication_precision.tensor,
        scenario.parallelism,
    )
    if given is None:
        return
    if per.recipe not in RECIPES:
        raise PlanError(key, f"does nothing: products read {per.passes}, as do the passes")
    if given not in (per.recipe, per.passes):
        raise PlanError(
            key, f"{given} is neither {per.recipe} of the products nor {per.passes} of the passes"
        )
    if not parallelism.sequence_parallel:
        raise PlanError(key, "does nothing without sequence_parallel: no operands are gathered")
    if scenario.training.lora_rank and given != per.passes:
        raise PlanError(key, f"{given}, but adapters read what is gathered in {per.passes}, which would do")


def _check_experts(scenario: Outline, per: StateBytes) -> None:
    mixture = isinstance(scenario.model, TransformerSpec) and scenario.model.mixture is not None
    for name in ("dispatch", "combine"):
        key, given = (*_SENT, name), getattr(scenario.training.communication_precision, name)
        if given is None:
            continue
        if not mixture:
            raise PlanError(key, "does nothing without a model with routed experts")
        _check_no_wider(key, given, per.passes)
        if name == "dispatch" and narrow(given) and per.recipe in RECIPES and given != per.recipe:
            raise PlanError(
                key, f"{given}, but the experts read {per.recipe}, which would do, as would {per.passes}"
            )


def _check_activation(scenario: Outline, per: StateBytes) -> None:
    key, given = ("training", "activation_input_precision"), scenario.training.activation_input_precision
    if given is None:
        return
    if not isinstance(scenario.model, TransformerSpec):
        raise PlanError(key, "does nothing without a transformer")
    _check_no_wider(key, given, per.passes)
    if narrow(given) and not scenario.software.fused_activation:
        raise UnsupportedError(
            key,
            f"{given} is not modelled with activations of several kernels (software.fused_activation: false)",
        )


def _check_no_wider(key: tuple[str, ...], given: str, passes: str) -> None:
    if FORMATS[given].bits >= 16 and given != passes:
        raise PlanError(key, f"{given} is neither {passes} of the passes, which would do, nor has fewer bits")


def _listed(names: dict[str, None]) -> str:
    return ", ".join(names)
