"""A teacher whose predictions a model is trained on."""

from __future__ import annotations

from typing import Literal

from simulator.specs._base import Count, Spec
from simulator.specs.model import TransformerSpec


class DistillationSpec(Spec):
    """Knowledge distillation: a frozen teacher reads the same tokens, and the student learns its logits.

    The teacher is split over the same GPUs as the student: its matrices by `tensor_parallel`, its layers over
    the same stages.
    """

    teacher: TransformerSpec
    """The teacher, in any form of `model`: a name, `base` and changes, `config`, or in full."""
    teacher_sharding: Literal["none", "parameters"] | None = None
    """Whether replicas share out the teacher's parameters and gather them layer by layer; if not given, where
    they do so with the student's."""
    top_k: Count | None = None
    """Logits of each token that are compared, the teacher's largest; all if not given."""
