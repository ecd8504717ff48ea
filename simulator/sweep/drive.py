"""Runs a sweep: what is not in the ledger yet is simulated, and written as it finishes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

from simulator.errors import EnvironmentFailure
from simulator.scenario import resolved_yaml
from simulator.specs.calibration import Calibration
from simulator.sweep.definition import Sweep
from simulator.sweep.enumeration import Point, points
from simulator.sweep.keys import key_facts
from simulator.sweep.ledger import FILE, Ledger
from simulator.sweep.lock import locked
from simulator.sweep.point import FAILED, ILLEGAL, STATUSES, Base, Evaluate, Outcome, evaluate
from simulator.sweep.processes import Done, Task, in_processes, in_this_process
from simulator.sweep.values import base_value
from simulator.sweep.version import code_version

TIMEOUT_S: Final = 600.0
"""How long a point may take, unless told otherwise [s]."""

_COMMIT_S: Final = 0.25
"""What is lost at most if everything is killed at once: points that finished this long ago [s]."""

Progress = Callable[[float, str], None]
Backend = Callable[[Base, Sequence[Task]], Generator[list[Done], None, None]]
"""Turns points into outcomes, in any order."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run of a sweep did.

    Attributes:
        folder: Where the ledger is.
        total: Points of the sweep.
        reused: Of them, those that were done before.
        counts: Points by status, all of them.
        start_s: Time until the workers had started [s].
        wall_s: Time from then until the last point was written [s].
        others: Points that the ledger keeps, unused, as another version or other code simulated them.
    """

    folder: Path
    total: int
    reused: int
    counts: Mapping[str, int]
    start_s: float
    wall_s: float
    others: int

    @property
    def rate(self) -> float:
        """Points per second, once the workers had started."""
        return (self.total - self.reused) / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def failed(self) -> int:
        """Points that failed."""
        return self.counts.get(FAILED, 0)


def identity(sweep: Sweep) -> str:
    """What besides its overrides makes a point's result: the resolved base, the version, the constants."""
    base = sweep.scenario.changed({"simulation.player": "auto"})
    calibration = repr(sorted(Calibration.load(base.simulation.calibration).constants.items()))
    text = "\0".join((resolved_yaml(base), code_version(), calibration))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def default_workers() -> int:
    """As many as this process has cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_sweep(
    sweep: Sweep,
    folder: str | os.PathLike[str],
    *,
    workers: int | None = None,
    limit: int | None = None,
    many: bool = False,
    timeout_s: float = TIMEOUT_S,
    backend: Backend | None = None,
    evaluate: Evaluate = evaluate,
    progress: Progress | None = None,
) -> Summary:
    """Simulates every point of a sweep that its ledger does not hold yet.

    Args:
        sweep: From `load_sweep_file`.
        folder: Where the ledger is or will be.
        workers: Processes; as many as there are cores if not given, this process alone if 0.
        limit: Points at most; the first ones.
        many: Whether more than 24,000 points are wanted indeed.
        timeout_s: How long a point may take [s].
        backend: Who simulates, instead of processes of this machine.
        evaluate: What is done with a point.
        progress: Told the part done and the rate.

    Raises:
        ClustersimError: Too many points, a foreign ledger, another sweep on the same ledger.
        EnvironmentFailure: Disk full, no permission, a damaged ledger, workers that cannot be started.
        KeyboardInterrupt: Ctrl-C, after what had finished was written.
    """
    folder, name = Path(folder), identity(sweep)
    listed = points(sweep, name, limit=limit, many=many)
    base = Base(sweep.data, sweep.folder.absolute(), _compiled(sweep), sweep.above)
    count = default_workers() if workers is None else workers
    if backend is None:

        def backend(base: Base, tasks: Sequence[Task]) -> Generator[list[Done], None, None]:
            if count == 0:
                return in_this_process(base, tasks, evaluate)
            return in_processes(base, tasks, evaluate, workers=count, timeout_s=timeout_s)

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailure(f"{folder}: {error.strerror or error}") from None
    with locked(folder), Ledger(folder / FILE, write=True) as ledger:
        done = ledger.begin(listed, _about(sweep, name))
        others = ledger.others(code_version())
        if others and progress is not None:
            progress(len(done) / len(listed), f"{others:,} points of another clustersim are left unused")
        tasks = [(number, point) for number, point in enumerate(listed) if point.key not in done]
        known = [(n, p, Outcome(ILLEGAL, p.wrong, "", 0.0, "")) for n, p in tasks if p.wrong is not None]
        tasks = [(number, point) for number, point in tasks if point.wrong is None]
        ledger.add(known, code_version())
        finished = backend(base, tasks) if tasks else _nothing()
        start_s, wall_s = _play(ledger, finished, len(listed), len(tasks), progress)
        found = ledger.counts()
        return Summary(
            folder=folder,
            total=len(listed),
            reused=len(done),
            counts={status: found[status] for status in STATUSES if status in found},
            start_s=start_s,
            wall_s=wall_s,
            others=others,
        )


def _play(
    ledger: Ledger,
    finished: Generator[list[Done], None, None],
    total: int,
    left: int,
    progress: Progress | None,
) -> tuple[float, float]:
    """Writes what finishes, several points a transaction; what has finished is written whatever happens."""
    begun = last = monotonic()
    started = begun
    version, waiting, written, first = code_version(), list[Done](), 0, True
    try:
        for some in finished:
            if first:
                first, started = False, monotonic()
            waiting += some
            if monotonic() - last >= _COMMIT_S and waiting:
                ledger.add(waiting, version)
                written, waiting, last = written + len(waiting), [], monotonic()
                _tell(progress, total, left, written, last - started)
    finally:
        finished.close()
        if waiting:
            ledger.add(waiting, version)
    return started - begun, monotonic() - started


def _tell(progress: Progress | None, total: int, left: int, written: int, seconds: float) -> None:
    if progress is not None:
        rate = written / seconds if seconds > 0 else 0.0
        done = total - left + written
        remaining = f", {(left - written) / rate:,.0f} s left" if rate else ""
        progress(done / total, f"{done:,} of {total:,} points, {rate:,.0f} a second{remaining}")


def _nothing() -> Generator[list[Done], None, None]:
    yield []


def _compiled(sweep: Sweep) -> Mapping[str, Any]:
    """The overrides beneath the axes; workers have the compiled player loaded, so `auto` means that one."""
    if sweep.scenario.simulation.player == "auto":
        return {**sweep.fixed, "simulation.player": "compiled"}
    return sweep.fixed


def _about(sweep: Sweep, name: str) -> dict[str, Any]:
    return {
        "name": sweep.name,
        "identity": name,
        "version": code_version(),
        "axes": [_axis(sweep, key) for key in sweep.keys],
        "model": sweep.scenario.model.name,
        "plot": dict(sweep.plot),
        "base": resolved_yaml(sweep.scenario),
    }


def _axis(sweep: Sweep, key: str) -> dict[str, Any]:
    spans = [span for grid in sweep.grids for span in grid.spans if span.key == key]
    units = {span.unit for span in spans}
    for grid in sweep.grids:
        units |= {axis.unit for group in grid.groups for axis in group if axis.key == key}
    return {
        "key": key,
        "dimension": key_facts(key).dimension,
        "unit": units.pop() if len(units) == 1 else None,
        "derived": key in sweep.derive,
        "sampled": bool(spans),
        "base": base_value(sweep.scenario, key),
    }


def planned(sweep: Sweep, *, limit: int | None = None, many: bool = False) -> list[Point]:
    """The points that `run_sweep` would run on an empty ledger.

    Raises:
        ClustersimError: As `run_sweep`.
    """
    return points(sweep, identity(sweep), limit=limit, many=many)
