"""What makes ranks differ from one another: random spread of times, and GPUs that are slower than others."""

from __future__ import annotations

from math import sqrt
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from simulator.specs._base import Count, CountOrZero, Spec


def _part(value: Any) -> Any:
    """A percentage in text, such as ``1 %``, as a fraction; numbers stay what they are."""
    if isinstance(value, str) and len(value) <= 40 and value.rstrip().endswith("%"):
        try:
            return float(value.rstrip()[:-1].replace("_", "x")) / 100
        except ValueError:
            raise ValueError(f'"{value}" is not a percentage; write for example 1 %') from None
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Part = Annotated[float, BeforeValidator(_part)]
"""A fraction, or a percentage in text."""


class DistributionSpec(Spec):
    """A random factor with mean 1."""

    distribution: Literal["lognormal", "gamma", "uniform"] = "lognormal"
    """Its kind; all have mean 1 and are positive."""
    sigma: Part = Field(gt=0.0, le=1.0)
    """Standard deviation of the factor, as a fraction or in percent (`1 %`)."""

    @model_validator(mode="after")
    def _stays_positive(self) -> Self:
        if self.distribution == "uniform" and self.sigma >= 1 / sqrt(3):
            raise ValueError("a uniform factor with mean 1 is positive for sigma below 57.7 % only")
        return self


class JitterSpec(Spec):
    """How much times vary from replica to replica; what is not given does not vary."""

    kernels: DistributionSpec | None = None
    """Kernels: a factor for each replica, stage and pass (the kernels of a pass share it)."""
    nodes: DistributionSpec | None = None
    """Nodes: a factor on all kernels of a node for the whole run."""
    links: DistributionSpec | None = None
    """Links: a factor on all transfers of a stage in a replica for the whole run; the slowest member sets
    the pace of a collective."""
    contention: Literal["exact", "undisturbed"] = "exact"
    """Where activities share a capacity: `exact` plays every replica by events; `undisturbed` takes the
    lengths that they have without jitter, which is quick and neglects that jitter moves what overlaps."""


class SlowGpusSpec(Spec):
    """GPUs that are slower than the others: which, or how many drawn at random, and how much."""

    ranks: tuple[CountOrZero, ...] | None = None
    """Ranks of the slow GPUs, from 0."""
    count: Count | None = None
    """How many slow GPUs, drawn anew with every seed."""
    slowdown: Part = Field(gt=0.0, le=100.0)
    """By how much longer their kernels take, as a fraction or in percent (`20 %`)."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.ranks is None) == (self.count is None):
            raise ValueError('give either "ranks" or "count"')
        if self.ranks is not None and (not self.ranks or len(set(self.ranks)) < len(self.ranks)):
            raise ValueError("ranks: expected at least one rank, and each once")
        return self
