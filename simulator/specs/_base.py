"""What every block of a scenario shares: frozen, strict, and quantities with units."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from simulator.errors import UnitError
from simulator.units import Dimension, example, parse, render


class Spec(BaseModel):
    """A frozen description; unknown keys are refused and nothing is coerced silently."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


@dataclass(frozen=True, slots=True)
class Quantity:
    """Marks a float field as a quantity: text with a unit at the door, SI inside, text again when dumped."""

    dimension: Dimension
    allow_zero: bool = False

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(
            self._read,
            core_schema.float_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(self._write),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "examples": [example(self.dimension).split('"')[1]]}

    def _read(self, value: object) -> float:
        try:
            return parse(value, self.dimension, allow_zero=self.allow_zero)
        except UnitError as error:
            raise ValueError(str(error)) from None

    def _write(self, value: float) -> str:
        return render(value, self.dimension)


def whole(value: object) -> object:
    """An integer where a float or a number of an array is one; everything else as it is."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    # Integers of an array or a table are integers all the same; true and false are not.
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


Bytes = Annotated[float, Quantity("bytes")]
Bandwidth = Annotated[float, Quantity("bandwidth")]
Compute = Annotated[float, Quantity("compute")]
Seconds = Annotated[float, Quantity("time")]
Latency = Annotated[float, Quantity("time", allow_zero=True)]
Duration = Annotated[float, Quantity("duration")]
DurationOrZero = Annotated[float, Quantity("duration", allow_zero=True)]
Rate = Annotated[float, Quantity("rate")]
Frequency = Annotated[float, Quantity("frequency")]
Watts = Annotated[float, Quantity("power")]
MoneyRate = Annotated[float, Quantity("money_rate", allow_zero=True)]
Count = Annotated[int, BeforeValidator(whole), Field(ge=1, le=10**9)]
CountOrZero = Annotated[int, BeforeValidator(whole), Field(ge=0, le=10**9)]
PositiveFraction = Annotated[float, Field(gt=0.0, le=1000.0)]
