"""The reference player: a Program on SimPy, one short process a lane. It defines what is right.

An instant has four parts, in this order of SimPy priority:

1. what ends at this instant ends, and what has waited out its delay begins to draw;
2. what waits is granted, in rounds: an activity without work ends in the next round;
3. base rates change;
4. shares are solved where a touched capacity is, or was, asked for more than it has.

SimPy cannot cancel a timeout. When an activity's end moves, the callbacks of its timer move to
a fresh one, and the old timer rings for nobody.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Generator
from typing import Any, Final

import numpy as np
import simpy
from simpy.events import EventPriority

from simulator.engine.history import awaited
from simulator.engine.kinds import Kind
from simulator.engine.pools import Pools
from simulator.engine.program import Program, concatenate
from simulator.engine.record import Record
from simulator.engine.sharing import max_min
from simulator.engine.stuck import deadlock_error
from simulator.engine.tables import SAME_SHARE, ClassTable, hold_error, horizon_error, room
from simulator.engine.validate import validate
from simulator.errors import SimulationError
from simulator.units import MAX_PICOSECONDS, PICOSECONDS

_GRANT: Final = EventPriority(2)
_RATE: Final = EventPriority(3)
_SHARE: Final = EventPriority(4)
_LAST: Final = EventPriority(5)

_Process = Generator[simpy.Event, Any, None]


class _Moment(simpy.Event):
    """Happens after `delay`, at its instant before everything of a later priority."""

    def __init__(self, env: simpy.Environment, delay: int, priority: EventPriority) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        env.schedule(self, priority, delay)


class ReferencePlayer:
    """Plays a Program, all of it or as far as one likes, and takes more activities on the way.

    Example:
        >>> player = ReferencePlayer(program)
        >>> player.advance(5 * 10**12)
        >>> builder = ProgramBuilder.continuing(program, player.num_activities)
        >>> ...
        >>> player.submit(builder.build())
        >>> record = player.finish()

    Attributes:
        now: The simulated time [ps].
        num_activities: Activities submitted so far; the number that the next one will have.
    """

    def __init__(self, program: Program) -> None:
        self._env = simpy.Environment(0)
        self._parts = [program]
        self._books: list[tuple[Program, ClassTable, list[Kind]]] = []
        self._rates = [int(rate) for rate in program.capacities.rates]
        capacities, lanes = len(self._rates), len(program.lanes.names)
        self._held = [0] * capacities
        self._load = [0] * capacities
        self._room = [room(rate, 0) for rate in self._rates]
        self._hot = [False] * capacities
        self._running: list[list[int]] = [[] for _ in range(capacities)]
        self._touched: set[int] = set()
        self._forced: set[int] = set()
        self._pools = Pools(program)
        self._queue: list[list[int]] = [[] for _ in range(lanes)]
        self._awake = [False] * lanes
        self._head = [-1] * lanes
        self._turn: list[simpy.Event | None] = [None] * lanes
        self._timer: list[simpy.Event | None] = [None] * lanes
        self._since = [0] * lanes
        self._left, self._span, self._share = [1.0] * lanes, [1.0] * lanes, [1.0] * lanes
        self._eligible: list[tuple[int, int]] = []
        self._short: list[tuple[int, int]] = []
        self._given = self._grant_due = self._share_due = False
        self._lane: list[int] = []
        self._kind: list[Kind] = []
        self._missing: list[int] = []
        self._after: list[list[int]] = []
        self._release: list[int] = []
        self._start: list[int] = []
        self._end: list[int] = []
        self._limit: list[int] = []
        self._segments: list[tuple[int, int, int, float]] = []
        self._num_events = 0
        self._admit(program)

    @property
    def now(self) -> int:
        """The simulated time [ps]."""
        return int(self._env.now)

    @property
    def num_activities(self) -> int:
        """Activities submitted so far."""
        return len(self._lane)

    @property
    def program(self) -> Program:
        """All that was submitted so far, as one Program."""
        if len(self._parts) > 1:
            self._parts = [concatenate(self._parts)]
        return self._parts[0]

    def advance(self, until_ps: int) -> None:
        """Plays on until everything at `until_ps` and before has happened.

        Raises:
            SimulationError: `until_ps` lies in the past or beyond the horizon.
        """
        if not self.now <= until_ps <= MAX_PICOSECONDS:
            raise SimulationError(f"cannot advance from {self.now} ps to {until_ps} ps")
        self._env.run(_Moment(self._env, until_ps - self.now, _LAST))

    def submit(self, fragment: Program) -> range:
        """Adds activities now; they are ready no earlier.

        Args:
            fragment: A Program over the same capacities, lanes and pools. Its first activity
                gets the number `num_activities`, and its dependencies use these numbers, so they
                may name activities submitted before, ended or not. On each lane its activities
                follow those that are there.

        Returns:
            The numbers of the new activities.

        Raises:
            SimulationError: The fragment is malformed or has other capacities, lanes or pools.
        """
        base = self._parts[0]
        validate(fragment, self.num_activities)
        if (
            fragment.capacities.names != base.capacities.names
            or fragment.lanes.names != base.lanes.names
            or fragment.pools.names != base.pools.names
        ):
            raise SimulationError(
                "a fragment needs the capacities, lanes and pools of the Program it continues"
            )
        first = self.num_activities
        self._parts.append(fragment)
        self._admit(fragment)
        return range(first, self.num_activities)

    def change_rate(self, at_ps: int, capacity: int, rate: int) -> None:
        """Sets the base rate [units/s] of a capacity from `at_ps` on.

        Raises:
            SimulationError: The time lies in the past, or the rate is below 1.
        """
        if at_ps < self.now or rate < 1 or not 0 <= capacity < len(self._rates):
            raise SimulationError(f"cannot set capacity {capacity} to {rate} units/s at {at_ps} ps")
        moment = _Moment(self._env, at_ps - self.now, _RATE)
        assert moment.callbacks is not None
        moment.callbacks.append(lambda _: self._change_rate(capacity, rate))

    def finish(self) -> Record:
        """Plays to the end.

        Raises:
            DeadlockError: Activities wait for ever.
            SimulationError: An activity would end beyond the horizon.
        """
        self._env.run()
        program, end = self.program, np.array(self._end, np.int64)
        if (end < 0).any():
            raise deadlock_error(program, end, np.array(self._pools.level, np.int64), int(end.max(initial=0)))
        start = np.array(self._start, np.int64)
        giver = np.full(end.size, -1, np.int32)
        giver[list(self._pools.giver)] = list(self._pools.giver.values())
        ready, whom, kind = awaited(program, start, end, np.array(self._release, np.int64), giver)
        segments = sorted(self._segments)
        return Record(
            ready=ready,
            start=start,
            end=end,
            awaited=whom,
            awaited_kind=kind,
            limit=np.array(self._limit, np.int32),
            segment_activity=np.array([row[0] for row in segments], np.int32),
            segment_start=np.array([row[1] for row in segments], np.int64),
            segment_limit=np.array([row[2] for row in segments], np.int32),
            segment_left=np.array([row[3] for row in segments], np.float64),
            pool_peak=np.array([peak for peak, _ in self._pools.peak], np.int64),
            pool_peak_time=np.array([time for _, time in self._pools.peak], np.int64),
            pool_final=np.array(self._pools.level, np.int64),
            makespan=int(end.max(initial=0)),
            num_events=self._num_events,
            player="reference",
        )

    def _admit(self, program: Program) -> None:
        """Lays activities out in plain lists and wakes the lanes that they stand on."""
        first = len(self._lane)
        table = ClassTable(program.classes, np.array(self._rates, np.int64))
        kinds = [Kind(program, table, cls) for cls in range(len(program.classes.labels))]
        self._books.append((program, table, kinds))
        lanes, pointers, dependencies = program.lane.tolist(), program.dep_ptr.tolist(), program.dep.tolist()
        count, now = len(lanes), self.now
        self._lane += lanes
        self._kind += [kinds[cls] for cls in program.cls.tolist()]
        self._after += [[] for _ in range(count)]
        self._release += [now] * count
        self._start += [-1] * count
        self._end += [-1] * count
        self._limit += [-1] * count
        for position, lane in enumerate(lanes):
            activity = first + position
            missing = [
                d for d in dependencies[pointers[position] : pointers[position + 1]] if self._end[d] < 0
            ]
            for dependency in missing:
                self._after[dependency].append(activity)
            self._missing.append(len(missing))
            self._queue[lane].append(activity)
            if not self._awake[lane]:
                self._awake[lane] = True
                self._env.process(self._lane_process(lane))

    def _lane_process(self, lane: int) -> _Process:
        """A lane's life: one activity after the other waits for its turn, for its delay, for its work."""
        queue, kinds, env = self._queue[lane], self._kind, self._env
        for activity in queue:
            kind = kinds[activity]
            yield self._await_turn(lane, activity)
            if kind.delay:
                yield env.timeout(self._within_horizon(activity, kind.delay))
            if kind.demands:
                yield self._draw(lane, activity, kind)
            self._finish(lane, activity, kind)
        queue.clear()
        self._awake[lane] = False

    def _within_horizon(self, activity: int, delay: int) -> int:
        if delay > MAX_PICOSECONDS - self._env.now:
            raise horizon_error(self.program, activity, self.now)
        return delay

    def _await_turn(self, lane: int, activity: int) -> simpy.Event:
        """Rings when everything before has ended and the activity was granted."""
        turn = self._turn[lane] = simpy.Event(self._env)
        self._head[lane] = activity
        if not self._missing[activity]:
            self._enqueue(activity)
        return turn

    def _enqueue(self, activity: int) -> None:
        self._eligible.append((int(self._env.now), activity))
        if not self._grant_due:
            self._call_for_grants()

    def _call_for_grants(self) -> None:
        self._grant_due = True
        moment = _Moment(self._env, 0, _GRANT)
        assert moment.callbacks is not None
        moment.callbacks.append(self._grant)

    def _grant(self, _: simpy.Event) -> None:
        """Grants what waits, by (time it became ready, activity id); what does not fit keeps its place."""
        candidates, self._eligible = self._eligible, []
        if self._given and self._short:
            candidates += self._short
            self._short = []
        self._given = self._grant_due = False
        candidates.sort()
        for candidate in candidates:
            since, activity = candidate
            kind = self._kind[activity]
            if kind.blocking and not self._pools.fit(kind):
                insort(self._short, candidate)
                continue
            if kind.pools:
                self._pools.take(kind, activity, since, self.now)
            for capacity, amount in kind.holds:
                self._hold(capacity, amount)
            self._start[activity] = self.now
            turn = self._turn[self._lane[activity]]
            assert turn is not None
            turn.succeed()

    def _hold(self, capacity: int, amount: int) -> None:
        self._held[capacity] += amount
        self._room[capacity] = room(self._rates[capacity], self._held[capacity])
        if self._hot[capacity] or self._load[capacity] > self._room[capacity]:
            self._touch(capacity)

    def _draw(self, lane: int, activity: int, kind: Kind) -> simpy.Event:
        """Begins to draw on the capacities, at full speed unless the instant's end says otherwise."""
        now = int(self._env.now)
        for capacity, load, _ in kind.demands:
            insort(self._running[capacity], activity)
            self._load[capacity] += load
            if self._hot[capacity] or self._load[capacity] > self._room[capacity]:
                self._touch(capacity)
        self._since[lane] = now
        self._left[lane] = self._share[lane] = 1.0
        self._span[lane] = float(kind.nominal)
        self._limit[activity] = kind.limit
        timer = self._timer[lane] = self._env.timeout(self._within_horizon(activity, kind.nominal))
        return timer

    def _finish(self, lane: int, activity: int, kind: Kind) -> None:
        """Ends an activity and lets go of everything it had."""
        now = int(self._env.now)
        self._end[activity] = now
        self._num_events += 1
        self._head[lane] = -1
        for capacity, load, _ in kind.demands:
            running = self._running[capacity]
            del running[bisect_left(running, activity)]
            self._load[capacity] -= load
            if self._hot[capacity]:
                self._touch(capacity)
        for capacity, amount in kind.holds:
            self._hold(capacity, -amount)
        if kind.pools and self._pools.give(kind, activity, now):
            self._given = True
            if not self._grant_due:
                self._call_for_grants()
        for follower in self._after[activity]:
            self._missing[follower] -= 1
            if not self._missing[follower] and self._head[self._lane[follower]] == follower:
                self._enqueue(follower)

    def _change_rate(self, capacity: int, rate: int) -> None:
        """Sets a base rate; whoever runs of the classes concerned goes on with new figures."""
        self._rates[capacity] = rate
        self._room[capacity] = room(rate, self._held[capacity])
        self._touch(capacity)
        for program, table, kinds in self._books:
            concerned = {kinds[cls]: cls for cls in table.change_rate(capacity, rate)}
            running = {a for row in self._running for a in row if self._kind[a] in concerned}
            for sign in (-1, 1):
                for activity in running:
                    for drawn, load, _ in self._kind[activity].demands:
                        self._load[drawn] += sign * load
                        self._touch(drawn)
                if sign < 0:
                    for kind, cls in concerned.items():
                        kind.update(program, table, cls)
            self._forced |= running

    def _touch(self, capacity: int) -> None:
        self._touched.add(capacity)
        if not self._share_due:
            self._share_due = True
            moment = _Moment(self._env, 0, _SHARE)
            assert moment.callbacks is not None
            moment.callbacks.append(self._share_out)

    def _share_out(self, _: simpy.Event) -> None:
        """Solves the touched components: the last thing that happens at an instant."""
        self._share_due = False
        was_hot = {capacity for capacity in self._touched if self._hot[capacity]}
        held = []
        for capacity in self._touched:
            self._hot[capacity] = self._load[capacity] > self._room[capacity]
            if self._hot[capacity] and self._held[capacity] >= self._rates[capacity]:
                held.append(capacity)
        if held:
            raise hold_error(self.program, min(held), self.now)
        reached = set(self._forced)
        for capacity in self._touched:
            if capacity in was_hot or self._hot[capacity]:
                reached.update(self._running[capacity])
        usage = self._component(reached)
        hot = sorted({capacity for row in usage.values() for capacity in row})
        shares = max_min(
            {c: float(self._rates[c] - self._held[c]) / PICOSECONDS for c in hot},
            {c: self._running[c] for c in hot},
            usage,
            {activity: self._kind[activity].weight for activity in usage},
        )
        for activity in sorted(usage):
            share, limit = shares.get(activity, (1.0, -1))
            self._settle(activity, share, self._kind[activity].limit if limit < 0 else limit)
        self._touched.clear()
        self._forced.clear()

    def _component(self, reached: set[int]) -> dict[int, dict[int, float]]:
        """All activities that hot capacities tie to those given, with what they use of these capacities."""
        usage: dict[int, dict[int, float]] = {}
        pending = list(reached)
        while pending:
            activity = pending.pop()
            if activity not in usage:
                usage[activity] = {c: use for c, _, use in self._kind[activity].demands if self._hot[c]}
                for capacity in usage[activity]:
                    pending += self._running[capacity]
        return usage

    def _settle(self, activity: int, share: float, limit: int) -> None:
        """Goes on at another share; what is left of the work is reckoned only here."""
        lane, now, kind = self._lane[activity], self.now, self._kind[activity]
        old = self._share[lane]
        if activity not in self._forced and abs(share - old) <= SAME_SHARE * old:
            return
        fresh = self._since[lane] == now and self._left[lane] == 1.0
        self._left[lane] -= (now - self._since[lane]) / self._span[lane]
        if fresh:
            self._limit[activity] = limit
        else:
            self._segments.append((activity, now, limit, self._left[lane]))
        self._since[lane] = now
        self._share[lane] = share
        self._span[lane] = kind.nominal / share
        self._num_events += 1
        self._rearm(lane, activity, self._left[lane] * self._span[lane])

    def _rearm(self, lane: int, activity: int, remaining: float) -> None:
        if remaining > MAX_PICOSECONDS:
            raise horizon_error(self.program, activity, self.now)
        delay = self._within_horizon(activity, max(1, math.ceil(remaining)))
        timer, old = self._env.timeout(delay), self._timer[lane]
        assert old is not None and old.callbacks is not None
        timer.callbacks, old.callbacks = old.callbacks, []
        self._timer[lane] = timer
