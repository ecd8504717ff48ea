"""A whole training: how much of it, what interrupts it, and what an interruption takes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from simulator.specs._base import Count, CountOrZero, Duration, DurationOrZero, Spec, whole

Amount = Annotated[int, BeforeValidator(whole), Field(ge=1, le=10**18)]


class FailureSpec(Spec):
    """One cause of interruptions; what lies between two of them is exponentially distributed."""

    mean_time: Duration
    """Mean time between failures of one `of` while the job runs."""
    of: Literal["gpu", "node", "job"] = "node"
    """What fails: every accelerator, every node, or the job as one whatever its size."""
    repair: Duration | None = None
    """How long the node is away, so that a spare must take its place; if not given, it goes on itself."""
    detection: DurationOrZero | None = None
    """From the failure to its being noticed; `campaign.detection` if not given."""


class CampaignSpec(Spec):
    """A whole training with its interruptions; give one of `tokens`, `samples`, `steps`."""

    tokens: Amount | None = None
    """Tokens to train on, those of all stacks of a model together."""
    samples: Amount | None = None
    """Samples (sequences) to train on."""
    steps: Amount | None = None
    """Steps to train."""
    restart: DurationOrZero
    """From a failure's being noticed to the first step: processes, communicators, compiling; reading the
    checkpoint comes on top and is computed."""
    failures: dict[str, FailureSpec] = Field(default_factory=dict)
    """Cause -> how often it interrupts, and what it takes; nothing fails if not given."""
    detection: DurationOrZero = 600.0
    """From a failure to its being noticed; if not given, when PyTorch's collectives on NCCL give up."""
    spare_nodes: CountOrZero = 0
    """Nodes that stand by, of the first node group's kind."""
    runs: Annotated[Count, Field(le=100_000)] = 100
    """Times that the training is drawn."""

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        given = [key for key in ("tokens", "samples", "steps") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f'give one of "tokens", "samples", "steps", not {" and ".join(given) or "none"}')
        return self
