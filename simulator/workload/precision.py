"""Precisions of a training run: that of the layers' matrix products, and that of everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the matrices of the layers are multiplied in fewer bits than the rest.

    Attributes:
        base: Precision of activations, attention, norms, embedding and head.
        matrix: Precision of the layers' matrix products, a key of `AcceleratorSpec.peak_flops`.
        reads: Times that an operand is read to be cast: once, or once more for its largest value.
        scale_block: Elements that share a scale; 0 for one scale a tensor.
        block_units: Whether the matrix units must apply the scales themselves (OCP microscaling, NVFP4).
    """

    base: str
    matrix: str
    reads: int
    scale_block: int
    block_units: bool


RECIPES: Final = {
    "fp8": Recipe("bf16", "fp8", reads=1, scale_block=0, block_units=False),
    "fp8_block": Recipe("bf16", "fp8", reads=2, scale_block=128, block_units=False),
    "mxfp8": Recipe("bf16", "fp8", reads=1, scale_block=32, block_units=True),
    "nvfp4": Recipe("bf16", "fp4", reads=2, scale_block=16, block_units=True),
}
"""By `training.precision`: one delayed scale a tensor; scales of 1 x 128 and 128 x 128 blocks (DeepSeek-V3);
OCP microscaling; NVFP4.

Source: Micikevicius et al., arXiv:2209.05433; DeepSeek-V3, arXiv:2412.19437, section 3.3; OCP Microscaling
Formats 1.0; NVIDIA Transformer Engine, recipes.
"""


def base_precision(precision: str) -> str:
    """Precision of all that is not a matrix of a layer."""
    recipe = RECIPES.get(precision)
    return precision if recipe is None else recipe.base


def matrix_precision(precision: str) -> str:
    """Precision of the layers' matrix products."""
    recipe = RECIPES.get(precision)
    return precision if recipe is None else recipe.matrix
