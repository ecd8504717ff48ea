"""A Program without prices, and how it gets them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simulator.engine import Capacities, Program
from simulator.program.drafting.model import StageState
from simulator.program.planning.plan import Plan
from simulator.program.pricing.prices import Figures, PriceList
from simulator.program.pricing.rows import UnpricedClasses
from simulator.program.pricing.topology import Topology


@dataclass(frozen=True, slots=True)
class Draft:
    """A Program without prices: all that scenarios of one outline have in common, in immutable arrays.

    Attributes:
        plan: The plan.
        states: Resident memory of each stage.
        topology: Where capacities are.
        blank: The Program, with rates of zero and without prices.
        classes: Its classes, without prices.
        prices: Prices them.
        step_ends: Activities that end each step.
        checkpoint: Activities of the checkpoint after the last step that training waits for, if there is one.
        saved: Activities after which the checkpoint is written.
    """

    plan: Plan
    states: tuple[StageState, ...]
    topology: Topology
    blank: Program
    classes: UnpricedClasses
    prices: PriceList
    step_ends: tuple[tuple[int, ...], ...]
    checkpoint: tuple[int, ...]
    saved: tuple[int, ...]

    def priced(self, figures: Figures, capacities: Capacities, job: str) -> Program:
        """The Program with the figures of a cluster."""
        limit = int(figures.group.accelerator.memory_capacity)
        pools = self.blank.pools
        return replace(
            self.blank,
            capacities=capacities,
            pools=replace(pools, limits=np.full(len(pools.names), limit, np.int64)),
            classes=self.classes.priced(self.prices.columns(figures)),
            job=job,
        )
