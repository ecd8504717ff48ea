"""The end of a step: gradients checked and clipped, parameters updated; and what all that keeps in memory."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.workload.blocks import BYTES_PER_ELEMENT
from simulator.workload.kernels import Kernel
from simulator.workload.optimizers import OPTIMIZERS, kept_words


@dataclass(frozen=True, slots=True)
class StateBytes:
    """Bytes per parameter of what a replica keeps between steps.

    Attributes:
        parameters: The copy that the passes read.
        gradients: Accumulated gradients.
        optimizer: fp32 master copy (where the passes read a shorter one) and the optimizer's state.
        communication: A gradient on its way.
        elsewhere: What the optimizer keeps more of parameters outside the layers' matrices.
    """

    parameters: int
    gradients: int
    optimizer: int
    communication: int = 4
    elsewhere: int = 0


def state_bytes(
    precision: str,
    gradient_precision: str,
    optimizer: str,
    *,
    master: bool | None = None,
    state_precision: str = "fp32",
    communication_precision: str | None = None,
) -> StateBytes:
    """Bytes per parameter; mixed-precision Adam with fp32 gradients: 2 + 4 + 12, in pure bf16 2 + 2 + 4.

    Args:
        precision: Precision in which parameters are kept.
        gradient_precision: Precision in which gradients are accumulated.
        optimizer: Update rule.
        master: Whether there is an fp32 copy of parameters in 16 bits; there is if not given.
        state_precision: Precision of the optimizer's state.
        communication_precision: Precision in which gradients are reduced; that of accumulation if not given.

    Source: Rajbhandari et al., ZeRO, arXiv:1910.02054; Micikevicius et al., arXiv:1710.03740.
    """
    stored = BYTES_PER_ELEMENT[precision]
    copied = 4 if stored < 4 and master is not False else 0
    rule = OPTIMIZERS[optimizer]
    number = BYTES_PER_ELEMENT[state_precision] if rule.state_bytes is None else rule.state_bytes
    return StateBytes(
        stored,
        BYTES_PER_ELEMENT[gradient_precision],
        copied + number * rule.words,
        BYTES_PER_ELEMENT[communication_precision or gradient_precision],
        number * (kept_words(optimizer, matrix=False) - rule.words),
    )


def update_kernels(
    parameters: int,
    state: StateBytes,
    optimizer: str,
    *,
    clipping: bool,
    held_gradients: int,
    fused: bool = True,
) -> tuple[Kernel, ...]:
    """Norm of the gradients, update of `parameters`, and gradients set to zero for the next step.

    Where they are not fused, gradients are unscaled in place (and converted to fp32) before the norm and
    multiplied by the clipping factor behind it, and the passes' parameters are copied from the fp32 ones.

    Args:
        parameters: Parameters that this GPU updates.
        state: Bytes per parameter.
        optimizer: Update rule.
        clipping: Whether the norm is taken.
        held_gradients: Gradients that this GPU holds and sets to zero.
        fused: Whether one kernel clips, updates and copies.
    """
    master = state.optimizer > 0 and not fused
    kernels = []
    if clipping:
        copied = 4 if master else 0
        read = state.gradients + copied
        kernels.append(_kernel("gradient_norm", parameters, read=read, written=copied, flops=2))
    gradients = 4 if master else state.gradients
    read = gradients + (state.optimizer or state.parameters)
    written = state.optimizer + state.parameters
    if master:
        read, written = read + 4 * clipping + 4, written + 4 * clipping
    kernels.append(
        _kernel("update", parameters, read=read, written=written, flops=OPTIMIZERS[optimizer].flops)
    )
    kernels.append(_kernel("zero_gradients", held_gradients, read=0, written=state.gradients, flops=0))
    return tuple(kernels)


def _kernel(name: str, elements: int, *, read: int, written: int, flops: int) -> Kernel:
    return Kernel(
        f"optimizer.{name}", "optimizer", elements * flops, elements * read, elements * written, "fp32"
    )
