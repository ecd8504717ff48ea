"""Points by a dask.distributed scheduler: the same ledger, the same results."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import CancelledError
from importlib import import_module
from time import monotonic
from typing import Any, Final

from simulator.errors import ClustersimError, EnvironmentFailure
from simulator.sweep.drive import Backend
from simulator.sweep.point import FAILED, Base, Evaluate, Outcome, evaluate
from simulator.sweep.processes import Done, Task, warm_up

CONNECT_S: Final = 10.0
"""How long a scheduler may take to answer [s]."""
PATIENCE_S: Final = 30.0
"""How long a scheduler may be without any worker [s]."""

_TICK_S: Final = 0.25
_AHEAD: Final = 64
"""Points that the scheduler holds for each worker, in batches."""
_BATCH: Final = 8


def on_cluster(
    address: str, *, workers: int | None, timeout_s: float, evaluate: Evaluate = evaluate
) -> Backend:
    """What gives the points of a sweep to a running scheduler.

    Args:
        address: Such as ``tcp://host:8786``; ``local`` starts a scheduler with workers on this machine.
        workers: Workers of a local one.
        timeout_s: How long a point may take [s].
        evaluate: What is done with a point.

    Raises:
        ClustersimError: dask.distributed is not installed.
    """
    _distributed()

    def backend(base: Base, tasks: Sequence[Task]) -> Generator[list[Done], None, None]:
        with contextlib.ExitStack() as stack:
            client = _connected(address, workers, stack)
            yield from _Points(client, base, tasks, evaluate, timeout_s).run()

    return backend


def _distributed() -> Any:
    """The library, which has no types of its own."""
    try:
        return import_module("distributed")
    except ImportError:
        raise ClustersimError('--cluster needs dask.distributed: install "clustersim[cluster]"') from None


def _connected(address: str, workers: int | None, stack: contextlib.ExitStack) -> Any:
    import logging

    distributed = _distributed()
    # What goes wrong is told as an error of ours; dask's own log would tell it twice.
    for name in ("distributed", "distributed.client", "distributed.utils", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        if address == "local":
            cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, processes=True
            )
            stack.callback(cluster.close, timeout=5)
            client = distributed.Client(cluster)
        else:
            client = distributed.Client(address, timeout=CONNECT_S)
    except (OSError, ValueError, TimeoutError) as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise EnvironmentFailure(f"--cluster {address}: no scheduler answers ({words})") from None
    stack.callback(client.close, timeout=5)
    return client


def play_batch(base: Base, batch: Sequence[tuple[int, Mapping[str, Any]]], evaluate: Evaluate) -> list[Any]:
    """Runs on a worker: the outcomes of some points, each with its number."""
    return [(number, tuple(evaluate(base, overrides))) for number, overrides in batch]


def _gone() -> EnvironmentFailure:
    return EnvironmentFailure(
        "the scheduler is gone; what had finished is in the ledger, and the same command runs the rest"
    )


class _Points:
    def __init__(
        self, client: Any, base: Base, tasks: Sequence[Task], evaluate: Evaluate, timeout_s: float
    ) -> None:
        self.client, self.evaluate, self.timeout_s = client, evaluate, timeout_s
        # It goes with every batch, a few kilobytes: what is scattered is lost with the workers that hold it.
        self.base = base
        self.left = [list(tasks[i : i + _BATCH]) for i in range(0, len(tasks), _BATCH)][::-1]
        self.held: dict[Any, tuple[list[Task], float]] = {}
        self.deaths: dict[int, int] = {}
        self.lonely = monotonic()

    def run(self) -> Generator[list[Done], None, None]:
        """Batches in, outcomes out; a batch whose worker died is tried point by point.

        Raises:
            EnvironmentFailure: The scheduler, or every worker, is gone.
        """
        try:
            yield from self._played()
        except (OSError, TimeoutError, CancelledError, RuntimeError) as error:
            # Whatever dask says of a connection that is lost, by where the loss is noticed.
            raise _gone() from error

    def _played(self) -> Generator[list[Done], None, None]:
        self._wait_for_workers()
        self.client.run(warm_up)
        yield []
        while self.left or self.held:
            self._feed()
            done: list[Done] = []
            for future in [future for future in self.held if future.done()]:
                done += self._finished(future)
            done += self._overdue()
            self._check()
            yield done
            if not done:
                self._pause()

    def _wait_for_workers(self) -> None:
        try:
            self.client.wait_for_workers(1, timeout=PATIENCE_S)
        except TimeoutError:
            raise EnvironmentFailure(f"the scheduler has had no worker for {PATIENCE_S:.0f} s") from None

    def _feed(self) -> None:
        room = _AHEAD // _BATCH * max(1, len(self.client.nthreads()))
        while self.left and len(self.held) < room:
            batch = self.left.pop()
            future = self.client.submit(
                play_batch,
                self.base,
                [(number, point.overrides) for number, point in batch],
                self.evaluate,
                pure=False,
                retries=0,
            )
            self.held[future] = batch, monotonic()

    def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            if self.held:
                _distributed().wait(list(self.held), timeout=_TICK_S, return_when="FIRST_COMPLETED")

    def _finished(self, future: Any) -> list[Done]:
        batch, _ = self.held.pop(future)
        if future.status == "cancelled":
            raise CancelledError  # nobody cancels what is still held, unless its scheduler is lost
        if future.status == "finished":
            found = dict(future.result())
            return [(number, point, Outcome(*found[number])) for number, point in batch]
        if len(batch) > 1:
            self.left += [[task] for task in reversed(batch)]
            return []
        number, point = batch[0]
        self.deaths[number] = self.deaths.get(number, 0) + 1
        if self.deaths[number] < 2:
            self.left.append(batch)
            return []
        error = future.exception() if future.status == "error" else None
        words = " ".join(str(error).split())[:200] if error is not None else future.status
        return [(number, point, Outcome(FAILED, f"its worker failed twice ({words})", "", 0.0, ""))]

    def _overdue(self) -> list[Done]:
        """A batch that takes far too long is given up: the points that hang are told, one by one."""
        done: list[Done] = []
        now = monotonic()
        for future, (batch, since) in list(self.held.items()):
            if future.status != "pending" or now - since < self.timeout_s * (len(batch) + _AHEAD):
                continue
            self.held.pop(future)
            future.cancel()
            reason = f"took longer than {self.timeout_s:g} s, and was given up"
            if len(batch) > 1:
                self.left += [[task] for task in reversed(batch)]
            else:
                done.append((*batch[0], Outcome(FAILED, reason, "", now - since, "")))
        return done

    def _check(self) -> None:
        """Raises where the scheduler is gone, or has been without workers for too long."""
        if self.client.status not in ("running", "connecting"):
            raise _gone()
        if self.client.nthreads():
            self.lonely = monotonic()
        elif monotonic() - self.lonely > PATIENCE_S:
            raise EnvironmentFailure(
                f"the scheduler has had no worker for {PATIENCE_S:.0f} s; what had finished is in the ledger"
            )
