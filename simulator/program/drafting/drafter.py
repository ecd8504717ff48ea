"""Outline -> Draft: the steps of training as activities of one representative GPU a stage, without prices."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from simulator.engine import Capacities, Label, Lanes, Pools, Program
from simulator.program.drafting.course import Course, Load, PassKind, Rules, course_of
from simulator.program.drafting.draft import Draft
from simulator.program.drafting.model import ModelParts
from simulator.program.drafting.stages import compile_stages
from simulator.program.passes.loading import READ_LANE, Loader, checkpoint_row, make_loader
from simulator.program.passes.offload import uses_drives
from simulator.program.planning.outline import Outline
from simulator.program.planning.plan import Plan
from simulator.program.pricing.assembly import Assembly
from simulator.program.pricing.describe import Describer
from simulator.program.pricing.prices import PricedColumns, PriceList
from simulator.program.pricing.rows import Row, UnpricedClasses, freeze, stamp
from simulator.program.pricing.sends import blocking_sends, message_bytes, send_row, two_stacks
from simulator.program.pricing.templates import LANE, LANES, Template, TemplateBuilder
from simulator.program.pricing.topology import SLOTS, make_topology
from simulator.program.schedules.order import FORWARD, KINDS


def draft(outline: Outline, plan: Plan, parts: ModelParts) -> Draft:
    """Lays out all steps.

    Raises:
        PlanError: Samples or checkpoints have no storage.
    """
    return _Drafter(outline, plan, parts).run()


@dataclass(slots=True)
class _Tables:
    """Tables of rows in the order in which they are stamped, and where each begins."""

    tables: list[tuple[int, list[Row]]]
    size: int = 0

    def add(self, stage: int, rows: list[Row]) -> int:
        base = self.size
        self.tables.append((stage, rows))
        self.size += len(rows)
        return base


class _Drafter:
    def __init__(self, scenario: Outline, plan: Plan, parts: ModelParts) -> None:
        self.scenario, self.plan, self.parts = scenario, plan, parts
        self.topology = make_topology(scenario.cluster, plan, drives=uses_drives(scenario.training.offload))
        self.stages = plan.pipeline_parallel
        self.loader_lane = self.stages * len(LANES)
        self.assembly = Assembly()
        self.tables = _Tables([])
        self.order = plan.visits(parts.held)
        code = np.unique(self.order.kind * 2 + self.order.completes).tolist()
        kinds = frozenset((KINDS[each // 2], each % 2 == 1) for each in code)
        describe = Describer(plan, self.topology.shared.get("core", -1), scenario.software)
        self.compiled = compile_stages(scenario, plan, describe, parts, self.assembly, kinds)
        self.class_base = [self.tables.add(stage, c.table.rows) for stage, c in enumerate(self.compiled)]
        self.sends: dict[tuple[int, int, int, bool], tuple[int, int]] = {}
        self.two_stacks = two_stacks(scenario)
        self.send_tables: dict[tuple[int, int, int, bool], list[Row]] = {}
        self.crossing: dict[tuple[int, str], int] = {}
        self.first_layer = list(itertools.accumulate(plan.layers_per_part, initial=0))
        self.send_template = {
            forward: self.assembly.register(_single(LANE[f"send_{kind}"], 0))
            for kind, forward in (("forward", True), ("backward", False))
        }
        self.loader: Loader | None = None
        if scenario.data is not None:
            self.loader = make_loader(
                scenario.data,
                plan,
                self.topology,
                micro_batch_size=scenario.training.micro_batch_size,
                loader_lane=self.loader_lane,
            )
            self.loader_class = self.tables.add(-1, list(self.loader.rows))
            self.loader_template = self.assembly.register(self.loader.template)
        self.join_class = self.tables.add(
            -1, [Row(Label("step.join", "communication.all_reduce", "optimizer"))]
        )
        self.join_template = self.assembly.register(_single(self.loader_lane + READ_LANE + 2, 0))
        self.launch_template = self.assembly.register(_single(LANE["launch"], 0))
        table = [describe.launching(1, "forward")]
        self.launch_class = [self.tables.add(stage, table) for stage in range(self.stages)]
        self.copies: list[int] = []
        self.step_ends: list[tuple[int, ...]] = []

    def _send(self, stage: int, to: int, boundary: int, *, forward: bool) -> tuple[int, int]:
        """Template and class base of a send from one stage to another, behind a part of the model."""
        found = self.sends.get((stage, to, boundary, forward))
        if found is None:
            place = boundary if self.two_stacks else 0
            table = self.send_tables.get((stage, to, place, forward))
            if table is None:
                table = [self._send_row(stage, to, place, "forward" if forward else "backward")]
                self.send_tables[stage, to, place, forward] = table
            found = self.send_template[forward], self.tables.add(stage, table)
            self.sends[stage, to, boundary, forward] = found
        return found

    def _send_row(self, stage: int, to: int, place: int, kind: str) -> Row:
        crossing = self.crossing.get((place, kind))
        if crossing is None:
            crossing = self.crossing[place, kind] = message_bytes(self.scenario, self.plan, place, kind)
        return send_row(self.topology, stage, to, kind, crossing)

    def run(self) -> Draft:
        course = course_of(self.order, self._rules())
        for step in range(self.scenario.steps):
            self._step(step, course)
        self._load_ahead(self.scenario.steps - 1)
        checkpoint, saved = (
            self._checkpoint(self.scenario.steps - 1) if self.scenario.checkpoint else ((), ())
        )
        classes = stamp(self.tables.tables)
        return Draft(
            plan=self.plan,
            states=self.parts.states,
            topology=self.topology,
            blank=self._blank(classes),
            classes=classes,
            prices=PriceList(
                classes.works, classes.work, classes.facts.stage, len(SLOTS), self.topology.same
            ),
            step_ends=tuple(self.step_ends),
            checkpoint=checkpoint,
            saved=saved,
        )

    def _blank(self, classes: UnpricedClasses) -> Program:
        arrays, topology = self.assembly.arrays(), self.topology
        freeze(arrays.lane, arrays.cls, arrays.dep_ptr, arrays.dep, *arrays.tags.values())
        i32, i64 = np.zeros(0, np.int32), np.zeros(0, np.int64)
        rates = np.zeros(len(topology.names), np.int64)
        return arrays.program(
            capacities=Capacities(topology.names, topology.kinds, topology.owners, rates, topology.units),
            lanes=_lanes(self.stages),
            pools=self._pools(),
            classes=classes.priced(PricedColumns(i64, i32, i32, i64, i32, i32, i64)),
            job="",
        )

    def _rules(self) -> Rules:
        return Rules(
            self.assembly,
            self._look_up,
            lambda stage, first, second: self.compiled[stage].pair(self.assembly, first, second),
            None if self.loader is None else Load(self.loader_template, self.loader_class),
            self.stages,
            blocking_sends(self.scenario),
            self.scenario.software.reductions_in_flight,
        )

    def _step(self, step: int, course: Course) -> None:
        """All passes, then the update."""
        started = self.step_ends[-1] if self.step_ends else (-1,) * self.stages
        if self.step_ends:
            self._begin(step, started)
        base, instances = self.assembly.size, course.instances.copy()
        instances[5] = step
        source, target = course.edges
        begins = np.array(started)[np.maximum(-2 - source, 0)]
        source = np.where(source < -1, begins, source + base)
        edges = np.stack((source, target + base))[:, source >= 0]
        self.assembly.extend(course.size, instances, course.seconds, edges)
        for load in course.loads.tolist():
            self._loaded(base + load)
        ends = [[base + at if at >= 0 else -1 for at in each] for each in course.ends]
        self._update(step, ends)

    def _look_up(self, stage: int, kind: int, chunk: int, completes: bool, to: int) -> PassKind:
        """What is the same whenever a stage runs such a pass."""
        compiled, forward = self.compiled[stage], kind == FORWARD
        template = compiled.passes[chunk][KINDS[kind], completes]
        part = self.plan.placement.part(stage, chunk)
        send = -1, -1
        if to not in (-1, stage) and (forward or part > self.parts.untrained_parts):
            send = self._send(stage, to, part if forward else part - 1, forward=forward)
        return PassKind(
            template,
            self.class_base[stage],
            self.first_layer[part],
            template in compiled.on_communication,
            forward or part >= self.parts.untrained_parts,
            *send,
        )

    def _begin(self, step: int, started: tuple[int, ...]) -> None:
        """The launching threads begin a step: they read the loss or the norm at the end of the one before."""
        for stage, start in enumerate(started):
            self.assembly.add(
                self.launch_template,
                lane_base=stage * len(LANES),
                class_base=self.launch_class[stage],
                stage=stage,
                step=step,
                after=(start,),
            )

    def _load_ahead(self, step: int) -> None:
        """What the loader reads beside the last step for those that would follow."""
        if self.scenario.data is not None:
            for _ in range(self.scenario.data.prefetch):
                for micro_batch in range(self.plan.num_micro_batches):
                    self._load(step, micro_batch)

    def _load(self, step: int, micro_batch: int) -> None:
        """Loads one micro-batch."""
        base = self.assembly.add(
            self.loader_template,
            lane_base=0,
            class_base=self.loader_class,
            stage=-1,
            step=step,
            micro_batch=micro_batch,
        )
        self._loaded(base)

    def _loaded(self, base: int) -> None:
        """A way of samples, given its first activity: it goes no further ahead than the prefetch allows."""
        assert self.loader is not None and self.scenario.data is not None
        ahead = max(1, self.scenario.data.prefetch * self.plan.num_micro_batches)
        if len(self.copies) >= ahead:
            self.assembly.wait(base + self.loader.template.entry, self.copies[len(self.copies) - ahead])
        self.copies.append(base + self.loader.template.exit)

    def _update(self, step: int, gradients: list[list[int]]) -> None:
        """Reductions that are left and the norm on every stage, one join of them all, then the update.

        Where updates are validated afterwards there is no join: a stage goes on when it has its own norm.

        Source: Qi et al., arXiv:2401.10241, section 4.

        Args:
            step: Which step.
            gradients: Activities by stage after which its gradients are complete.
        """
        norms = []
        for stage, compiled in enumerate(self.compiled):
            template = compiled.before_join
            base = self._stamp(template, stage, step, after=tuple(gradients[stage]))
            norms.append(base + self.assembly.templates[template].exit)
        joined = -1
        waits = not self.scenario.parallelism.optimizer_post_validation
        if self.stages > 1 and self.scenario.training.gradient_clipping and waits:
            joined = self.assembly.add(
                self.join_template, lane_base=0, class_base=self.join_class, stage=-1, step=step, after=norms
            )
        ends = []
        for stage, compiled in enumerate(self.compiled):
            template = compiled.after_join
            base = self._stamp(template, stage, step, after=(joined, norms[stage]))
            ends.append(base + self.assembly.templates[template].exit)
        self.step_ends.append(tuple(ends))

    def _stamp(self, template: int, stage: int, step: int, after: tuple[int, ...] = ()) -> int:
        return self.assembly.add(
            template,
            lane_base=stage * len(LANES),
            class_base=self.class_base[stage],
            stage=stage,
            step=step,
            after=after,
        )

    def _checkpoint(self, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Activities that training waits for, and those after which all is written."""
        copies, written = [], []
        lane = LANE["copy" if self.scenario.asynchronous else "compute"]
        for stage, state in enumerate(self.parts.states):
            rows = checkpoint_row(
                self.topology,
                state.checkpoint_bytes,
                state.checkpoint_largest,
                state.checkpoint_writers,
                state.checkpoint_copied,
            )
            class_base = self.tables.add(stage, list(rows))
            into = TemplateBuilder()
            copied = into.add(LANE["copy"], 0)
            into.add(lane, 1, after=(copied,))
            base = self.assembly.add(
                self.assembly.register(into.build()),
                lane_base=stage * len(LANES),
                class_base=class_base,
                stage=stage,
                step=step,
                after=self.step_ends[-1],
            )
            copies.append(base)
            written.append(base + 1)
        return tuple(copies if self.scenario.asynchronous else written), tuple(written)

    def _pools(self) -> Pools:
        owners = tuple(f"stage{stage}" for stage in range(self.stages))
        initial = np.array([state.resident_bytes for state in self.parts.states], np.int64)
        blocking = np.zeros(self.stages, np.bool_)
        freeze(initial, blocking)
        return Pools(
            names=tuple(f"{owner}.memory" for owner in owners),
            owners=owners,
            limits=np.zeros(self.stages, np.int64),
            initial=initial,
            blocking=blocking,
        )


@lru_cache(maxsize=64)
def _lanes(stages: int) -> Lanes:
    """The lanes of all stages, and behind them those that belong to none."""
    names = [f"stage{stage}.{name}" for stage in range(stages) for name, _ in LANES]
    kinds = [kind for _ in range(stages) for _, kind in LANES]
    owners = [f"stage{stage}" for stage in range(stages) for _ in LANES]
    return Lanes(
        (*names, "loader.read", "loader.decode", "job.join"),
        (*kinds, "storage", "host", "join"),
        (*owners, "storage", "loader", "job"),
    )


def _single(lane: int, cls: int) -> Template:
    into = TemplateBuilder()
    into.add(lane, cls)
    return into.build()
