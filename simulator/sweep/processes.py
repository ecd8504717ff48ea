"""Points by several processes of this machine; one that dies or hangs costs no more than its own point."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections import deque
from collections.abc import Generator, Sequence
from ctypes import c_longlong
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any, Final

from simulator.errors import EnvironmentFailure
from simulator.sweep.enumeration import Point
from simulator.sweep.point import FAILED, Base, Evaluate, Outcome

Task = tuple[int, Point]
Done = tuple[int, Point, Outcome]

_AHEAD: Final = 32
"""Points that a worker holds; bounds what lies in a pipe, so that neither end can block the other."""
_SAY_S: Final = 0.05
"""How long a worker may keep to itself what has finished [s]: a message costs a tenth of a point or more."""
_TICK_S: Final = 0.2
_MOST_STARTS: Final = 3
"""Workers in a row that may die before their first point."""


def in_this_process(
    base: Base, tasks: Sequence[Task], evaluate: Evaluate
) -> Generator[list[Done], None, None]:
    """Points one after the other, without any protection."""
    for number, point in tasks:
        yield [(number, point, evaluate(base, point.overrides))]


def in_processes(
    base: Base, tasks: Sequence[Task], evaluate: Evaluate, *, workers: int, timeout_s: float
) -> Generator[list[Done], None, None]:
    """Points by worker processes; yields what has finished, in any order, and nothing now and then.

    The first list, which is empty, comes when the workers have started.

    Args:
        base: What all points share.
        tasks: Number and point.
        evaluate: What a worker does with a point.
        workers: Processes.
        timeout_s: How long a point may take [s].

    Raises:
        EnvironmentFailure: Workers cannot be started.
    """
    pool = _Pool(base, tasks, evaluate, min(workers, max(1, len(tasks))), timeout_s)
    try:
        yield from pool.run()
    finally:
        pool.stop()


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker process.

    Attributes:
        process: The process.
        pipe: Points in, outcomes out.
        at: Number of the point that it works on, in memory that it shares with us.
        held: Points whose outcomes it has not told, in its order.
        since: When it was last heard of, or given something to do [s].
        ready: Whether it has started.
    """

    process: BaseProcess
    pipe: Connection
    at: c_longlong
    held: deque[Task] = field(default_factory=deque)
    since: float = 0.0
    ready: bool = False

    def current(self) -> Task:
        """The point that it works on, or is to begin with."""
        number = self.at.value
        return next((task for task in self.held if task[0] == number), self.held[0])


class _Pool:
    def __init__(
        self, base: Base, tasks: Sequence[Task], evaluate: Evaluate, workers: int, timeout_s: float
    ) -> None:
        self.base, self.evaluate, self.timeout_s = base, evaluate, timeout_s
        self.left: deque[Task] = deque(tasks)
        self.deaths: dict[int, int] = {}
        self.stillborn = 0
        self.workers: list[_Worker] = []
        self.wanted = workers

    def run(self) -> Generator[list[Done], None, None]:
        for _ in range(self.wanted):
            self._start()
        while not all(worker.ready for worker in self.workers):
            self._listen()
        yield []
        while self.left or any(worker.held for worker in self.workers):
            for worker in self.workers:
                self._feed(worker)
            yield self._listen()

    def stop(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.pipe.close()
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
        self.workers = []

    def _start(self) -> None:
        import multiprocessing

        # spawn: the same start on every platform, and no copied locks of a threaded parent.
        context = multiprocessing.get_context("spawn")
        try:
            ours, theirs = context.Pipe()
            at = context.RawValue(c_longlong, -1)
            process = context.Process(target=_work, args=(theirs, at, self.base, self.evaluate), daemon=True)
            process.start()
        except OSError as error:
            raise EnvironmentFailure(f"a worker cannot be started: {error.strerror or error}") from None
        theirs.close()
        self.workers.append(_Worker(process, ours, at, since=monotonic()))

    def _feed(self, worker: _Worker) -> None:
        if not worker.ready or len(worker.held) > _AHEAD // 2 or not self.left:
            return
        # Towards the end the rest is shared out evenly.
        share = max(1, min(_AHEAD - len(worker.held), len(self.left) // len(self.workers)))
        batch = [self.left.popleft() for _ in range(min(share, len(self.left)))]
        if not worker.held:
            worker.since = monotonic()
        worker.held += batch
        with contextlib.suppress(OSError):
            # A worker that has just died is found by its silence.
            worker.pipe.send([(number, point.overrides) for number, point in batch])

    def _listen(self) -> list[Done]:
        done: list[Done] = []
        by_pipe: dict[Any, _Worker] = {worker.pipe: worker for worker in self.workers}
        for pipe in wait(list(by_pipe), _TICK_S):
            done += self._heard(by_pipe[pipe])
        now = monotonic()
        for worker in list(self.workers):
            if worker.held and now - worker.since > self.timeout_s + _SAY_S:
                number, point = late = worker.current()
                worker.held.remove(late)
                reason = f"took longer than {self.timeout_s:g} s, and was ended"
                done.append((number, point, Outcome(FAILED, reason, "", now - worker.since, "")))
                self._replace(worker)
        return done

    def _heard(self, worker: _Worker) -> list[Done]:
        done: list[Done] = []
        try:
            said = worker.pipe.recv()
            worker.since = monotonic()
            if said is None:
                worker.ready, self.stillborn = True, 0
                return done
            for told, outcome in said:
                number, point = worker.held.popleft()
                assert told == number
                done.append((number, point, Outcome(*outcome)))
        except (EOFError, OSError):
            done += self._died(worker)
        return done

    def _died(self, worker: _Worker) -> list[Done]:
        """The point that it worked on is tried once more, then told; the others go back."""
        worker.process.join(5.0)
        code = worker.process.exitcode
        if not worker.ready:
            self.stillborn += 1
            if self.stillborn >= _MOST_STARTS:
                raise EnvironmentFailure(f"workers die at their start ({_ending(code)})")
        done: list[Done] = []
        if worker.held:
            number, point = last = worker.current()
            self.deaths[number] = self.deaths.get(number, 0) + 1
            if self.deaths[number] > 1:
                worker.held.remove(last)
                reason = f"its worker died twice ({_ending(code)})"
                done.append((number, point, Outcome(FAILED, reason, "", 0.0, "")))
        self._replace(worker)
        return done

    def _replace(self, worker: _Worker) -> None:
        self.left.extendleft(reversed(worker.held))
        worker.held.clear()
        self.workers.remove(worker)
        with contextlib.suppress(OSError):
            worker.pipe.close()
        worker.process.kill()
        worker.process.join()
        if self.left:
            self._start()


def _ending(code: int | None) -> str:
    if code is None:
        return "for an unknown reason"
    if code < 0:
        try:
            return f"by {signal.Signals(-code).name}" + (
                "; out of memory?" if code == -signal.SIGKILL else ""
            )
        except ValueError:
            return f"by signal {-code}"
    return f"with exit code {code}"


def _work(pipe: Connection, at: c_longlong, base: Base, evaluate: Evaluate) -> None:
    """The life of a worker: points in, outcomes out, until the parent is gone.

    Outcomes are told when the points given are done, and otherwise several at a time; `at` says meanwhile
    which point would be to blame.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _follow_parent()
    warm_up()
    base.prepare()
    # What is loaded by now stays: no search for cycles need look at it again.
    gc.freeze()
    try:
        pipe.send(None)
        while True:
            finished: list[tuple[int, tuple[Any, ...]]] = []
            told = monotonic()
            for number, overrides in pipe.recv():
                at.value = number
                finished.append((number, tuple(evaluate(base, overrides))))
                if monotonic() - told >= _SAY_S:
                    pipe.send(finished)
                    finished, told = [], monotonic()
            if finished:
                pipe.send(finished)
    except (EOFError, OSError):
        return


def _follow_parent() -> None:
    """Ends this process when its parent has ended, even if a point takes long."""
    import multiprocessing
    import threading

    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def warm_up() -> None:
    """Loads what every point needs, compiled code included."""
    import simulator.run  # noqa: F401
    from simulator.engine import load_compiled

    load_compiled()
