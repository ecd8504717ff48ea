"""A model given layer by layer."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from simulator.specs._base import Count, Spec
from simulator.specs.fits import Shape
from simulator.specs.layers import Layer
from simulator.specs.shapes import Misfit, Placed, placed


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class LayerListSpec(Spec):
    """A model given layer by layer; linear, norm and activation layers act on every token of a sample."""

    kind: Literal["layers"] = "layers"
    """Which form of model this block describes."""
    name: str
    """Name, as shown in reports."""
    input: Annotated[tuple[Count, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=4)] | None = (
        None
    )
    """Shape of a sample: channels, then its sides (an image's height and width, a spectrogram's frames); if
    not given, the first layer says what it takes."""
    layers: tuple[Layer, ...] = Field(min_length=1)
    """Layers in order; each takes what the one before it gives, so keys of its input may be left out."""

    @field_validator("layers")
    @classmethod
    def _shapes_meet(cls, layers: tuple[Layer, ...], info: ValidationInfo) -> tuple[Layer, ...]:
        if "input" not in info.data:
            return layers
        try:
            placed(layers, _first(info.data["input"]))
        except Misfit as misfit:
            problem = PydanticCustomError("value_error", "{error}", {"error": misfit.message})
            details = InitErrorDetails(type=problem, loc=misfit.loc, input=None)
            raise ValidationError.from_exception_data(cls.__name__, [details]) from None
        return layers


@lru_cache(maxsize=64)
def placed_layers(model: LayerListSpec) -> tuple[Placed, ...]:
    """The model's layers in their places, with the shapes that each takes and gives."""
    return placed(model.layers, _first(model.input))


def _first(shape: tuple[int, ...] | None) -> Shape | None:
    return None if shape is None else Shape(shape[0], shape[1:])
