"""The end of a step: gradients checked and clipped, parameters updated; and what all that keeps in memory."""

from __future__ import annotations

from simulator.workload.kernels import Kernel
from simulator.workload.operators import pointwise
from simulator.workload.optimizers import OPTIMIZERS
from simulator.workload.precision import RECIPES, Recipe, sized
from simulator.workload.state import Parameters, StateBytes, narrow


def update_kernels(
    parameters: Parameters,
    state: StateBytes,
    optimizer: str,
    *,
    clipping: bool,
    held_gradients: Parameters,
    fused: bool = True,
) -> tuple[Kernel, ...]:
    """Norm of the gradients, update of `parameters`, and gradients set to zero for the next step.

    Where they are not fused, gradients are unscaled in place (and converted to fp32) before the norm and
    multiplied by the clipping factor behind it, and the passes' parameters are copied from the fp32 ones.
    Matrices that are kept in fewer than 16 bits are written behind the update: see `quantized_weights`.

    Args:
        parameters: Parameters that this GPU updates.
        state: Bytes per parameter.
        optimizer: Update rule.
        clipping: Whether the norm is taken.
        held_gradients: Gradients that this GPU holds and sets to zero.
        fused: Whether one kernel clips, updates and copies.
    """
    master = state.optimizer > 0 and not fused
    total = parameters.total
    given, kernels = parameters.size(state.gradients), []
    if clipping:
        copied = 4 * total if master else 0
        kernels.append(_kernel("gradient_norm", total, read=given + copied, written=copied, flops=2))
    kept = parameters.size(state.parameters)
    own = sized(total, state.optimizer)
    if narrow(state.kept):
        kept = Parameters(total - parameters.matrices).size(state.parameters)
    read = (4 * total if master else given) + (own or kept)
    written = own + kept
    if master:
        read, written = read + 4 * total * (clipping + 1), written + 4 * total * clipping
    kernels.append(_kernel("update", total, read=read, written=written, flops=OPTIMIZERS[optimizer].flops))
    zeroed = held_gradients.size(state.gradients)
    kernels.append(_kernel("zero_gradients", held_gradients.total, read=0, written=zeroed, flops=0))
    return tuple(kernels)


def quantized_weights(updated: Parameters, state: StateBytes) -> tuple[Kernel, ...]:
    """Weights of the layers' products cast behind the update, where they are kept as they are multiplied.

    They are cast from the optimizer's copies, each GPU its share; by columns, too, where those have scales of
    their own.

    Args:
        updated: Parameters that this GPU updates.
        state: Bytes per parameter.

    Source: NVIDIA Transformer Engine, ``cast_master_weights_to_fp8``; Megatron-Core, ``--fp8-param-gather``.
    """
    recipe = RECIPES.get(state.recipe)
    if recipe is None or not narrow(state.kept) or not updated.matrices:
        return ()
    reads, writes = recipe.reads * state.master, state.layouts * state.parameters.matrix
    return (_cast("quantize", updated.matrices, reads, writes, recipe),)


def copied_weights(whole: Parameters, state: StateBytes) -> tuple[Kernel, ...]:
    """What the layers' products read besides what is kept, made once a step and kept for all passes.

    Casts by rows and by columns; of weights that are kept as they are multiplied the copy by columns alone,
    unless that has scales of its own and has come with them.

    Args:
        whole: Trained parameters of the GPU.
        state: Bytes per parameter.

    Source: NVIDIA Transformer Engine, weight workspaces and ``Float8Tensor`` with its transpose.
    """
    recipe = RECIPES.get(state.recipe)
    if recipe is None or not whole.matrices:
        return ()
    copied = state.copies.matrix
    if not narrow(state.kept):
        reads = recipe.reads * state.parameters.matrix
        return (_cast("weights.cast", whole.matrices, reads, copied, recipe),)
    if state.layouts > 1 or not copied:
        return ()
    return (
        pointwise(
            "optimizer.weights.transpose", "elementwise", whole.matrices, reads=copied, writes=copied, flops=0
        ),
    )


def _cast(name: str, elements: int, reads: float, writes: float, recipe: Recipe) -> Kernel:
    return pointwise(
        f"optimizer.{name}",
        "elementwise",
        elements,
        reads=reads,
        writes=writes,
        flops=2 * recipe.reads,
        launches=recipe.reads,
    )


def _kernel(name: str, elements: int, *, read: int, written: int, flops: int) -> Kernel:
    return Kernel(f"optimizer.{name}", "optimizer", elements * flops, read, written, "fp32")
