"""Predicts rows in this process or in several; the outcomes come in the order of the rows either way."""

from __future__ import annotations

import math
import os
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from simulator.errors import ClustersimError, EnvironmentFailure, Problem, ScenarioError
from simulator.specs import Calibration
from simulator.specs.calibration import SHARED
from simulator.validation._kind import MeasurementKind

OK: Final = "ok"
UNSUPPORTED: Final = "unsupported"

_LONGEST_REASON: Final = 500
_AHEAD: Final = 4
"""Rows handed to each worker ahead of the one that is awaited; bounds what a long file keeps in memory."""

Cells = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row.

    Attributes:
        status: `OK` or `UNSUPPORTED`.
        reason: Why it is unsupported, in one line.
        values: Predicted column -> value.
    """

    status: str
    reason: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Constants:
    """Which constants predict: named, so that each process loads and keeps its own.

    Attributes:
        calibration: Name or path.
        without: What was left out of the fit; None for the calibration as it is.
    """

    calibration: str = SHARED
    without: str | None = None

    def load(self) -> Calibration:
        """The same object each time.

        Raises:
            ScenarioError: No such calibration, or it holds no such refit.
        """
        whole = Calibration.load(self.calibration)
        if self.without is None:
            return whole
        try:
            return whole.without(self.without)
        except KeyError:
            message = f"holds no fit without {self.without}"
            raise ScenarioError(Problem(self.calibration, 0, 0, message)) from None


def predict_row(kind: MeasurementKind, cells: Cells, constants: Constants) -> Outcome:
    """Predict one row; what clustersim refuses in words becomes the reason, a bug stays an exception."""
    calibration = constants.load()
    try:
        values = kind.predict(cells, calibration)
    except ClustersimError as error:
        return Outcome(UNSUPPORTED, _reason(error), {})
    except Exception as error:
        error.add_note(f"while predicting the row with the id {cells.get('id')!r}")
        raise
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ArithmeticError(f"{name} = {value!r} for the row with the id {cells.get('id')!r}")
    return Outcome(OK, "", values)


def _reason(error: ClustersimError) -> str:
    """The message in one line; what a row's scenario got wrong has no file and no place to name."""
    if isinstance(error, ScenarioError):
        text = "; ".join(problem.message for problem in error.problems)
    else:
        text = str(error)
    return " ".join(text.split())[:_LONGEST_REASON]


def predict_rows(
    kind: MeasurementKind, rows: Iterable[Cells], workers: int, constants: Constants
) -> Generator[tuple[Cells, Outcome], None, None]:
    """Predict rows one after another, or by several processes.

    Args:
        kind: Kind of the file; with several workers its class must be importable.
        rows: Cells of each row, taken as they are needed.
        workers: Processes; 1 means this one.
        constants: Which constants predict.

    Raises:
        EnvironmentFailure: A worker process died.
    """
    if workers == 1 or kind.quick:
        for cells in rows:
            yield cells, predict_row(kind, cells, constants)
        return
    pending: deque[tuple[Cells, Future[Outcome]]] = deque()
    with _pool(workers) as pool:
        for cells in rows:
            pending.append((cells, pool.submit(predict_row, kind, cells, constants)))
            if len(pending) >= workers * _AHEAD:
                yield _awaited(*pending.popleft())
        while pending:
            yield _awaited(*pending.popleft())


def _awaited(cells: Cells, future: Future[Outcome]) -> tuple[Cells, Outcome]:
    try:
        return cells, future.result()
    except BrokenProcessPool:
        message = f"a worker process died at or near the row with the id {cells.get('id')!r}; out of memory?"
        raise EnvironmentFailure(message) from None


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    import multiprocessing

    # spawn: the same start on every platform, and no copied locks of a threaded parent.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    before = set(multiprocessing.active_children())
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        # A simulation may take long; whoever interrupts does not want to wait for it.
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    pool.shutdown()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it."""
    import multiprocessing
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
