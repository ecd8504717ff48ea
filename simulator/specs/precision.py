"""In which precision parameters, gradients and state lie, and in which they travel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from simulator.specs._base import Spec

TrainingPrecision = Literal[
    "fp32", "tf32", "fp16", "bf16", "fp8", "fp8_current", "fp8_block", "mxfp8", "nvfp4"
]
StoredPrecision = Literal["fp32", "fp16", "bf16", "fp8", "fp8_current", "fp8_block", "mxfp8", "nvfp4"]
"""tf32 is a precision of products; its operands lie in memory as fp32."""


@dataclass(frozen=True, slots=True)
class OneFor:
    """Marks a mapping of precisions that may be one precision instead, which is that of the given keys."""

    keys: tuple[str, ...]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(get_args(StoredPrecision))}, handler(schema)]}

    def _read(self, value: object) -> object:
        if value is None or isinstance(value, (Mapping, Spec)):
            return {} if value is None else value
        known = isinstance(value, str) and value in get_args(StoredPrecision)
        return dict.fromkeys(self.keys if known else self.keys[:1], value)


class CommunicationPrecisionSpec(Spec):
    """Precisions in which something travels."""

    gradients: StoredPrecision | None = None
    """Of gradients that replicas reduce; that in which they are accumulated if not given."""
    parameters: StoredPrecision | None = None
    """Of parameters that replicas gather; that in which they are kept if not given."""
    tensor: StoredPrecision | None = None
    """Of operands that tensor-parallel GPUs gather with `sequence_parallel`; that of the products if not
    given. What they sum is in that of the passes."""
    dispatch: StoredPrecision | None = None
    """Of tokens on their way to experts, and of gradients of what these make of them; that of the passes if
    not given."""
    combine: StoredPrecision | None = None
    """Of both on their way back; that of the passes if not given."""


class OptimizerPrecisionSpec(Spec):
    """Precisions of what the optimizer keeps."""

    first_moment: StoredPrecision = "fp32"
    """Of the mean of gradients (momentum)."""
    second_moment: StoredPrecision = "fp32"
    """Of the mean of their squares, or of their sum."""
    master: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of its own copy of the parameters, where `master_parameters` has one."""


CommunicationPrecision = Annotated[CommunicationPrecisionSpec, OneFor(("gradients",))]
OptimizerPrecision = Annotated[OptimizerPrecisionSpec, OneFor(("first_moment", "second_moment"))]
