"""What a layer takes and gives: channels at positions, by its kind.

A sample (of a sequence, a token) is channels at positions: an image has height x width of them, a spectrogram
its frames, plain features none. What a layer says of its input must be what the one before it gives; where it
says both channels and sides, as many numbers in another shape will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Final

from simulator.specs.layers import (
    ActivationLayer,
    AttentionLayer,
    ConvolutionLayer,
    EmbeddingLayer,
    InputLayer,
    Layer,
    LinearLayer,
    LossLayer,
    NormLayer,
    PoolingLayer,
    RecurrentLayer,
    StackLayer,
    UpsamplingLayer,
)

_IMAGE: Final = 2
"""Dimensions of an input whose layer gives one number for all of them."""


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


def spread(sizes: tuple[int, ...], dimensions: int) -> tuple[int, ...]:
    """A size along each dimension."""
    return sizes * dimensions if len(sizes) == 1 else sizes


class Unfit(ValueError):
    """What is wrong with a layer, before it is known where that stands.

    Attributes:
        keys: Key of the layer, if one is to blame.
        stated: What the layer says that it takes, or what it cannot do.
        given: What it is given, if that is told.
        fix: What would make it fit.
    """

    def __init__(self, key: str, stated: str, given: Shape | None = None, fix: str = "") -> None:
        super().__init__(stated)
        self.keys: tuple[str, ...] = (key,) if key else ()
        self.stated, self.given, self.fix = stated, given, fix

    def told(self, before: str) -> str:
        """The whole of it, where what comes before is called `before`."""
        if self.given is None:
            return self.stated
        return f"takes {self.stated}, but {before} gives {self.given}" + (f"; {self.fix}" if self.fix else "")


def through(layer: Layer, x: Shape | None) -> tuple[Shape, Shape]:
    """What a layer takes, in the shape that it reads, and what it gives.

    Raises:
        Unfit: It does not fit.
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
        case UpsamplingLayer() | StackLayer():
            return _scaled(layer, _positions(_in_all(x, "", None), len(layer.factor)))
        case InputLayer():
            given = Shape(layer.shape[0], layer.shape[1:])
            return given, given
        case RecurrentLayer():
            taken = _in_all(x, "", None)
            if len(taken.positions) > 1:
                raise Unfit("", "one sequence of positions", taken)
            width = layer.hidden_size * (1 + layer.bidirectional)
            return taken, Shape(width, taken.positions)
        case _:
            taken = _in_all(x, "", None)
            return taken, taken


def _scaled(layer: UpsamplingLayer | StackLayer, x: Shape) -> tuple[Shape, Shape]:
    factors = spread(layer.factor, len(x.positions))
    sides = zip(x.positions, factors, strict=True)
    if isinstance(layer, UpsamplingLayer):
        return x, Shape(x.channels, tuple(side * by for side, by in sides))
    left = tuple(side // by for side, by in sides)
    if min(left) < 1:
        raise Unfit("factor", f"cannot stack {' x '.join(map(str, factors))} positions of {x}")
    return x, Shape(x.channels * prod(factors), left)


def _in_all(x: Shape | None, key: str, features: int | None) -> Shape:
    """Any shape of so many numbers, if a key says how many."""
    if x is None:
        if features is None:
            raise Unfit("", f"must say what it takes: {key or 'give the input of the model'}")
        return Shape(features)
    if features is not None and features != x.elements:
        raise Unfit(key, f"{features:,} ({key})", x, f"{key}: {x.elements} would fit")
    return x


def _linear(layer: LinearLayer, x: Shape | None) -> tuple[Shape, Shape]:
    width = layer.in_features
    if x is None:
        if width is None:
            raise Unfit("", "must say what it takes: in_features")
        x = Shape(width)
    if width in (None, x.channels):
        return x, Shape(layer.out_features, x.positions)
    if width != x.elements:
        raise Unfit("in_features", f"{width:,} (in_features)", x, f"in_features: {x.elements} would fit")
    return Shape(x.elements), Shape(layer.out_features)


def _normed(layer: NormLayer, x: Shape | None) -> tuple[Shape, Shape]:
    width, places = layer.features, layer.positions
    if x is None:
        if width is None:
            raise Unfit("", "must say what it takes: features")
        x = Shape(width, (places,) if places else ())
    wide = width if width is not None else x.channels
    many = places if places is not None else x.places
    if wide * many != x.elements:
        stated = f"{wide:,} x {many:,} (features x positions)"
        if x.elements % wide == 0 and places is not None:
            raise Unfit("positions", stated, x, f"positions: {x.elements // wide} would fit")
        raise Unfit("features", stated, x, f"features: {x.elements // many} would fit")
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
        raise Unfit("", f"must say what it takes: {key} and input_size, or give the input of the model")
    if sides is None:
        assert x is not None
        if channels not in (None, x.channels):
            raise Unfit(key, f"{channels:,} channels ({key})", x, f"{key}: {x.channels} would fit")
        return _positions(x, len(window))
    known = len(x.positions) if x is not None else 0
    stated = spread(sides, len(window) if len(window) > 1 else known or _IMAGE)
    wide = channels if channels is not None else (x.channels if x is not None else 0)
    whole = Shape(wide, stated)
    if x is not None and whole.elements != x.elements:
        many = prod(stated)
        fits = channels is not None and x.elements % many == 0
        fix = f"{key}: {x.elements // many} would fit" if fits else "no single key of it makes them meet"
        raise Unfit(key if fits else "input_size", f"{whole} ({key} x input_size)", x, fix)
    return whole


def _positions(x: Shape, dimensions: int) -> Shape:
    """The same, if it has positions, of as many dimensions as a layer says, if it says more than one."""
    if not x.positions:
        raise Unfit("", "channels at positions", x)
    if dimensions > 1 and dimensions != len(x.positions):
        raise Unfit("", f"{dimensions} dimensions", x)
    return x


def _convolved(layer: ConvolutionLayer, x: Shape) -> tuple[int, ...]:
    for key, channels in (("in_channels", x.channels), ("out_channels", layer.out_channels)):
        if channels % layer.groups:
            raise Unfit("groups", f"has {layer.groups} groups, which do not divide {key} {channels}")
    found = []
    count = len(x.positions)
    each = (
        spread(sizes, count) for sizes in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    try:
        along = list(zip(x.positions, *each, strict=True))
    except ValueError:
        raise Unfit("kernel_size", f"has lists for other than the {count} dimensions of {x}") from None
    for side, kernel, stride, padding, dilation in along:
        wide = dilation * (kernel - 1) + 1
        if layer.transposed:
            after = (side - 1) * stride + wide - 2 * padding
        else:
            after = (side + 2 * padding - wide) // stride + 1
        if after < 1:
            message = f"has a kernel of {wide} that does not fit an input of {side} + 2 x {padding}"
            raise Unfit("kernel_size", message)
        found.append(after)
    return tuple(found)


def _pooled(layer: PoolingLayer, x: Shape) -> tuple[int, ...]:
    count = len(x.positions)
    if layer.kernel_size is None:
        for key, is_given in (("stride", layer.stride is not None), ("padding", any(layer.padding))):
            if is_given:
                raise Unfit(key, f"has a {key} without kernel_size")
        sides = spread(layer.output_size or (1,), count)
        if len(sides) != count or any(after > side for after, side in zip(sides, x.positions, strict=True)):
            asked = " x ".join(map(str, sides))
            raise Unfit("output_size", f"cannot make {asked} out of {x} with a window")
        return sides
    if layer.output_size is not None:
        raise Unfit("output_size", "has both kernel_size and output_size")
    strides = layer.stride or layer.kernel_size
    each = (spread(sizes, count) for sizes in (layer.kernel_size, strides, layer.padding))
    found = tuple(
        (side + 2 * padding - kernel) // stride + 1
        for side, kernel, stride, padding in zip(x.positions, *each, strict=False)
    )
    if len(found) != count or min(found) < 1:
        raise Unfit("kernel_size", f"has windows that do not fit {x}")
    return found
