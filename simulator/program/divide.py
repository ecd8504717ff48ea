"""What divides what, and layers over the parts of a pipeline."""

from __future__ import annotations

from simulator.errors import PlanError
from simulator.program.schedules import Placement

_LAYERS = ("parallelism", "pipeline_layers")
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
        return given
    most = -(-layers // parts)
    short = most * parts - layers
    ends = [end for step in range(parts // 2 + 1) for end in (parts - 1 - step, step)]
    lacking = set(list(dict.fromkeys(ends))[:short])
    if most == 1 and short > 2:
        chunks = "" if placement.chunks == 1 else f" x {placement.chunks} chunks"
        raise PlanError(
            _STAGES,
            f"pipeline_parallel {placement.stages}{chunks} = {parts} parts are too many for "
            f"num_hidden_layers: {layers}; at most two of them, first and last, can do without a layer",
        )
    return tuple(most - (part in lacking) for part in range(parts))


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
