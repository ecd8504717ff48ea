"""A scenario without the figures of its hardware: all that the structure of a Program may depend on.

Whatever plans, lays out and compiles gets an `Outline`, in which no rate, bandwidth or latency of a device
can be found. Scenarios with equal outlines therefore have the same plan, the same activities and the same
classes, and differ in prices only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simulator.scenario import Scenario
from simulator.specs.distillation import DistillationSpec
from simulator.specs.hardware import ClusterSpec
from simulator.specs.model import ModelSpec
from simulator.specs.software import SoftwareSpec
from simulator.specs.training import DataSpec, ParallelismSpec, TrainingSpec


@dataclass(frozen=True, slots=True)
class ClusterShape:
    """How many of everything a cluster has, and how it is put together.

    Attributes:
        groups: Node groups; the other figures are those of the first.
        nodes: Nodes.
        gpus_per_node: Accelerators in a node.
        domain: Accelerators in a scale-up domain.
        num_gpus: Accelerators of all groups.
        unequal_pairs: Whether some pairs in a domain have more links between them than others.
        oversubscribed: Whether the fabric's core can be the limit.
        storage: ``local``, ``shared``, or None where there is none.
        drives: Whether every node has drives.
        any_fp8_layout: Whether operands in fp8 are read in any layout.
    """

    groups: int
    nodes: int
    gpus_per_node: int
    domain: int
    num_gpus: int
    unequal_pairs: bool
    oversubscribed: bool
    storage: Literal["local", "shared"] | None
    drives: bool = False
    any_fp8_layout: bool = False

    @staticmethod
    def of(cluster: ClusterSpec) -> ClusterShape:
        """The shape of a cluster."""
        group = cluster.node_groups[0]
        return ClusterShape(
            groups=len(cluster.node_groups),
            nodes=group.nodes,
            gpus_per_node=group.gpus_per_node,
            domain=group.domain,
            num_gpus=cluster.num_gpus,
            unequal_pairs=group.scale_up.pair_links is not None,
            oversubscribed=cluster.fabric.oversubscription > 1,
            storage=None if cluster.storage is None else cluster.storage.kind,
            drives=cluster.node_drives is not None,
            any_fp8_layout=group.accelerator.any_fp8_layout,
        )


@dataclass(frozen=True, slots=True)
class Outline:
    """What is trained, how, and on a cluster of what shape; blocks are those of the scenario.

    Attributes:
        cluster: Shape of the cluster.
        warmup_steps: Steps before the measured ones.
        checkpoint: Whether a checkpoint is written behind the last step.
        asynchronous: Whether training goes on while it is written.
        parallelism: Block of the scenario.
        training: Block of the scenario.
        model: Block of the scenario.
        software: Block of the scenario.
        data: Block of the scenario.
        distillation: Block of the scenario.
    """

    cluster: ClusterShape
    warmup_steps: int
    checkpoint: bool
    asynchronous: bool
    parallelism: ParallelismSpec
    training: TrainingSpec
    model: ModelSpec
    software: SoftwareSpec
    data: DataSpec | None
    distillation: DistillationSpec | None = None

    @staticmethod
    def of(scenario: Scenario) -> Outline:
        """The outline of a scenario."""
        return Outline(
            cluster=ClusterShape.of(scenario.cluster),
            warmup_steps=_warmup_steps(scenario),
            checkpoint=scenario.checkpoint is not None,
            asynchronous=scenario.checkpoint is not None and scenario.checkpoint.asynchronous,
            parallelism=scenario.parallelism,
            training=scenario.training,
            model=scenario.model,
            software=scenario.software,
            data=scenario.data,
            distillation=scenario.distillation,
        )

    @property
    def steps(self) -> int:
        """All steps."""
        return self.warmup_steps + self.training.steps

    def __hash__(self) -> int:
        """Of what tells most outlines apart; specs hold dicts, which cannot be hashed."""
        training, parallelism = self.training, self.parallelism
        return hash(
            (
                self.cluster,
                self.model.name,
                training.sequence_length,
                training.micro_batch_size,
                training.global_batch_size,
                parallelism.tensor_parallel,
                parallelism.pipeline_parallel,
                parallelism.virtual_pipeline,
                training.recompute,
            )
        )


def _warmup_steps(scenario: Scenario) -> int:
    """Steps before the measured ones: one where the first step is unlike the others.

    A loader starts with an empty queue, so from the second step on it either keeps ahead or sets the pace.
    Stages that do not meet at the end of a step begin the next one by one, as they ended it.
    """
    if scenario.simulation.warmup_steps is not None:
        return scenario.simulation.warmup_steps
    return int(scenario.data is not None or scenario.parallelism.optimizer_post_validation)
