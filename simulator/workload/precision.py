"""Precisions: how numbers lie in memory and travel, and how the layers' matrices are multiplied."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final


@dataclass(frozen=True, slots=True)
class Format:
    """How numbers are kept and sent.

    Attributes:
        bits: Bits of a number.
        block: Numbers of a row that share a scale; 0 for one scale a tensor, which is not counted.
        scale_bits: Bits of a scale.
        tile: The same of a weight, whose scales hold for columns, too.
        block_units: Whether matrix units must apply the scales themselves (OCP microscaling, NVFP4).
    """

    bits: int
    block: int = 0
    scale_bits: int = 0
    tile: int = 0
    block_units: bool = False

    @property
    def number_bytes(self) -> float:
        """Bytes of a number with its part of a scale; exact, for blocks are powers of two."""
        return (self.bits + (self.scale_bits / self.block if self.block else 0.0)) / 8

    @property
    def weight_bytes(self) -> float:
        """Bytes of a number of a weight with its part of a scale."""
        return (self.bits + (self.scale_bits / self.tile if self.tile else 0.0)) / 8


FORMATS: Final = {
    "fp64": Format(64),
    "fp32": Format(32),
    "tf32": Format(32),
    "fp16": Format(16),
    "bf16": Format(16),
    "fp8": Format(8),
    "fp8_current": Format(8),
    "fp8_block": Format(8, block=128, scale_bits=32, tile=128 * 128),
    "mxfp8": Format(8, block=32, scale_bits=8, tile=32, block_units=True),
    "nvfp4": Format(4, block=16, scale_bits=8, tile=16, block_units=True),
}
"""By precision; tf32 lies in memory as fp32.

Source: Micikevicius et al., arXiv:2209.05433 (fp8); DeepSeek-V3, arXiv:2412.19437, section 3.3 (fp32 scales
    of 1 x 128 and, for weights, 128 x 128 numbers); OCP Microscaling Formats 1.0 (E8M0 for 32 numbers);
    NVIDIA Transformer Engine, recipes (NVFP4: E4M3 for 16).
"""


def sized(numbers: int, each: float) -> int:
    """Bytes of so many numbers of so many bytes each, the last one filled up."""
    return ceil(numbers * each)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the matrices of the layers are multiplied in fewer bits than the rest.

    Attributes:
        base: Precision of activations, attention, norms, embedding and head.
        matrix: Precision of the layers' matrix products, a key of `AcceleratorSpec.peak_flops`.
        reads: Times that an operand is read to be cast: once, or once more for its largest value.
    """

    base: str
    matrix: str
    reads: int


RECIPES: Final = {
    "fp8": Recipe("bf16", "fp8", reads=1),
    "fp8_current": Recipe("bf16", "fp8", reads=2),
    "fp8_block": Recipe("bf16", "fp8", reads=1),
    "mxfp8": Recipe("bf16", "fp8", reads=1),
    "nvfp4": Recipe("bf16", "fp4", reads=2),
}
"""By precision, the format of the operands: one scale a tensor, which earlier steps say or its own largest
value; scales of blocks (DeepSeek-V3), OCP microscaling, whose numbers a kernel holds while it looks for their
largest; NVFP4, which has a scale of the whole tensor besides. Sources as of `FORMATS`."""


def base_precision(precision: str) -> str:
    """Precision of all that is not a matrix of a layer."""
    recipe = RECIPES.get(precision)
    return precision if recipe is None else recipe.base


def matrix_precision(precision: str) -> str:
    """Precision of the layers' matrix products."""
    recipe = RECIPES.get(precision)
    return precision if recipe is None else recipe.matrix
