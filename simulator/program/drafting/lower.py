"""Scenario -> Program: drafted once for all scenarios of an outline, and priced for each."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.engine import Program
from simulator.errors import UnsupportedError
from simulator.program.drafting.drafts import DRAFTS
from simulator.program.drafting.model import StageState
from simulator.program.passes.loading import loader_cores
from simulator.program.planning.outline import Outline
from simulator.program.planning.plan import Plan
from simulator.program.pricing.prices import Figures
from simulator.program.pricing.rows import ClassFacts
from simulator.scenario import Scenario
from simulator.specs.calibration import Calibration
from simulator.specs.hardware import NodeGroupSpec


@dataclass(frozen=True, slots=True)
class Lowered:
    """A Program and what the analysis must know to read its record.

    Attributes:
        program: The Program.
        plan: The plan.
        group: The nodes that it runs on.
        facts: Arithmetic and traffic of each class.
        states: Resident memory of each stage.
        step_ends: Activities that end each step, shape [steps][...].
        checkpoint: Activities of the checkpoint after the last step that training waits for, if there is one.
        saved: Activities after which the checkpoint is written.
        warmup_steps: Steps before the measured ones.
        measured_steps: Steps that are measured.
        warnings: What the user should know about the plan.
        copies: Representatives of each stage, one behind the other; 1 for a folded Program.
    """

    program: Program
    plan: Plan
    group: NodeGroupSpec
    facts: ClassFacts
    states: tuple[StageState, ...]
    step_ends: tuple[tuple[int, ...], ...]
    checkpoint: tuple[int, ...]
    saved: tuple[int, ...]
    warmup_steps: int
    measured_steps: int
    warnings: tuple[str, ...]
    copies: int = 1


def lower(scenario: Scenario, calibration: Calibration | None = None) -> Lowered:
    """The Program of a scenario.

    Raises:
        PlanError: The plan does not go with the model, the batch or the cluster.
        UnsupportedError: Something that is not modelled.
    """
    calibration = calibration or Calibration.load()
    try:
        return _lowered(scenario, calibration)
    except OverflowError:
        # Sizes are reckoned exactly and laid out in 64 bits.
        message = "an operator asks for 2^63 bytes or operations and more, which cannot be counted"
        raise UnsupportedError(("model",), message) from None


def _lowered(scenario: Scenario, calibration: Calibration) -> Lowered:
    outline = Outline.of(scenario)
    drafted = DRAFTS.get(outline, calibration, scenario)
    cluster, plan = scenario.cluster, drafted.plan
    group = cluster.node_groups[0]
    cores = loader_cores(scenario.data, plan, group.host)
    program = drafted.priced(
        Figures(group, cluster.storage, calibration, scenario.software, cluster.node_drives, plan.num_gpus),
        drafted.topology.capacities(cluster, loader_cores=cores),
        scenario.name,
    )
    return Lowered(
        program=program,
        plan=plan,
        group=group,
        facts=drafted.classes.facts,
        states=drafted.states,
        step_ends=drafted.step_ends,
        checkpoint=drafted.checkpoint,
        saved=drafted.saved,
        warmup_steps=outline.warmup_steps,
        measured_steps=scenario.training.steps,
        warnings=plan.warnings,
    )
