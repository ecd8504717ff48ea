"""What a replica keeps of a parameter between steps, and in which precision each of it lies and travels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from simulator.workload.optimizers import OPTIMIZERS
from simulator.workload.precision import FORMATS, RECIPES, sized

_SIXTEEN = 16


class Width(NamedTuple):
    """Bytes of a number: of a matrix of a layer, and of any other parameter."""

    matrix: float
    other: float


@dataclass(frozen=True, slots=True)
class Parameters:
    """So many parameters.

    Attributes:
        total: All of them.
        matrices: Of them, those of the layers' matrices, which alone may have fewer than 16 bits.
    """

    total: int = 0
    matrices: int = 0

    def __add__(self, other: Parameters) -> Parameters:
        """Both together."""
        return Parameters(self.total + other.total, self.matrices + other.matrices)

    def share(self, ranks: int) -> Parameters:
        """What one of so many has of them."""
        return Parameters(-(-self.total // ranks), -(-self.matrices // ranks))

    def part(self, total: int) -> Parameters:
        """So many of them, matrices as often as among all."""
        return Parameters(total, self.matrices * total // self.total if self.total else 0)

    def size(self, width: Width) -> int:
        """Bytes of all [B]."""
        return sized(self.matrices, width.matrix) + sized(self.total - self.matrices, width.other)


NO_PARAMETERS = Parameters()
"""None."""


@dataclass(frozen=True, slots=True)
class StateBytes:
    """Bytes per parameter of what a replica keeps between steps, and of what travels.

    Attributes:
        passes: Precision of what the passes compute outside of the layers' matrices.
        recipe: How those are multiplied in fewer bits; that of the passes for not.
        kept: Precision of the parameters as they are kept.
        gathered: Precision in which they are gathered.
        accumulated: Precision of the gradients.
        reduced: Precision in which these are reduced.
        master: Bytes of the optimizer's own copy of a parameter.
        optimizer: Bytes of that and of the optimizer's state.
        elsewhere: What the optimizer keeps more of parameters outside the layers' matrices.
        one_layout: Whether products read operands in fp8 by rows and by columns alike.
    """

    passes: str
    recipe: str
    kept: str
    gathered: str
    accumulated: str
    reduced: str
    master: float
    optimizer: float
    elsewhere: float = 0.0
    one_layout: bool = False

    @property
    def parameters(self) -> Width:
        """Of the parameters as they are kept."""
        return _width(self.kept, self.passes, weight=True)

    @property
    def gathers(self) -> Width:
        """Of the parameters on their way, in one layout."""
        return _width(self.gathered, self.passes, weight=True)

    @property
    def gradients(self) -> Width:
        """Of the accumulated gradients."""
        return _width(self.accumulated, self.passes)

    @property
    def communication(self) -> Width:
        """Of a gradient on its way."""
        return _width(self.reduced, self.passes)

    @property
    def copies(self) -> Width:
        """Of what the products read besides what is kept, where it stays: casts, by rows and by columns.

        Of parameters that are kept as they are multiplied it is the copy by columns alone.

        Source: NVIDIA Transformer Engine, weight workspaces and ``Float8Tensor`` with its transpose.
        """
        if self.recipe not in RECIPES:
            return Width(0.0, 0.0)
        read = 1 if self.one_layout and not FORMATS[self.recipe].block else 2
        missing = read - (self.kept == self.recipe)
        return Width(missing * FORMATS[self.recipe].weight_bytes, 0.0)

    @property
    def layouts(self) -> int:
        """Layouts in which parameters are kept and given out: two where columns have scales of their own."""
        return 2 if FORMATS[self.kept].block_units else 1


@cache
def _width(precision: str, passes: str, *, weight: bool = False) -> Width:
    """Of a precision below 16 bits; what is no matrix of a layer has that of the passes then."""
    found = FORMATS[precision]
    other = precision if found.bits >= _SIXTEEN else passes
    return Width(found.weight_bytes if weight else found.number_bytes, FORMATS[other].number_bytes)


def narrow(precision: str) -> bool:
    """Whether a precision has fewer than 16 bits, and scales."""
    return FORMATS[precision].bits < _SIXTEEN


def state_bytes(
    parameters: str,
    gradients: str,
    optimizer: str,
    *,
    passes: str = "bf16",
    recipe: str = "",
    one_layout: bool = False,
    master: bool | None = None,
    master_precision: str = "fp32",
    first_moment: str = "fp32",
    second_moment: str = "fp32",
    gathered: str | None = None,
    reduced: str | None = None,
) -> StateBytes:
    """Bytes per parameter; mixed-precision Adam with fp32 gradients: 2 + 4 + 12, in pure bf16 2 + 2 + 4.

    Args:
        parameters: Precision in which parameters are kept.
        gradients: Precision in which gradients are accumulated.
        optimizer: Update rule.
        passes: Precision of the passes.
        recipe: Precision of the layers' matrix products; that of the passes if not given.
        one_layout: Whether these read operands in fp8 by rows and by columns alike.
        master: Whether the optimizer has its own copy of parameters that are kept in fewer than 32 bits; it
            has if not given.
        master_precision: Precision of that copy.
        first_moment: Precision of its mean of gradients.
        second_moment: Precision of its mean of their squares.
        gathered: Precision in which parameters are gathered; that in which they are kept if not given.
        reduced: Precision in which gradients are reduced; that of accumulation if not given.

    Source: Rajbhandari et al., ZeRO, arXiv:1910.02054; Micikevicius et al., arXiv:1710.03740; Peng et al.,
        FP8-LM, arXiv:2310.18313.
    """
    copied = 0.0
    if FORMATS[parameters].bits < FORMATS["fp32"].bits and master is not False:
        copied = FORMATS[master_precision].number_bytes
    rule = OPTIMIZERS[optimizer]
    of = {"first": first_moment, "second": second_moment}
    each = {name: FORMATS[precision].number_bytes for name, precision in of.items()}
    if rule.state_bytes is not None:
        each = dict.fromkeys(each, float(rule.state_bytes))
    whole = OPTIMIZERS["adamw"].moments if rule.orthogonal else rule.moments
    state = sum(each[name] for name in rule.moments)
    return StateBytes(
        passes=passes,
        recipe=recipe or passes,
        kept=parameters,
        gathered=gathered or parameters,
        accumulated=gradients,
        reduced=reduced or gradients,
        master=copied,
        optimizer=copied + state,
        elsewhere=sum(each[name] for name in whole) - state,
        one_layout=one_layout,
    )
