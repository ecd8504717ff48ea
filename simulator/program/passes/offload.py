"""What lies outside of device memory: checked, and its ways out and back as rows.

A copy draws on PCIe in its direction, on device memory and, once for each GPU of the stage that the node
holds, on the host's memory; drives are read and written through the host's memory by all of them, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from simulator.engine import Label
from simulator.errors import PlanError, UnsupportedError
from simulator.program.planning.nodes import Nodes, nodes_of
from simulator.program.planning.outline import Outline
from simulator.program.planning.plan import Plan
from simulator.program.pricing.prices import whole
from simulator.program.pricing.rows import Row
from simulator.program.pricing.templates import LANE
from simulator.program.pricing.topology import SLOT
from simulator.program.pricing.works import Drawing, Driving
from simulator.specs.model import TransformerSpec
from simulator.specs.training import OffloadSpec
from simulator.workload import StateBytes
from simulator.workload.optimizers import OPTIMIZERS

ACTIVATIONS = "activations"
"""What rows that move activations are called; all others move parameters, gradients or state."""

Leg = tuple[int, Row]
"""Lane of a stage, and what is done on it."""


@dataclass(frozen=True, slots=True)
class Offload:
    """What of a plan lies outside of device memory.

    Attributes:
        settings: What lies where.
        nodes: Which stages share a node.
    """

    settings: OffloadSpec
    nodes: Nodes

    def of(self, stage: int) -> StageOffload:
        """What one stage copies."""
        return StageOffload(self.settings, self.nodes.gpus[stage])

    def split(self, parts: dict[str, int]) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        """Parts of a GPU's state as they stay on it, and as they lie elsewhere, by place."""
        left, away = dict(parts), dict[str, dict[str, int]]()
        for name in ("parameters", "gradients", "optimizer"):
            place = getattr(self.settings, name)
            if place is None:
                continue
            fraction = self.settings.optimizer_fraction if name == "optimizer" else 1.0
            moved = min(parts[name], ceil(parts[name] * fraction))
            away.setdefault(place, {})[name] = moved
            left[name] -= moved
        return left, away


@dataclass(frozen=True, slots=True)
class StageOffload:
    """Ways out of the memory of one stage's GPUs, and back.

    Attributes:
        settings: What lies where.
        gpus: GPUs of the stage on one node, all of which copy at the same time.
    """

    settings: OffloadSpec
    gpus: int

    def on_host(self, count: int) -> int:
        """Of so many parameters, those whose optimizer's state lies outside of the GPU."""
        if not self.settings.optimizer:
            return 0
        return min(count, ceil(count * self.settings.optimizer_fraction))

    def out(self, name: str, phase: str, size: int, place: str, *, take: int = 0, give: int = 0) -> list[Leg]:
        """Legs of the way out: into the host's memory, and from there onto drives.

        Args:
            name: What it is.
            phase: Phase of the step.
            size: Bytes of one GPU.
            place: ``host`` or ``nvme``.
            take: Device memory taken at the start.
            give: Device memory free once the copy has ended.
        """
        held = size * (name == ACTIVATIONS)
        passing = size if place == "nvme" else held
        legs = [self._copy(name, "to_host", phase, size, take, give, (passing, 0))]
        if place == "nvme":
            legs.append(self._drive(name, "write", phase, size, (0, size)))
        return legs

    def back(
        self, name: str, phase: str, size: int, place: str, *, take: int = 0, give: int = 0
    ) -> list[Leg]:
        """Legs of the way back, in the opposite order; device memory is taken when the copy begins."""
        held = size * (name == ACTIVATIONS)
        if place == "host":
            return [self._copy(name, "to_gpu", phase, size, take, give, (0, held))]
        return [
            self._drive(name, "read", phase, size, (size, 0)),
            self._copy(name, "to_gpu", phase, size, take, give, (0, size)),
        ]

    def read(self, name: str, size: int) -> Leg:
        """State that comes from the drives into the host's memory for the update."""
        return self._drive(name, "read", "optimizer", size, (size, 0))

    def written(self, name: str, size: int, *, came: bool = True) -> Leg:
        """State that goes back to them behind it, or that the update has made."""
        return self._drive(name, "write", "optimizer", size, (0 if came else size, size))

    def worked(self, name: str, phase: str, size: int) -> Leg:
        """Work of the host's cores that is bounded by its memory.

        Source: Ren et al., ZeRO-Offload, arXiv:2101.06840, section 5.1: vector units and threads enough, an
            Adam on the host reads and writes as fast as its memory lets it.
        Valid: servers with a core for each memory channel and more.
        """
        work = Drawing(((SLOT["host_memory"], whole(size * self.gpus)),))
        return LANE["host_update"], Row(Label(name, "offload.host", phase), work)

    def _copy(
        self,
        name: str,
        way: Literal["to_host", "to_gpu"],
        phase: str,
        size: int,
        take: int,
        give: int,
        host: tuple[int, int],
    ) -> Leg:
        row = Row(
            Label(f"{name}.{way}", f"offload.{way}", phase),
            Drawing(
                (
                    (SLOT[f"pcie.{way}"], whole(size)),
                    (SLOT["memory_bandwidth"], whole(size)),
                    (SLOT["host_memory"], whole(size * self.gpus)),
                )
            ),
            take=take,
            give=give,
            buffers=(0, 0) if name == ACTIVATIONS else (take, give),
            traffic=size,
            host=host,
        )
        return LANE[f"offload_{way}"], row

    def _drive(
        self, name: str, way: Literal["read", "write"], phase: str, size: int, host: tuple[int, int]
    ) -> Leg:
        work = Driving(way, size * self.gpus)
        row = Row(Label(f"{name}.{way}", f"offload.drive_{way}", phase), work, host=host)
        return LANE[f"drive_{way}"], row


def make_offload(scenario: Outline, plan: Plan) -> Offload | None:
    """What a plan offloads, which `check_offload` has passed; None for nothing."""
    settings = scenario.training.offload
    return Offload(settings, nodes_of(plan)) if any(_places(settings)) else None


def uses_drives(settings: OffloadSpec) -> bool:
    """Whether anything lies on drives."""
    return "nvme" in _places(settings)


def _places(settings: OffloadSpec) -> tuple[str | None, ...]:
    return settings.activations, settings.parameters, settings.gradients, settings.optimizer


_KEY = ("training", "offload")


def check_offload(scenario: Outline, plan: Plan, per: StateBytes) -> None:
    """Refuses what cannot be offloaded, or would change nothing.

    Args:
        scenario: The scenario.
        plan: Its plan.
        per: Bytes per parameter.

    Raises:
        PlanError: Names the setting and what it would need.
        UnsupportedError: Something that is not modelled.
    """
    settings = scenario.training.offload
    _check_activations(scenario, plan)
    _check_optimizer(scenario, plan, per)
    _check_parameters(scenario, plan)
    for name in ("activations", "parameters", "optimizer"):
        if getattr(settings, name) == "nvme" and not scenario.cluster.drives:
            raise PlanError(
                (*_KEY, name),
                "nvme needs drives in every node: cluster.drives, or cluster.storage of kind local",
            )


def _check_activations(scenario: Outline, plan: Plan) -> None:
    settings, number = scenario.training.offload, scenario.training.offload.activation_layers
    if settings.activations and not isinstance(scenario.model, TransformerSpec):
        raise UnsupportedError((*_KEY, "activations"), "not modelled where a model is given layer by layer")
    if settings.activations and scenario.software.pipeline_slots and plan.pipeline_parallel > 1:
        raise UnsupportedError(
            (*_KEY, "activations"), f"{scenario.software.name} keeps room for them on the GPU ahead of time"
        )
    if number is None:
        return
    if settings.activations is None:
        raise PlanError((*_KEY, "activation_layers"), "does nothing without offload.activations")
    most = max(plan.layers_per_part)
    if number > most:
        raise PlanError(
            (*_KEY, "activation_layers"),
            f"{number} layers, but the largest of {len(plan.layers_per_part)} parts of the model has {most}",
        )


def _check_optimizer(scenario: Outline, plan: Plan, per: StateBytes) -> None:
    training, settings = scenario.training, scenario.training.offload
    if settings.optimizer is None:
        for name in ("optimizer_fraction", "optimizer_step", "gradients"):
            if getattr(settings, name) != OffloadSpec.model_fields[name].default:
                raise PlanError((*_KEY, name), "needs offload.optimizer: host or nvme")
        return
    if OPTIMIZERS[training.optimizer].orthogonal:
        _check_orthogonal(scenario, plan)
    if not per.optimizer:
        raise PlanError((*_KEY, "optimizer"), f"{training.optimizer} keeps no state of these parameters")
    if settings.gradients is None:
        return
    if settings.optimizer_fraction < 1:
        raise UnsupportedError(
            (*_KEY, "gradients"),
            "the GPU's part of the update would have to fetch them: optimizer_fraction: 1",
        )
    model = scenario.model
    tied = isinstance(model, TransformerSpec) and model.tie_word_embeddings
    if tied and plan.pipeline_parallel > 1:
        raise UnsupportedError(
            (*_KEY, "gradients"), "the first and the last stage would sum those of one embedding on the host"
        )
    if plan.degree("data") > 1 and not plan.sharding.gradients:
        raise PlanError(
            (*_KEY, "gradients"),
            f"each of {plan.degree('data')} replicas would send all of them; they need "
            "data_parallel_sharding: gradients or parameters",
        )


def _check_orthogonal(scenario: Outline, plan: Plan) -> None:
    """An update of whole matrices is made where the GPU has them, tile by tile."""
    training, settings = scenario.training, scenario.training.offload
    if settings.optimizer_step == "host":
        raise UnsupportedError(
            (*_KEY, "optimizer_step"), f"{training.optimizer} makes matrices orthogonal on the gpu"
        )
    if settings.optimizer_fraction < 1:
        raise UnsupportedError(
            (*_KEY, "optimizer_fraction"),
            f"which matrices would stay on the GPU is not modelled for {training.optimizer}: 1",
        )
    split = [axis for axis in ("tensor", "expert_tensor") if plan.degree(axis) > 1]
    if split or plan.sharding.parameters:
        raise UnsupportedError(
            (*_KEY, "optimizer"),
            f"{training.optimizer} would have to put matrices together tile by tile that are "
            + ("split over GPUs" if split else "shared out (data_parallel_sharding: parameters)"),
        )


def _check_parameters(scenario: Outline, plan: Plan) -> None:
    training, settings = scenario.training, scenario.training.offload
    if settings.parameters is None:
        return
    key = (*_KEY, "parameters")
    if plan.degree("data") > 1 and not plan.sharding.parameters:
        raise PlanError(
            key,
            f"each of {plan.degree('data')} replicas would fetch all of them; they need "
            "data_parallel_sharding: parameters",
        )
    if OPTIMIZERS[training.optimizer].orthogonal:
        raise UnsupportedError(key, f"{training.optimizer} needs whole matrices on the GPU")
    if not plan.sharding.reshard:
        raise PlanError(key, "reshard_after_forward: false would keep them on the GPU")
    if training.recompute_method == "uniform" and (training.recompute_num_layers or 1) > 1:
        raise UnsupportedError(
            ("training", "recompute_method"),
            "groups of several layers are not modelled where parameters come layer by layer",
        )
    if training.precision not in ("fp32", "tf32", "fp16", "bf16"):
        raise UnsupportedError(key, f"not modelled in {training.precision}, which casts them once a step")
