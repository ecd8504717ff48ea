"""A model given layer by layer: each layer as a block with its forward and backward pass on one GPU.

Ways of a block run one after the other, shortcuts first. A tensor that several layers need for their backward
passes is kept once, by the first of them; gradients that come back on several ways are added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from simulator.specs.layer_list import placed_layers
from simulator.specs.layers import (
    ActivationLayer,
    BlockLayer,
    EmbeddingLayer,
    InputLayer,
    NormLayer,
    SideLayer,
)
from simulator.specs.model import LayerListSpec
from simulator.specs.shapes import Placed
from simulator.workload.blocks import Block, PassBuilder, Shard
from simulator.workload.kernels import Kernel
from simulator.workload.list_layers import BUILDERS
from simulator.workload.operators import pointwise
from simulator.workload.parameters import layer_parameters
from simulator.workload.sites import Site, Tensor

_KNOWN = 16
"""Models on shards whose blocks are remembered, so that what follows from them is worked out once."""


@lru_cache(maxsize=_KNOWN)
def layer_list_blocks(
    model: LayerListSpec, shard: Shard, untrained: frozenset[str] = frozenset()
) -> tuple[Block, ...]:
    """One block a layer, in order; the first that is trained needs no gradient of its input.

    Args:
        model: The layers.
        shard: One GPU's part of the micro-batch.
        untrained: Names of layers whose parameters are not trained.
    """
    items = placed_layers(model)
    walk = _Walk(shard, untrained)
    walk.run(items, Tensor(items[0].takes.elements * shard.tokens, flows=False))
    return tuple(walk.blocks)


@dataclass(slots=True)
class _Walk:
    """Goes along the layers.

    Attributes:
        shard: One GPU's part of the micro-batch.
        untrained: Names of layers whose parameters are not trained.
        blocks: Blocks so far.
        dense: Inputs of dense blocks so far.
    """

    shard: Shard
    untrained: frozenset[str]
    blocks: list[Block] = field(default_factory=list)
    dense: list[Tensor] = field(default_factory=list)

    def run(
        self, items: Sequence[Placed], x: Tensor, beside: int = 0, ending: Tensor | None = None
    ) -> Tensor:
        """Runs layers one after the other.

        Args:
            items: The layers.
            x: What the first reads.
            beside: Gradients that wait meanwhile for layers on other ways [B].
            ending: What the last, a norm, adds and activates.

        Returns:
            What the last writes.
        """
        place = 0
        while place < len(items):
            item = items[place]
            behind = items[place + 1] if place + 1 < len(items) else None
            joined = ending if place == len(items) - 1 else None
            fused = _activates(behind)
            if isinstance(item.layer, SideLayer):
                self._meet(item, x)
                self.run(item.ways[0], x, beside + self._bytes(x))
                fused = False
            elif isinstance(item.layer, BlockLayer):
                fused = fused and _ends_in_norm(item) and self.shard.software.fused_norm_activation
                x = self._block(item, x, beside, fused=fused)
            else:
                fused = fused and _over_a_batch(item) and self.shard.software.fused_norm_activation
                x = self._leaf(item, x, beside, joined, activated=fused or joined is not None)
            place += 2 if fused else 1
        return x

    def _leaf(
        self, item: Placed, x: Tensor, beside: int, joined: Tensor | None = None, *, activated: bool = False
    ) -> Tensor:
        if isinstance(item.layer, InputLayer):
            return Tensor(item.gives.elements * self.shard.tokens, flows=False)
        parameters, fixed = layer_parameters(item), f"layers.{item.name}" in self.untrained
        trains = parameters > 0 and not fixed
        flows = x.flows or trains or (joined is not None and joined.flows)
        y = Tensor(item.gives.elements * self.shard.tokens, flows)
        shard = replace(self.shard, frozen=frozenset({item.name})) if fixed else self.shard
        site = Site(
            item.name, item.layer, item.takes, item.gives, shard, x, y, trains, flows, joined, activated
        )
        BUILDERS[type(item.layer)](site, item.layer)
        y.convolved = any(isinstance(n.op, Kernel) and n.op.kind == "convolution" for n in site.forward.nodes)
        block = site.block(parameters, beside)
        if isinstance(item.layer, EmbeddingLayer):
            block = replace(block, input_bytes=8 * x.elements)
        self.blocks.append(block)
        return y

    def _block(self, item: Placed, x: Tensor, beside: int, *, fused: bool) -> Tensor:
        layer, (main, *shortcuts) = item.layer, item.ways
        assert isinstance(layer, BlockLayer)
        if layer.shortcut is None:
            return self.run(main, x, beside)
        sources = [*self.dense, x] if layer.dense else [x]
        if layer.dense:
            self.dense.append(x)
        ends = []
        for way, source in zip(shortcuts, sources, strict=True):
            if not (way and isinstance(way[0].layer, InputLayer)):
                self._meet(item, source)
            ends.append(self.run(way, source, beside + self._bytes(source)))
        waiting = beside + item.gives.elements * self.shard.tokens * self.shard.element_bytes
        if fused:
            return self.run(main, x, waiting, ending=ends[0])
        y = self.run(main, x, waiting)
        for end in ends:
            y = self._join(layer, item, y, end)
        return y

    def _join(self, layer: BlockLayer, item: Placed, main: Tensor, side: Tensor) -> Tensor:
        """Two ways as one.

        A sum, whose gradient is that of both; a copy of both side by side, and of their gradients; a sum of
        each position with each, whose gradient is summed over either; or a product, whose gradients read what
        was scaled.
        """
        flows, e = main.flows or side.flows, self.shard.element_bytes
        elements, kept = item.gives.elements * self.shard.tokens, 0
        forward: tuple[float, float] = (e, e)
        backward: tuple[float, float] | None = (e, e)
        if layer.join == "sum":
            forward, backward = (2 * e, e), None
        elif layer.join == "concatenate":
            elements = main.elements + side.elements
        elif layer.join == "outer_sum":
            share = e * (main.elements + side.elements) / elements
            forward, backward = (share, e), (2 * e, share)
        else:
            backward, kept = (3 * e, e), elements * e * (flows and not side.kept)
            side.kept |= flows
        name, into, back = f"{item.name}.{layer.join}", PassBuilder(), PassBuilder()
        into.add(_moved(name, elements, forward), kept=kept)
        if backward is not None and flows:
            back.add(_moved(f"{name}.gradient", elements, backward), freed=kept)
        size = elements * e
        self.blocks.append(Block(name, into.done(), back.done(), 0, size, carried_bytes=size))
        return Tensor(elements, flows)

    def _meet(self, item: Placed, x: Tensor) -> None:
        """The gradient of one more way from a tensor, added to that of the others."""
        if not x.flows:
            return
        element, back = self.shard.element_bytes, PassBuilder()
        name = f"{item.name.removesuffix('.side')}.gradient_sum"
        back.add(pointwise(name, "elementwise", x.elements, reads=2 * element, writes=element, flops=1))
        self.blocks.append(Block(name, (), back.done(), 0, self._bytes(x)))

    def _bytes(self, tensor: Tensor) -> int:
        """Bytes of a tensor, or of its gradient."""
        return tensor.elements * self.shard.element_bytes


def _moved(name: str, elements: int, traffic: tuple[float, float]) -> Kernel:
    """An element-wise kernel, by the bytes of an element that it reads and writes."""
    return pointwise(name, "elementwise", elements, reads=traffic[0], writes=traffic[1], flops=1)


def _activates(item: Placed | None) -> bool:
    """Whether this is an activation that norms are fused with."""
    return item is not None and isinstance(item.layer, ActivationLayer) and item.layer.function == "relu"


def _over_a_batch(item: Placed) -> bool:
    """Whether this is a norm that activations are fused with."""
    return isinstance(item.layer, NormLayer) and item.layer.norm in ("batchnorm", "instancenorm")


def _ends_in_norm(item: Placed) -> bool:
    """Whether a block is a sum of two ways of which the first ends in such a norm."""
    layer = item.layer
    assert isinstance(layer, BlockLayer)
    one = layer.shortcut is not None and len(item.ways) == 2 and layer.join == "sum"
    return one and _over_a_batch(item.ways[0][-1])
