"""What stages send to one another: activations onwards, gradients back."""

from __future__ import annotations

from functools import lru_cache

from simulator.engine import Label
from simulator.program.planning.layout import tokens_between
from simulator.program.planning.outline import Outline
from simulator.program.planning.plan import Plan
from simulator.program.pricing.rows import Row
from simulator.program.pricing.topology import Topology
from simulator.program.pricing.works import Sending
from simulator.specs.model import TransformerSpec
from simulator.workload import (
    BYTES_PER_ELEMENT,
)
from simulator.workload.precision import base_precision


def blocking_sends(scenario: Outline) -> bool:
    """Whether a stage waits for what it sends."""
    said = scenario.parallelism.overlap_point_to_point
    return scenario.software.blocking_sends if said is None else not said


def send_row(topology: Topology, stage: int, to: int, kind: str, message_bytes: int) -> Row:
    """What a stage sends to another: activations onwards, or gradients back.

    Args:
        topology: Ways between GPUs.
        stage: Who sends.
        to: Who receives.
        kind: ``forward`` or ``backward``.
        message_bytes: What crosses in one micro-batch [B]; each tensor-parallel rank sends its slice.
    """
    plan = topology.plan
    return _send_row(
        kind,
        Sending(
            message_bytes=message_bytes // plan.tensor_parallel,
            near=topology.same_domain(stage, to),
            path=topology.path(stage, to),
            core=topology.shared.get("core", -1),
            gpus=plan.num_gpus_per_stage,
        ),
    )


@lru_cache(maxsize=4096)
def _send_row(kind: str, work: Sending) -> Row:
    """Plans share many."""
    return Row(Label(f"send.{kind}", "communication.send", kind), work)


def two_stacks(scenario: Outline) -> bool:
    """Whether what crosses depends on where: an encoder hands on its output for a decoder to go on with."""
    teacher = () if scenario.distillation is None else (scenario.distillation.teacher,)
    models = (scenario.model, *teacher)
    return any(isinstance(model, TransformerSpec) and bool(model.num_encoder_layers) for model in models)


def message_bytes(scenario: Outline, plan: Plan, boundary: int, kind: str) -> int:
    """What crosses behind a part of the model in one micro-batch [B].

    A teacher's stream crosses on the way forward only.
    """
    training, model, distillation = scenario.training, scenario.model, scenario.distillation
    if not isinstance(model, TransformerSpec):
        return 0
    streams = [(model, plan.layers_per_part)]
    if distillation is not None and kind == "forward":
        streams.append((distillation.teacher, plan.teacher_layers_per_part))
    numbers = 0
    for each, layers in streams:
        before = sum(layers[: boundary + 1]) if each.num_encoder_layers else 0
        numbers += tokens_between(each, training, before) * each.hidden_size
    share = training.micro_batch_size * numbers // plan.context_parallel
    return share * BYTES_PER_ELEMENT[base_precision(training.precision)]
