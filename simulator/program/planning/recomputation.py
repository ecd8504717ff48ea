"""Which layers of a part of the model keep what, and what is computed again before which backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from simulator.errors import PlanError, UnsupportedError
from simulator.program.planning.outline import Outline
from simulator.specs.model import TransformerSpec
from simulator.workload import Block, modules_of, recomputing
from simulator.workload.blocks import BLOCKS_KNOWN

Mode = Literal["all", "input", "nothing"]
"""What a forward pass drops: nothing (it keeps ``all``), all but the block's ``input``, or everything (it
keeps ``nothing``: a block before it keeps the input of both)."""

Blocks = tuple[tuple[tuple[Block, ...], ...], ...]
"""Blocks by stage and chunk."""

_NUMBER = ("training", "recompute_num_layers")
_METHOD = ("training", "recompute_method")
_MODULES = ("training", "recompute_modules")

_INSIDE = {"moe_activation": "moe", "shared_experts": "moe"}
"""Modules that are part of others."""


@dataclass(frozen=True, slots=True)
class Recomputation:
    """How activations are saved by computing them again.

    Attributes:
        kind: ``none``, ``selective`` (modules of each layer, whose blocks come so) or ``full``.
        method: Which layers full recomputation is for: ``block``, the first `layers` of each part of the
            model; ``uniform``, all, in groups of `layers` that keep the input of their first.
        layers: That number; 0 for all layers, each on its own.

    Source: Megatron-Core, ``recompute_method`` and ``recompute_num_layers`` (TransformerConfig).
    """

    kind: str
    method: str = "block"
    layers: int = 0

    def modes(self, blocks: Sequence[Block]) -> tuple[Mode, ...]:
        """What each block of a part of the model keeps, in the order of the forward pass.

        Blocks that are no layer keep all; so does, of nothing, one that has no backward pass. No group
        reaches across one (from an encoder's last layers into the decoder).
        """
        return _modes(self, tuple(blocks))

    def _found(self, blocks: Sequence[Block]) -> tuple[Mode, ...]:
        found: list[Mode] = []
        place = 0
        for block in blocks:
            if block.name != "layer" or not block.backward:
                found.append("all")
                place = 0 if self.method == "uniform" else place
                continue
            found.append(self._mode(place))
            place += 1
        return tuple(found)

    def _mode(self, place: int) -> Mode:
        if self.kind != "full":
            return "all"
        if not self.layers:
            return "input"
        if self.method == "block":
            return "input" if place < self.layers else "all"
        return "input" if place % self.layers == 0 else "nothing"


@lru_cache(maxsize=4 * BLOCKS_KNOWN)
def _modes(recompute: Recomputation, blocks: tuple[Block, ...]) -> tuple[Mode, ...]:
    """Modes of a part of the model, which many parts and plans have in common."""
    return recompute._found(blocks)


def computed_again(modes: Sequence[Mode]) -> tuple[tuple[int, ...], ...]:
    """For each block the places of those that are computed again, in this order, before its backward pass.

    A group whose input alone is kept is computed again as a whole before the backward pass of its last block.
    """
    found: list[tuple[int, ...]] = [()] * len(modes)
    group: list[int] = []
    for place, mode in enumerate(modes):
        if mode == "nothing":
            found[group[-1]] = ()
            group.append(place)
        else:
            group = [place]
        if mode != "all":
            found[place] = tuple(group)
    return tuple(found)


def with_modules(scenario: Outline, blocks: Blocks) -> Blocks:
    """All blocks, with the modules that the scenario chooses computed again inside their layers.

    Raises:
        PlanError: No layer that is trained has a module.
    """
    training = scenario.training
    if training.recompute != "selective":
        return blocks
    modules = frozenset(training.recompute_modules or ("core_attention",))
    layers = {block for chunks in blocks for part in chunks for block in part if block.name == "layer"}
    there = {module for block in layers for module in modules_of(block)}
    lacking = sorted(modules - there)
    if lacking and training.recompute_modules is not None:
        raise PlanError(
            _MODULES, f'no layer that is trained has "{lacking[0]}"; there are {", ".join(sorted(there))}'
        )
    return tuple(
        tuple(
            tuple(recomputing(block, modules) if block.name == "layer" else block for block in part)
            for part in chunks
        )
        for chunks in blocks
    )


def recomputation(scenario: Outline) -> Recomputation:
    """The recomputation of a scenario, which `check_recomputation` has passed."""
    training = scenario.training
    return Recomputation(
        training.recompute, training.recompute_method or "block", training.recompute_num_layers or 0
    )


def check_recomputation(scenario: Outline, layers_per_part: Sequence[int]) -> None:
    """Refuses numbers of layers that mean nothing, or more than there are.

    Args:
        scenario: The scenario.
        layers_per_part: Layers of each part of the model.

    Raises:
        PlanError: With the arithmetic.
        UnsupportedError: Groups whose parameters are gathered layer by layer.
    """
    training = scenario.training
    number, method = training.recompute_num_layers, training.recompute_method
    if not isinstance(scenario.model, TransformerSpec) and training.recompute != "none":
        raise PlanError(
            ("training", "recompute"), "does nothing for a model given layer by layer: it has no such layers"
        )
    for key, value in ((_NUMBER, number), (_METHOD, method)):
        if value is not None and training.recompute != "full":
            raise PlanError(key, f'needs recompute: full, but it is "{training.recompute}"')
    _check_modules(scenario)
    if number is None:
        if method is not None:
            raise PlanError(_METHOD, f"{method} needs recompute_num_layers: how many layers")
        return
    most = max(layers_per_part)
    if number > most:
        parts = len(layers_per_part)
        where = f"a part of the model ({sum(layers_per_part)} layers in {parts} parts)"
        held = where if parts > 1 else "the model"
        raise PlanError(_NUMBER, f"{number} layers, but {held} has {most}; without it, all are recomputed")
    if method == "uniform" and number > 1 and scenario.parallelism.data_parallel_sharding == "parameters":
        raise UnsupportedError(
            _METHOD,
            f"groups of {number} layers are not modelled where parameters are gathered layer by layer; "
            "recompute_num_layers: 1 or recompute_method: block is",
        )


def _check_modules(scenario: Outline) -> None:
    """Refuses modules without a use.

    Raises:
        PlanError: Another kind of recomputation, no module, or one twice.
    """
    modules, kind = scenario.training.recompute_modules, scenario.training.recompute
    if modules is None:
        return
    if kind != "selective":
        raise PlanError(_MODULES, f'needs recompute: selective, but it is "{kind}"')
    if not modules:
        raise PlanError(_MODULES, "names none; recompute: none keeps everything")
    for place, module in enumerate(modules):
        if module in modules[:place]:
            raise PlanError(_MODULES, f"{module} stands there twice")
        whole = _INSIDE.get(module)
        if whole in modules:
            raise PlanError(_MODULES, f"{module} is part of {whole}, which is computed again as a whole")
