"""The tables of a result, made from the record when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simulator.analysis.memory import memory_changes
from simulator.analysis.use import link_use_over_time, utilization_over_time
from simulator.analysis.window import Window
from simulator.engine import Record
from simulator.program import Lowered
from simulator.units import PICOSECONDS

if TYPE_CHECKING:
    import pandas as pd

TIMELINE_BINS = 240
"""Intervals of the utilisation over time."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What the tables are made from."""

    lowered: Lowered
    record: Record
    window: Window
    peak_flops: dict[str, float]
    memory_bandwidth: float

    def activities(self) -> pd.DataFrame:
        """A row an activity; see `Result`."""
        import pandas as pd

        program, record = self.lowered.program, self.record
        labels, cls = program.classes.labels, program.cls
        lanes = np.array(program.lanes.names, dtype=object)
        owners = np.array(program.lanes.owners, dtype=object)
        kinds = np.array([*program.capacities.kinds, ""], dtype=object)
        awaited = np.array([*(label.name for label in labels), ""], dtype=object)
        awaited_class = np.where(record.awaited >= 0, cls[record.awaited], len(labels))
        return pd.DataFrame(
            {
                "id": np.arange(program.num_activities),
                "name": _by_class([label.name for label in labels], cls),
                "cause": _by_class([label.cause for label in labels], cls),
                "phase": _by_class([label.phase for label in labels], cls),
                "lane": lanes[program.lane],
                "owner": owners[program.lane],
                "stage": program.tags["stage"],
                "step": program.tags["step"],
                "micro_batch": program.tags["micro_batch"],
                "layer": program.tags["layer"],
                "ready_s": record.ready / PICOSECONDS,
                "start_s": record.start / PICOSECONDS,
                "end_s": record.end / PICOSECONDS,
                "limited_by": kinds[record.limit],
                "awaited": awaited[awaited_class],
            }
        )

    def operators(self) -> pd.DataFrame:
        """A row an operator and phase, of one GPU of the busiest stage in the last measured step."""
        import pandas as pd

        program, record, facts = self.lowered.program, self.record, self.lowered.facts
        stage = self._busiest_stage()
        last = len(self.lowered.step_ends) - 1
        mine = (program.tags["stage"] == stage) & (program.tags["step"] == last)
        cls = program.cls[mine]
        kinds = [*program.capacities.kinds, ""]
        seconds = (record.end[mine] - record.start[mine]) / PICOSECONDS
        limit = record.limit[mine]
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        for number in np.unique(cls):
            label = program.classes.labels[number]
            chosen = cls == number
            count = int(chosen.sum())
            row = rows.setdefault(
                (label.name, label.cause, label.phase),
                {"count": 0, "time_s": 0.0, "flops": 0.0, "bytes": 0.0},
            )
            row["count"] += count
            row["time_s"] += float(seconds[chosen].sum())
            row["flops"] += count * float(facts.flops[number])
            row["bytes"] += count * float(facts.traffic[number])
            row["peak_flops"] = self.peak_flops.get(facts.precision[number], 0.0)
            row["memory_bandwidth"] = self.memory_bandwidth
            row["limited_by"] = kinds[int(np.bincount(limit[chosen] + 1).argmax()) - 1]
        frame = pd.DataFrame([{"name": n, "cause": c, "phase": p, **row} for (n, c, p), row in rows.items()])
        return frame.sort_values("time_s", ascending=False, kind="stable", ignore_index=True)

    def utilization_timeline(self) -> pd.DataFrame:
        """Use of every kind of capacity over the measured steps."""
        import pandas as pd

        kinds, values = utilization_over_time(self.lowered, self.record, self.window, TIMELINE_BINS)
        width = self.window.length / PICOSECONDS / TIMELINE_BINS
        times = self.window.begin / PICOSECONDS + np.arange(TIMELINE_BINS) * width
        return pd.DataFrame(
            {
                "time_s": np.tile(times, len(kinds)),
                "kind": np.repeat(np.array(kinds, dtype=object), TIMELINE_BINS),
                "utilization": values.ravel(),
            }
        )

    def link_timeline(self) -> pd.DataFrame:
        """Use of every single link and storage capacity over the measured steps."""
        import pandas as pd

        names, values = link_use_over_time(self.lowered, self.record, self.window, TIMELINE_BINS)
        begin, width = self.window.begin / PICOSECONDS, self.window.length / PICOSECONDS / TIMELINE_BINS
        return pd.DataFrame(
            {
                "time_s": np.tile(begin + np.arange(TIMELINE_BINS) * width, len(names)),
                "link": np.repeat(np.array(names, dtype=object), TIMELINE_BINS),
                "utilization": values.ravel(),
            }
        )

    def memory_timeline(self) -> pd.DataFrame:
        """Memory in use over time, by stage."""
        import pandas as pd

        times, stages, level = memory_changes(self.lowered, self.record)
        return pd.DataFrame({"time_s": times / PICOSECONDS, "stage": stages, "bytes": level})

    def _busiest_stage(self) -> int:
        program, record = self.lowered.program, self.record
        compute = np.array([kind == "compute" for kind in program.lanes.kinds])[program.lane]
        busy = np.bincount(
            program.tags["stage"][compute],
            weights=(record.end - record.start)[compute],
            minlength=self.lowered.plan.pipeline_parallel,
        )
        return int(np.argmax(busy))


def _by_class(values: list[str], cls: NDArray[np.int32]) -> NDArray[np.object_]:
    column: NDArray[np.object_] = np.array(values, dtype=object)[cls]
    return column
