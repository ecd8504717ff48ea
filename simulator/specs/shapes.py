"""Layers of a list in their places, each with the shapes that it takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from simulator.specs.fits import Shape, Unfit, through
from simulator.specs.layers import BlockLayer, InputLayer, Layer, LossLayer, SideLayer

MOST_LAYERS: Final = 20_000
"""Layers that a model may have, repetitions counted."""

Loc = tuple[str | int, ...]


class Misfit(ValueError):
    """A layer that does not fit what comes before it.

    Attributes:
        loc: Keys and places from the list of layers down to what is wrong.
        message: What is wrong with it.
    """

    def __init__(self, loc: Loc, message: str) -> None:
        super().__init__(message)
        self.loc, self.message = loc, message


@dataclass(frozen=True, slots=True)
class Placed:
    """A layer in its place.

    Attributes:
        layer: The layer.
        name: Places and kind, such as ``4.0.1.convolution``.
        takes: Shape that it takes.
        gives: Shape that it gives.
        ways: Of a block its layers and those of each shortcut, of a side its layers; none of others.
    """

    layer: Layer
    name: str
    takes: Shape
    gives: Shape
    ways: tuple[tuple[Placed, ...], ...] = ()


def placed(layers: Sequence[Layer], first: Shape | None) -> tuple[Placed, ...]:
    """All layers in their places; each repetition of a block is a layer of its own.

    Args:
        layers: The list.
        first: Shape of a sample, if the model gives it.

    Raises:
        Misfit: A layer that does not fit.
    """
    return _Placing().run(layers, first, "", ())[0]


def leaves(items: Sequence[Placed]) -> Iterator[Placed]:
    """Layers that hold no others, in order."""
    for item in items:
        if item.ways:
            for way in item.ways:
                yield from leaves(way)
        elif not isinstance(item.layer, BlockLayer | SideLayer):
            yield item


@dataclass(slots=True)
class _Placing:
    """Goes along the layers.

    Attributes:
        dense: Inputs of dense blocks so far.
        count: Layers so far.
        last: Kind and place of the layer whose output is at hand, in words.
    """

    dense: list[Shape] = field(default_factory=list)
    count: int = 0
    last: str = "the input"

    def run(
        self, layers: Sequence[Layer], x: Shape | None, prefix: str, loc: Loc, *, begins: bool = False
    ) -> tuple[tuple[Placed, ...], Shape | None]:
        """Layers one behind the other; on a way that `begins`, an input of its own may be first."""
        found: list[Placed] = []
        for place, layer in enumerate(layers):
            here: Loc = (*loc, place)
            number = f"{prefix}{place}"
            if isinstance(layer, BlockLayer):
                for time in range(layer.repeat):
                    name = f"{number}.{time}" if layer.repeat > 1 else number
                    found.append(self._block(layer, x, name, here))
                    x = found[-1].gives
                continue
            self._counted(here)
            if isinstance(layer, InputLayer) and (place or not begins):
                raise Misfit(here, f"layer {number} (input) can only be the first of a shortcut")
            if isinstance(layer, SideLayer):
                found.append(self._side(layer, x, number, here))
                continue
            try:
                takes, gives = through(layer, x)
            except Unfit as wrong:
                raise Misfit(
                    here + wrong.keys, f"layer {number} ({layer.type}) {wrong.told(self.last)}"
                ) from None
            x, self.last = gives, f"layer {number} ({layer.type})"
            found.append(Placed(layer, f"{number}.{layer.type}", takes, gives))
        return tuple(found), x

    def _counted(self, loc: Loc) -> None:
        self.count += 1
        if self.count > MOST_LAYERS:
            raise Misfit(loc, f"more than {MOST_LAYERS:,} layers, repetitions counted")

    def _side(self, layer: SideLayer, x: Shape | None, number: str, loc: Loc) -> Placed:
        if not isinstance(layer.layers[-1], LossLayer):
            raise Misfit((*loc, "layers"), "must end in a loss, or nothing comes of it")
        before, taken = self.last, _known(x, loc, number)
        inner, _ = self.run(layer.layers, taken, f"{number}.", (*loc, "layers"))
        self.last = before
        return Placed(layer, f"{number}.side", taken, taken, (inner,))

    def _block(self, layer: BlockLayer, x: Shape | None, number: str, loc: Loc) -> Placed:
        self._counted((*loc, "repeat"))
        before = self.last
        main, gives = self.run(layer.layers, x, f"{number}.", (*loc, "layers"))
        takes = main[0].takes if x is None else x
        assert gives is not None, "a block has a layer"
        if layer.shortcut is None:
            for key, is_given in (("dense", layer.dense), ("join", layer.join != "sum")):
                if is_given:
                    raise Misfit((*loc, key), "does nothing without a shortcut")
            return Placed(layer, number, takes, gives, (main,))
        sources = [*self.dense, takes] if layer.dense else [takes]
        if layer.dense:
            self.dense.append(takes)
        ways, whole = [main], gives
        for place, source in enumerate(sources):
            self.last = before
            name = f"{number}.shortcut." + (f"{place}." if layer.dense else "")
            way, end = self.run(layer.shortcut, source, name, (*loc, "shortcut"), begins=True)
            ways.append(way)
            whole = self._joined(layer, number, whole, end or source, loc)
        self.last = f"block {number}"
        return Placed(layer, number, takes, whole, tuple(ways))

    def _joined(self, layer: BlockLayer, number: str, main: Shape, side: Shape, loc: Loc) -> Shape:
        told = f"block {number}: its layers give {main}, its shortcut {side}"
        if layer.join == "sum" and main != side:
            message = f"{told}; a sum wants the same of both"
            raise Misfit((*loc, "shortcut"), message)
        if layer.join in ("outer_sum", "scale") and main.channels != side.channels:
            raise Misfit((*loc, "shortcut"), f"{told}; channels must be the same")
        if layer.join == "scale":
            if main.places != 1:
                raise Misfit((*loc, "layers"), f"{told}; what scales has one position")
            return side
        if layer.join == "outer_sum":
            return Shape(main.channels, (*main.positions, *side.positions))
        if main.positions != side.positions:
            message = f"{told}; positions must be the same"
            raise Misfit((*loc, "shortcut"), message)
        return main if layer.join == "sum" else Shape(main.channels + side.channels, main.positions)


def _known(x: Shape | None, loc: Loc, number: str) -> Shape:
    if x is None:
        raise Misfit(loc, f"layer {number}: nothing says what it takes; give the model's input")
    return x
