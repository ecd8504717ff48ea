"""A teacher whose predictions a model is trained on."""

from __future__ import annotations

from simulator.specs._base import Count, Spec
from simulator.specs.model import TransformerSpec


class DistillationSpec(Spec):
    """Knowledge distillation: a frozen teacher reads the same tokens, and the student learns its logits.

    The teacher is split over the same GPUs as the student: its matrices by `tensor_parallel`, its layers over
    the same stages, its parameters over the replicas where the student's are (`data_parallel_sharding`).
    """

    teacher: TransformerSpec
    """The teacher, in any form of `model`: a name, `base` and changes, `config`, or in full."""
    top_k: Count | None = None
    """Logits of each token that are compared, the teacher's largest; all if not given."""
