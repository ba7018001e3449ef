"""A simulated cluster: actors that work, die and are lost with their nodes, by one seed and a clock of its own.

It stands where Ray does (`pipeline.cluster.scheduler.Actors`) and keeps a ledger as the workers do: the first commit of
a shard stands. `Schedule.of(seed)` draws what happens; the same seed gives the same run.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.cluster.scheduler import ActorDiedError, CallError, Room
from pipeline.ledger.damage import DamagedFileError
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary

MAX_WAITS = 5000  # of a run that ends


@dataclass(frozen=True)
class Schedule:
    """What a run meets: its shards, the items that kill, nodes as (number of slots, joins at, is lost at), Ctrl-C."""

    seed: int
    shards: tuple[Shard, ...]
    deadly: frozenset[str]
    nodes: tuple[tuple[int, float, float], ...]
    num_deaths: int  # that no item causes
    num_errors: int  # of calls, one at most in a shard
    num_lost_answers: int  # commits whose worker dies before it can tell
    interrupted_at: float
    can_grow: bool
    damaged: frozenset[int]  # shards that are made from a damaged file

    @classmethod
    def of(cls, seed: int) -> "Schedule":
        """Draw a schedule; half of all have no deaths but those that items cause."""
        rng = random.Random(seed)
        sizes = [rng.randint(1, 9) for _ in range(rng.randint(1, 12))]
        shards = tuple(Shard(n, tuple(f"{n}-{i}" for i in range(size))) for n, size in enumerate(sizes))
        items = [item for shard in shards for item in shard.items]
        is_calm = rng.random() < 0.5
        never = float("inf")
        nodes = [(rng.randint(1, 3), 0.0, never)]  # stays, so that the job can end
        for _ in range(rng.randint(0, 3)):
            joins = rng.choice([0.0, rng.uniform(0, 200)])
            nodes.append((rng.randint(1, 3), joins, never if is_calm else joins + rng.expovariate(1 / 100)))
        return cls(
            seed,
            shards,
            frozenset(rng.sample(items, min(len(items), rng.choice([0, 0, 1, 2, 4])))),
            tuple(nodes),
            num_deaths=0 if is_calm else rng.randint(0, 4),
            num_errors=rng.choice([0, 0, 1, 3]),
            num_lost_answers=0 if is_calm else rng.choice([0, 1, 2]),
            interrupted_at=rng.choice([never, never, never, rng.uniform(0, 200)]),
            can_grow=rng.random() < 0.7,
            damaged=frozenset(rng.sample(range(len(shards)), rng.choice([0, 0, 1]))),
        )


class SimulatedCluster:
    """The actors of a schedule, and what they commit."""

    waits_for = "waiting for a slot"

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.committed: dict[int, Marker] = {}
        self.num_deaths = 0  # that no item caused
        self.num_incidents = 0  # that caused those: a lost node is one
        self._rng = random.Random(schedule.seed)
        self._now = 0.0
        self._num_waits = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._results: dict[int, Any] = {}
        self._free: dict[int, int] = {}  # node -> slots
        self._num_slots = 0
        self._waiting: deque[SimulatedActor] = deque()
        self._actors: list[SimulatedActor] = []
        self._errors_left = set(self._rng.sample(range(len(schedule.shards)), self._at_most(schedule.num_errors)))
        self._lost_answers_left = set(
            self._rng.sample(range(len(schedule.shards)), self._at_most(schedule.num_lost_answers))
        )
        for node, (num_slots, joins, is_lost) in enumerate(schedule.nodes):
            self._add_node(node, num_slots, joins, is_lost)
        for _ in range(schedule.num_deaths):
            self.after(self._rng.uniform(0, 150), self._one_dies)

    @property
    def room(self) -> Room:
        """The room that there is now."""
        return Room(self._num_slots, self.schedule.can_grow)

    def is_interrupted(self) -> bool:
        """Tell whether the user has pressed Ctrl-C."""
        return self._now >= self.schedule.interrupted_at

    # What a scheduler asks for.

    def new(self) -> "SimulatedActor":
        actor = SimulatedActor(self, self._rng)
        self._actors.append(actor)
        self._waiting.append(actor)
        self.after(0, self._place)
        return actor

    def wait(self, references: Sequence[int], *, num_results: int, timeout: float) -> list[int]:
        assert references and len(set(references)) == len(references)
        self._num_waits += 1
        assert self._num_waits < MAX_WAITS, "the job does not end"
        deadline = self._now + timeout
        while sum(reference in self._results for reference in references) < num_results:
            if not self._events or self._events[0][0] > deadline:
                self._now = deadline
                break
            self._step()
        done = [reference for reference in references if reference in self._results]
        self._rng.shuffle(done)
        return done

    def result(self, reference: int) -> Any:
        value = self._results[reference]
        if isinstance(value, Exception):
            raise value
        return value

    def num_workers_now(self) -> int:
        return self._num_slots

    def seconds(self) -> float:
        return self._now

    # What happens.

    def after(self, seconds: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._numbers), happens))

    def reference(self) -> int:
        return next(self._numbers)

    def answer(self, reference: int, value: Any) -> None:
        self._results[reference] = value

    def has_error(self, shard: int) -> bool:
        """Tell, once, whether a shard fails to be written."""
        return _taken(self._errors_left, shard)

    def loses_answer(self, shard: int) -> bool:
        """Tell, once, whether a worker dies between the commit of a shard and its answer."""
        return _taken(self._lost_answers_left, shard)

    def leave(self, node: int | None) -> None:
        """Give a slot back."""
        if node in self._free:
            self._free[node] += 1
            self.after(0, self._place)

    def _at_most(self, number: int) -> int:
        return min(number, len(self.schedule.shards))

    def _step(self) -> None:
        self._now, _, happens = heapq.heappop(self._events)
        happens()

    def _add_node(self, node: int, num_slots: int, joins: float, is_lost: float) -> None:
        def join() -> None:
            self._free[node] = num_slots
            self._num_slots += num_slots
            self._place()

        def lose() -> None:
            del self._free[node]
            self.num_incidents += 1
            self._num_slots -= num_slots
            for actor in self._actors:
                if actor.node == node and not actor.is_dead:
                    self.num_deaths += 1
                    actor.die()

        if joins == 0:
            join()
        else:
            self.after(joins, join)
        if is_lost < float("inf"):
            self.after(is_lost, lose)

    def _place(self) -> None:
        """Start actors that wait where there are free slots."""
        for node, num_free in self._free.items():
            while num_free > 0 and self._waiting:
                actor = self._waiting.popleft()
                if not actor.is_dead:
                    actor.begin(node)
                    num_free -= 1
            self._free[node] = num_free

    def _one_dies(self) -> None:
        alive = [actor for actor in self._actors if actor.node is not None and not actor.is_dead]
        if alive:
            self.num_deaths += 1
            self.num_incidents += 1
            self._rng.choice(alive).die()


class SimulatedActor:
    """A process with a queue of calls, which it works on one by one once it has a slot."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random) -> None:
        self.node: int | None = None
        self.is_dead = False
        self._cluster = cluster
        self._rng = rng
        self._calls: deque[tuple[int, str, Any]] = deque()
        self._is_busy = False
        self._is_closed = False
        self._num_begun = 0
        self._unsent: dict[int, Any] = {}  # answers that are lost if the process dies now

    def start(self) -> int:
        return self._call("start", None)

    def run(self, shard: Shard, killers: frozenset[int]) -> int:
        return self._call("run", (shard, killers))

    def probe(self, shard: Shard) -> int:
        return self._call("probe", (shard, frozenset()))

    def close(self) -> int:
        reference = self._cluster.reference()

        def close() -> None:
            self._is_closed = True
            self._cluster.answer(reference, ActorDiedError() if self.is_dead else self._num_begun)

        self._cluster.after(self._rng.choice([0.01, 0.01, 0.1, 20.0]), close)
        return reference

    def kill(self) -> None:
        if not self.is_dead:
            self.die()

    def begin(self, node: int) -> None:
        """Take a slot of a node."""
        self.node = node
        self._next()

    def die(self) -> None:
        """End, with all that was begun or waits."""
        self.is_dead = True
        for reference in (*self._unsent, *(reference for reference, _, _ in self._calls)):
            self._cluster.answer(reference, ActorDiedError())
        self._calls.clear()
        self._unsent.clear()
        self._cluster.leave(self.node)

    def _call(self, kind: str, value: Any) -> int:
        reference = self._cluster.reference()
        if self.is_dead:
            self._cluster.answer(reference, ActorDiedError())
        else:
            self._calls.append((reference, kind, value))
            self._next()
        return reference

    def _next(self) -> None:
        if self.node is not None and self._calls and not self._is_busy:
            _, kind, _ = self._calls[0]
            is_refused = kind != "start" and self._is_closed
            self._num_begun += kind != "start" and not is_refused
            self._is_busy = True
            seconds = 0.0 if is_refused else self._rng.choice([0.1, 1.0, self._rng.uniform(0, 30)])
            self._cluster.after(seconds, lambda: self._end(is_refused))

    def _end(self, is_refused: bool) -> None:
        """End the oldest call."""
        if self.is_dead:
            return
        self._is_busy = False
        _, kind, value = self._calls[0]
        if kind != "start" and not is_refused:
            shard, killers = value
            alive = [item for position, item in enumerate(shard.items) if position not in killers]
            if self._cluster.schedule.deadly & set(alive):
                self.die()
                return
            if kind == "run":
                self._run(shard, killers)
                return
        self._answer(None)
        self._next()

    def _answer(self, value: Any) -> None:
        """Send the result of the oldest call on its way."""
        reference, _, _ = self._calls.popleft()
        self._unsent[reference] = value

        def arrive() -> None:
            if reference in self._unsent:
                self._cluster.answer(reference, self._unsent.pop(reference))

        self._cluster.after(self._rng.choice([0.0, 0.0, 0.5]), arrive)

    def _run(self, shard: Shard, killers: frozenset[int]) -> None:
        if shard.index in self._cluster.schedule.damaged:
            error = CallError()
            error.__cause__ = DamagedFileError(str(shard.index))
            self._answer(error)
        elif self._cluster.has_error(shard.index):
            error = CallError()
            error.__cause__ = OSError("storage was down")
            self._answer(error)
        else:
            quarantined = {"crashed": len(killers)} if killers else {}
            names = {str(position): shard.items[position] for position in killers}
            marker = Marker(shard.index, "a", {}, Summary(len(shard.items), quarantined, names))
            stored = self._cluster.committed.setdefault(shard.index, marker)
            if self._cluster.loses_answer(shard.index):
                self._cluster.num_deaths += 1
                self._cluster.num_incidents += 1
                self.die()
                return
            self._answer(stored)
        self._next()


def _taken(numbers: set[int], number: int) -> bool:
    """Take a number out of a set; return whether it was there."""
    is_there = number in numbers
    numbers.discard(number)
    return is_there
