"""Drafts that are kept from one scenario to the next: what differs only in figures is laid out once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from simulator.program.drafting.draft import Draft
from simulator.program.drafting.drafter import draft
from simulator.program.drafting.memory import Overheads
from simulator.program.drafting.model import build_parts
from simulator.program.drafting.size import Expected, expected
from simulator.program.passes.stretches import forget_stretches
from simulator.program.planning.admissible import check_precision
from simulator.program.planning.layout import forget_blocks
from simulator.program.planning.outline import Outline
from simulator.program.planning.plan import plan_of
from simulator.program.pricing.prices import forget_prices
from simulator.scenario import Scenario
from simulator.specs.calibration import Calibration

KEPT_DRAFTS: Final = 64
"""Drafts that are kept at most."""
KEPT_ACTIVITIES: Final = 2_000_000
"""Activities of all drafts that are kept, at most: 40 bytes each, and some 20 of what follows from them."""


@dataclass(frozen=True, slots=True)
class _Kept:
    size: Expected
    draft: Draft


class Drafts:
    """The last drafts, by all that they depend on; the longest unused goes first."""

    def __init__(self, most_activities: int = KEPT_ACTIVITIES) -> None:
        self.most_activities = most_activities
        self._kept: OrderedDict[tuple[Outline, Overheads], _Kept] = OrderedDict()
        self._activities = 0

    def get(self, outline: Outline, calibration: Calibration, scenario: Scenario) -> Draft:
        """The draft of a scenario; checks what depends on figures, too."""
        key = outline, Overheads.of(calibration)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = self._make(*key, scenario)
            self._activities += kept.draft.blank.num_activities
        else:
            check_precision(scenario)
            kept.size.check(scenario)
        self._kept.move_to_end(key)
        self._shrink()
        return kept.draft

    def clear(self) -> None:
        """Forgets all, and what was kept to make it; nothing but time depends on it."""
        self._kept.clear()
        self._activities = 0
        plan_of.cache_clear()
        build_parts.cache_clear()
        forget_blocks()
        forget_stretches()
        forget_prices()

    def _make(self, outline: Outline, overheads: Overheads, scenario: Scenario) -> _Kept:
        plan = plan_of(outline)
        check_precision(scenario)
        parts = build_parts(outline, overheads)
        size = expected(plan, parts, outline.steps)
        size.check(scenario)
        return _Kept(size, draft(outline, plan, parts))

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def _shrink(self) -> None:
        while self._kept and (self._activities > self.most_activities or len(self._kept) > KEPT_DRAFTS):
            _, gone = self._kept.popitem(last=False)
            self._activities -= gone.draft.blank.num_activities


DRAFTS: Final = Drafts()
"""The drafts of this process."""
