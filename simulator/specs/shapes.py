"""Shapes of what layers take and give, worked out from the first layer to the last.

A sample (of a sequence, a token) is channels at positions: an image has height x width of them, a spectrogram
its frames, plain features none. What a layer says of its input must be what the one before it gives; where it
says both channels and sides, as many numbers in another shape will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Final

from simulator.specs.layers import (
    ActivationLayer,
    AttentionLayer,
    BlockLayer,
    ConvolutionLayer,
    EmbeddingLayer,
    Layer,
    LinearLayer,
    LossLayer,
    NormLayer,
    PoolingLayer,
    SideLayer,
    UpsamplingLayer,
)

MOST_LAYERS: Final = 20_000
"""Layers that a model may have, repetitions counted."""

_IMAGE: Final = 2
"""Dimensions of an input whose layer gives one number for all of them."""

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
class Shape:
    """Channels at each of some positions.

    Attributes:
        channels: Numbers at each position.
        positions: Sides of the positions; none for plain features.
    """

    channels: int
    positions: tuple[int, ...] = ()

    @property
    def places(self) -> int:
        """Positions in all."""
        return prod(self.positions)

    @property
    def elements(self) -> int:
        """Numbers in all."""
        return self.channels * self.places

    def __str__(self) -> str:
        if not self.positions:
            return f"{self.channels:,}"
        return " x ".join(map(str, (self.channels, *self.positions))) + f" = {self.elements:,}"


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


def spread(sizes: tuple[int, ...], dimensions: int) -> tuple[int, ...]:
    """A size along each dimension."""
    return sizes * dimensions if len(sizes) == 1 else sizes


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
        self, layers: Sequence[Layer], x: Shape | None, prefix: str, loc: Loc
    ) -> tuple[tuple[Placed, ...], Shape | None]:
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
            if isinstance(layer, SideLayer):
                found.append(self._side(layer, x, number, here))
                continue
            try:
                takes, gives = through(layer, x)
            except _Wrong as wrong:
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
            way, end = self.run(layer.shortcut, source, name, (*loc, "shortcut"))
            ways.append(way)
            whole = self._joined(layer, number, whole, end or source, loc)
        self.last = f"block {number}"
        return Placed(layer, number, takes, whole, tuple(ways))

    def _joined(self, layer: BlockLayer, number: str, main: Shape, side: Shape, loc: Loc) -> Shape:
        told = f"block {number}: its layers give {main}, its shortcut {side}"
        if layer.join == "sum" and main != side:
            message = f"{told}; a sum wants the same of both"
            raise Misfit((*loc, "shortcut"), message)
        if main.positions != side.positions:
            message = f"{told}; positions must be the same"
            raise Misfit((*loc, "shortcut"), message)
        return main if layer.join == "sum" else Shape(main.channels + side.channels, main.positions)


def _known(x: Shape | None, loc: Loc, number: str) -> Shape:
    if x is None:
        raise Misfit(loc, f"layer {number}: nothing says what it takes; give the model's input")
    return x


class _Wrong(ValueError):
    """What is wrong with a layer, before it is known where that stands.

    Attributes:
        keys: Key of the layer, if one is to blame.
        stated: What the layer says that it takes, or what it cannot do.
        given: What it is given, if that is told.
        fix: What would make it fit.
    """

    def __init__(self, key: str, stated: str, given: Shape | None = None, fix: str = "") -> None:
        super().__init__(stated)
        self.keys: Loc = (key,) if key else ()
        self.stated, self.given, self.fix = stated, given, fix

    def told(self, before: str) -> str:
        if self.given is None:
            return self.stated
        return f"takes {self.stated}, but {before} gives {self.given}" + (f"; {self.fix}" if self.fix else "")


def through(layer: Layer, x: Shape | None) -> tuple[Shape, Shape]:
    """What a layer takes, in the shape that it reads, and what it gives.

    Raises:
        ValueError: It does not fit.
    """
    match layer:
        case LinearLayer():
            return _linear(layer, x)
        case ConvolutionLayer():
            taken = _meet(x, "in_channels", layer.in_channels, layer.input_size, layer.kernel_size)
            return taken, Shape(layer.out_channels, _convolved(layer, taken))
        case PoolingLayer():
            window = layer.kernel_size or layer.output_size or (1,)
            taken = _meet(x, "channels", layer.channels, layer.input_size, window)
            return taken, Shape(taken.channels, _pooled(layer, taken))
        case NormLayer():
            return _normed(layer, x)
        case AttentionLayer():
            taken = _in_all(x, "hidden_size", layer.hidden_size)
            return taken, taken
        case ActivationLayer() | LossLayer():
            taken = _in_all(x, "features", layer.features)
            return taken, taken
        case EmbeddingLayer():
            return x or Shape(1), Shape(layer.embedding_dim, x.positions if x else ())
        case UpsamplingLayer():
            taken = _positions(_in_all(x, "", None), len(layer.factor))
            factors = spread(layer.factor, len(taken.positions))
            sides = tuple(side * by for side, by in zip(taken.positions, factors, strict=True))
            return taken, Shape(taken.channels, sides)
        case _:
            taken = _in_all(x, "", None)
            return taken, taken


def _in_all(x: Shape | None, key: str, features: int | None) -> Shape:
    """Any shape of so many numbers, if a key says how many."""
    if x is None:
        if features is None:
            raise _Wrong("", f"must say what it takes: {key or 'give the input of the model'}")
        return Shape(features)
    if features is not None and features != x.elements:
        raise _Wrong(key, f"{features:,} ({key})", x, f"{key}: {x.elements} would fit")
    return x


def _linear(layer: LinearLayer, x: Shape | None) -> tuple[Shape, Shape]:
    width = layer.in_features
    if x is None:
        if width is None:
            raise _Wrong("", "must say what it takes: in_features")
        x = Shape(width)
    if width in (None, x.channels):
        return x, Shape(layer.out_features, x.positions)
    if width != x.elements:
        raise _Wrong("in_features", f"{width:,} (in_features)", x, f"in_features: {x.elements} would fit")
    return Shape(x.elements), Shape(layer.out_features)


def _normed(layer: NormLayer, x: Shape | None) -> tuple[Shape, Shape]:
    width, places = layer.features, layer.positions
    if x is None:
        if width is None:
            raise _Wrong("", "must say what it takes: features")
        x = Shape(width, (places,) if places else ())
    wide = width if width is not None else x.channels
    many = places if places is not None else x.places
    if wide * many != x.elements:
        stated = f"{wide:,} x {many:,} (features x positions)"
        if x.elements % wide == 0 and places is not None:
            raise _Wrong("positions", stated, x, f"positions: {x.elements // wide} would fit")
        raise _Wrong("features", stated, x, f"features: {x.elements // many} would fit")
    taken = x if wide == x.channels else Shape(wide, (many,) if many > 1 else ())
    return taken, x


def _meet(
    x: Shape | None,
    key: str,
    channels: int | None,
    sides: tuple[int, ...] | None,
    window: tuple[int, ...],
) -> Shape:
    """The shape that a layer with a window reads."""
    if x is None and (channels is None or sides is None):
        raise _Wrong("", f"must say what it takes: {key} and input_size, or give the input of the model")
    if sides is None:
        assert x is not None
        if channels not in (None, x.channels):
            raise _Wrong(key, f"{channels:,} channels ({key})", x, f"{key}: {x.channels} would fit")
        return _positions(x, len(window))
    known = len(x.positions) if x is not None else 0
    stated = spread(sides, len(window) if len(window) > 1 else known or _IMAGE)
    wide = channels if channels is not None else (x.channels if x is not None else 0)
    whole = Shape(wide, stated)
    if x is not None and whole.elements != x.elements:
        many = prod(stated)
        fits = channels is not None and x.elements % many == 0
        fix = f"{key}: {x.elements // many} would fit" if fits else "no single key of it makes them meet"
        raise _Wrong(key if fits else "input_size", f"{whole} ({key} x input_size)", x, fix)
    return whole


def _positions(x: Shape, dimensions: int) -> Shape:
    """The same, if it has positions, of as many dimensions as a layer says, if it says more than one."""
    if not x.positions:
        raise _Wrong("", "channels at positions", x)
    if dimensions > 1 and dimensions != len(x.positions):
        raise _Wrong("", f"{dimensions} dimensions", x)
    return x


def _convolved(layer: ConvolutionLayer, x: Shape) -> tuple[int, ...]:
    for key, channels in (("in_channels", x.channels), ("out_channels", layer.out_channels)):
        if channels % layer.groups:
            raise _Wrong("groups", f"has {layer.groups} groups, which do not divide {key} {channels}")
    found = []
    count = len(x.positions)
    each = (
        spread(sizes, count) for sizes in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    try:
        along = list(zip(x.positions, *each, strict=True))
    except ValueError:
        raise _Wrong("kernel_size", f"has lists for other than the {count} dimensions of {x}") from None
    for side, kernel, stride, padding, dilation in along:
        wide = dilation * (kernel - 1) + 1
        if layer.transposed:
            after = (side - 1) * stride + wide - 2 * padding
        else:
            after = (side + 2 * padding - wide) // stride + 1
        if after < 1:
            message = f"has a kernel of {wide} that does not fit an input of {side} + 2 x {padding}"
            raise _Wrong("kernel_size", message)
        found.append(after)
    return tuple(found)


def _pooled(layer: PoolingLayer, x: Shape) -> tuple[int, ...]:
    count = len(x.positions)
    if layer.kernel_size is None:
        for key, is_given in (("stride", layer.stride is not None), ("padding", any(layer.padding))):
            if is_given:
                raise _Wrong(key, f"has a {key} without kernel_size")
        sides = spread(layer.output_size or (1,), count)
        if len(sides) != count or any(after > side for after, side in zip(sides, x.positions, strict=True)):
            asked = " x ".join(map(str, sides))
            raise _Wrong("output_size", f"cannot make {asked} out of {x} with a window")
        return sides
    if layer.output_size is not None:
        raise _Wrong("output_size", "has both kernel_size and output_size")
    strides = layer.stride or layer.kernel_size
    each = (spread(sizes, count) for sizes in (layer.kernel_size, strides, layer.padding))
    found = tuple(
        (side + 2 * padding - kernel) // stride + 1
        for side, kernel, stride, padding in zip(x.positions, *each, strict=False)
    )
    if len(found) != count or min(found) < 1:
        raise _Wrong("kernel_size", f"has windows that do not fit {x}")
    return found
