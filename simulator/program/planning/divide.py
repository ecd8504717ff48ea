"""What divides what, and layers over the parts of a pipeline."""

from __future__ import annotations

from simulator.errors import PlanError, UnsupportedError
from simulator.program.schedules.schedule import Placement
from simulator.specs.model import TransformerSpec
from simulator.specs.training import ParallelismSpec

_LAYERS = ("parallelism", "pipeline_layers")
_ENCODER = ("parallelism", "encoder_pipeline_parallel")
_STAGES = ("parallelism", "pipeline_parallel")


def layers_per_part(
    layers: int, placement: Placement, given: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """Layers of each part of the model, in the order in which a sample visits them.

    Layers that do not divide leave some parts one short: the last part first, for it has the head, then the
    first, for it has the embedding, and so on inwards. A part at either end may do without any layer.

    Args:
        layers: Layers of the model.
        placement: Where parts lie.
        given: What the user wants.

    Raises:
        PlanError: They do not add up, or a part in the middle would be empty.
    """
    parts = placement.depth
    if given is not None:
        if len(given) != parts:
            raise PlanError(_LAYERS, f"{len(given)} numbers for {parts} parts of the model")
        if sum(given) != layers:
            raise PlanError(_LAYERS, f"{sum(given)} layers are given, num_hidden_layers is {layers}")
        if 0 in given[1:-1]:
            empty = given.index(0, 1)
            raise PlanError(
                (*_LAYERS, empty),
                f"part {empty} of {parts} has no layer; only the first and the last can do so",
            )
        return given
    most = -(-layers // parts)
    short = most * parts - layers
    if most == 1 and short > 2:
        chunks = "" if placement.chunks == 1 else f" x {placement.chunks} chunks"
        raise PlanError(
            _STAGES,
            f"pipeline_parallel {placement.stages}{chunks} = {parts} parts are too many for "
            f"num_hidden_layers: {layers}; at most two of them, first and last, can do without a layer",
        )
    ends = [end for step in range(parts // 2 + 1) for end in (parts - 1 - step, step)]
    lacking = set(list(dict.fromkeys(ends))[:short])
    return tuple(most - (part in lacking) for part in range(parts))


def layers_by_stack(
    model: TransformerSpec, placement: Placement, parallelism: ParallelismSpec
) -> tuple[int, ...]:
    """Layers of each stage where the first ones hold an encoder and the others its decoder.

    Source: Megatron-Core, ``encoder_pipeline_model_parallel_size``; ``pipeline_model_parallel_split_rank``.

    Raises:
        PlanError: The model has one stack, a stack has no stage, or two keys say how layers are split.
        UnsupportedError: Stages that hold several parts of the model.
    """
    first, stages = parallelism.encoder_pipeline_parallel or 0, placement.stages
    if model.num_encoder_layers is None or model.num_decoder_layers is None:
        raise PlanError(_ENCODER, f"does nothing for {model.name}, which has one stack of layers")
    if placement.depth != stages:
        raise UnsupportedError(_ENCODER, "stages that hold several parts: give pipeline_layers instead")
    if parallelism.pipeline_layers is not None:
        raise PlanError(_ENCODER, "pipeline_layers says already which stage holds what")
    if first >= stages:
        raise PlanError(_ENCODER, f"{first} of {stages} stages leave none for the decoder")
    encoder = layers_per_part(model.num_encoder_layers, Placement(first))
    return encoder + layers_per_part(model.num_decoder_layers, Placement(stages - first))


def nearest(total: int, wanted: int) -> str:
    """The divisors of `total` on both sides of `wanted`, in words."""
    divisors = [d for d in range(1, min(total, 100_000) + 1) if total % d == 0]
    below = max((d for d in divisors if d < wanted), default=None)
    above = min((d for d in divisors if d > wanted), default=None)
    names = [str(d) for d in (below, above) if d is not None]
    return f"{' and '.join(names)} {'do' if len(names) > 1 else 'does'}"


def nearest_multiples(value: int, of: int) -> str:
    """The multiples of `of` on both sides of `value`, in words."""
    below = value // of * of
    return f"{below} and {below + of} are" if below else f"{of} is"
