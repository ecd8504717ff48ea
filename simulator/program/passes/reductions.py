"""Numbers that travel in another precision than they lie in: cast before, summed, and cast back."""

from __future__ import annotations

from simulator.program.passes.exchanges import Conversion, Item
from simulator.program.planning.plan import Plan
from simulator.workload import Communication, Kernel, Parameters, StateBytes
from simulator.workload.kernels import Axis, Collective
from simulator.workload.precision import FORMATS
from simulator.workload.state import Width, narrow

Lying = tuple[str, Width]
"""A precision, and how wide numbers are in it."""

_SCALE_BYTES = 4


def reduced(
    plan: Plan, per: StateBytes, name: str, collective: Collective, axis: Axis, count: Parameters
) -> list[Item]:
    """Gradients summed over an axis, by an all-reduce or a reduce-scatter.

    They are cast before, where they are reduced in another precision than that of accumulation, and what is
    left of them is cast back behind. With one scale a tensor, all agree on it first. Numbers whose blocks
    have scales of their own are summed by no network: every GPU sends the others their parts, and sums what
    has come.

    Source: Peng et al., FP8-LM, arXiv:2310.18313, section 2.1 (one scale); Wang et al., ZeRO++,
        arXiv:2306.10209, section 3.3 (all-to-all of quantized gradients).
    """
    ranks = plan.degree(axis)
    if ranks == 1 or not count.total:
        return []
    own, sent = (per.accumulated, per.gradients), (per.reduced, per.communication)
    size, left = count.size(per.communication), count.share(ranks)
    if not FORMATS[per.reduced].block or not count.matrices:
        found = converted(f"{name}.cast", count, own, sent)
        if narrow(per.reduced) and count.matrices:
            found.append(Communication(f"{name}.scales.all_reduce", "all_reduce", axis, _SCALE_BYTES))
        found.append(Communication(f"{name}.{collective}", collective, axis, size))
        stays = count if collective == "all_reduce" else left
        return [*found, *converted(f"{name}.cast_back", stays, sent, own, freed=found[0])]
    cast = _kernel(f"{name}.cast", count.total, count.size(per.gradients), size)
    found = [
        Conversion(cast, take=size),
        Communication(f"{name}.all_to_all", "all_to_all", axis, size),
    ]
    if collective == "reduce_scatter":
        summed = _kernel(f"{name}.sum", count.total, size, left.size(per.gradients))
        return [*found, Conversion(summed, give=size)]
    summed = _kernel(f"{name}.sum", count.total, size, left.size(per.communication))
    back = _kernel(f"{name}.cast_back", count.total, size, count.size(per.gradients))
    gathered = Communication(f"{name}.all_gather", "all_gather", axis, size)
    return [*found, Conversion(summed), gathered, Conversion(back, give=size)]


def converted(
    name: str, count: Parameters, source: Lying, target: Lying, *, freed: Item | None = None
) -> list[Item]:
    """Numbers written in another precision; nothing where it is the same.

    Args:
        name: Name of the kernel.
        count: Numbers.
        source: How they lie.
        target: How they are written.
        freed: What took the memory that goes with it; it keeps what it takes if not given.
    """
    if source == target:
        return []
    (before, own), (behind, other) = source, target
    matrices = count.matrices if before != behind else 0
    others = count.total - count.matrices if own.other != other.other else 0
    moved = Parameters(matrices + others, matrices)
    if not moved.total:
        return []
    kernel = _kernel(name, moved.total, moved.size(own), moved.size(other))
    if freed is None:
        return [Conversion(kernel, take=kernel.write_bytes)]
    return [Conversion(kernel, give=freed.take if isinstance(freed, Conversion) else 0)]


def _kernel(name: str, elements: int, read: int, written: int) -> Kernel:
    return Kernel(name, "elementwise", elements, read, written, "fp32")
