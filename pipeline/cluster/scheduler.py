"""Which actor does which shard, and what becomes of both when one dies. It knows no Ray, and prints nothing.

Each actor holds one loaded worker and is given whole shards: references in, markers out, no pixels. An actor whose
process dies is replaced by a new one, which waits for free resources as the first ones did: workers come and go with
the nodes of a cluster. A shard whose worker died is tried once more, then bisected until the images that kill are
alone; they are quarantined and the rest is committed. A shard that is made from a damaged file is left out, and all
others are done. On Ctrl-C the running shards are finished, and no more are given out.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.cluster.tasks import Task
from pipeline.console.exits import WorkError, describe_error
from pipeline.ledger.damage import DamagedFileError
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard

IN_FLIGHT = 2  # shards of an actor: the next one is there when one ends
MAX_FAILED_STARTS = 3  # in a row: of a worker, of one asked for after that, and so on
SECONDS_TO_START = 60.0  # of a first worker, before a message says what the job waits for
SECONDS_BETWEEN_LOOKS = 10.0  # at the room that the cluster has
SECONDS_TO_WAIT = 1.0  # for results, before Ctrl-C is looked for
SECONDS_TO_CLOSE = 5.0  # for a worker to report, after Ctrl-C, what it has begun


class InterruptedWorkError(Exception):
    """The user stopped the job; the shards that ran then are committed."""


class DamagedShardsError(WorkError):
    """Files that some shards are made from are missing or damaged; all other shards are done."""

    def __init__(self, damage: Sequence[DamagedFileError]) -> None:
        super().__init__(f"{len(damage)} shards cannot be done, for example: {damage[0]}")
        self.damage = tuple(damage)


class ActorDiedError(Exception):
    """The process of an actor ended, or its node is lost; the cause says how."""


class CallError(Exception):
    """A call raised in the worker; the cause is what it raised."""


@dataclass(frozen=True)
class Room:
    """How many workers a job begins with, and whether more are wanted when nodes join."""

    num_workers: int
    can_grow: bool = False


class Actor(Protocol):
    """A process that holds a worker. Calls return references at once; they are worked on in their order."""

    def start(self) -> Any:
        """Make the worker."""
        ...

    def run(self, shard: Shard, killers: frozenset[int]) -> Any:
        """Do a shard and commit it: the result is its marker."""
        ...

    def probe(self, shard: Shard) -> Any:
        """Do a shard without committing it: the result is None."""
        ...

    def close(self) -> Any:
        """Begin no more calls: the result is how many of `run` and `probe` were begun."""
        ...

    def kill(self) -> None:
        """End the process."""
        ...


class Actors(Protocol):
    """Where actors come from: Ray, or a simulation."""

    waits_for: str
    """What an actor waits for that has not started yet, for messages."""

    def new(self) -> Actor:
        """Ask for an actor; it starts when there is room for it."""
        ...

    def wait(self, references: Sequence[Any], *, num_results: int, timeout: float) -> list[Any]:
        """Wait for so many results, at most `timeout` seconds; return the references of all that are there."""
        ...

    def result(self, reference: Any) -> Any:
        """Return a result that is there.

        Raises:
            CallError: the call raised.
            ActorDiedError: the process died before it had a result.
        """
        ...

    def num_workers_now(self) -> int:
        """Return for how many workers there is room by now."""
        ...

    def seconds(self) -> float:
        """Return the time on a clock that never goes back."""
        ...


class Watcher(Protocol):
    """Who counts what happens to workers."""

    def failed(self, kind: str) -> None:
        """Count a worker that died (`crash`) or a shard that raised (`error`)."""
        ...

    def ready(self, num_workers: int) -> None:
        """Take note of how many workers are ready."""
        ...


class _Worker:
    """An actor and the tasks it was given, oldest first: it works on the oldest."""

    def __init__(self, actor: Actor, *, num_failed_starts: int) -> None:
        self.actor = actor
        self.starting = actor.start()
        self.num_failed_starts = num_failed_starts  # in a row, when this one was asked for
        self.is_ready = False
        self.given: deque[tuple[Any, Task]] = deque()
        self.num_taken = 0

    @property
    def has_room(self) -> bool:
        """Whether it may be given a task. Behind a probe nothing waits: a result can be lost with the process."""
        return self.is_ready and len(self.given) < IN_FLIGHT and not (self.given and self.given[-1][1].suspects)

    def take(self) -> None:
        """Note that the oldest task is done."""
        self.given.popleft()
        self.num_taken += 1

    @property
    def awaited(self) -> Any:
        """The reference of its next result, or None if none is to come."""
        if not self.is_ready:
            return self.starting
        return self.given[0][0] if self.given else None


class Scheduler:
    """The workers of a run and the tasks that wait for them."""

    def __init__(
        self,
        actors: Actors,
        shards: Iterator[Shard | None],
        *,
        room: Room,
        notify: Callable[[str], None],
        watcher: Watcher,
    ) -> None:
        self._actors = actors
        self._new = (None if shard is None else Task(shard) for shard in shards)
        self._again: deque[Task] = deque()
        self._can_grow = room.can_grow
        self._notify = notify
        self._watcher = watcher
        self._num_failed_starts = 0
        self._waiting_since = self._last_look = actors.seconds()
        self._is_finishing = False
        self._damage: list[DamagedFileError] = []
        self._workers = [self._new_worker() for _ in range(room.num_workers)]

    def markers(self, is_interrupted: Callable[[], bool]) -> Iterator[Marker]:
        """Do all shards; yield their markers in the order of completion.

        Raises:
            WorkError: workers cannot start, a shard cannot be written, or ends its workers with no image to blame.
            InterruptedWorkError: the user stopped the job, and the shards that ran then are done.
            DamagedShardsError: as it says.
        """
        while self._give():
            for worker in self._wait():
                marker = self._take(worker)
                if marker is not None:
                    yield marker
            if not self._is_finishing and is_interrupted():
                self._finish()
        if self._is_finishing:
            raise InterruptedWorkError
        if self._damage:
            raise DamagedShardsError(self._damage)

    def stop(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.actor.kill()

    def _new_worker(self) -> _Worker:
        return _Worker(self._actors.new(), num_failed_starts=self._num_failed_starts)

    def _give(self) -> bool:
        """Fill up the workers that are ready; return whether anything is left to wait for."""
        if self._is_finishing:
            return any(worker.given for worker in self._workers)
        for _ in range(IN_FLIGHT):
            for worker in self._workers:
                if worker.has_room and (task := self._next(worker)) is not None:
                    worker.given.append((task.submit(worker.actor), task))
        return any(worker.given for worker in self._workers) or not any(worker.is_ready for worker in self._workers)

    def _next(self, worker: _Worker) -> Task | None:
        """Return the next task for a worker.

        Probes go only to idle workers: with two tasks in flight we could not know which one killed the process. None
        among the shards says that the next one depends on running ones.
        """
        if self._again and not (self._again[0].suspects and worker.given):
            return self._again.popleft()
        return next(self._new, None)

    def _wait(self) -> list[_Worker]:
        """Wait for results; return the workers that have one."""
        self._grow()
        by_reference = {worker.awaited: worker for worker in self._workers if worker.awaited is not None}
        done = self._actors.wait(list(by_reference), num_results=1, timeout=SECONDS_TO_WAIT)
        now = self._actors.seconds()
        if done or any(worker.is_ready for worker in self._workers):
            self._waiting_since = now
        elif now - self._waiting_since > SECONDS_TO_START:
            self._waiting_since = now
            self._notify(f"no worker has started in {SECONDS_TO_START:g} s: {self._actors.waits_for}")
        return [by_reference[reference] for reference in done]

    def _grow(self) -> None:
        """Look now and then whether nodes joined, and add workers that find their place there."""
        now = self._actors.seconds()
        if self._can_grow and not self._is_finishing and now - self._last_look >= SECONDS_BETWEEN_LOOKS:
            self._last_look = now
            missing = self._actors.num_workers_now() - len(self._workers)
            self._workers += [self._new_worker() for _ in range(missing)]

    def _take(self, worker: _Worker) -> Marker | None:
        """Take the next result of a worker; return the marker, if it is one."""
        if not worker.is_ready:
            self._take_start(worker)
            return None
        reference, task = worker.given[0]
        try:
            marker: Marker | None = self._actors.result(reference)
        except CallError as error:
            worker.take()
            self._watcher.failed("error")
            if isinstance(cause := _cause(error), DamagedFileError):  # it is the same the next time
                self._damage.append(cause)
            else:
                task.raised(cause)
                self._again.append(task)
            return None
        except ActorDiedError:
            self._replace(worker)
            return None
        worker.take()
        if marker is None:
            task.survived_probe()
            self._again.append(task)
        return marker

    def _take_start(self, worker: _Worker) -> None:
        try:
            self._actors.result(worker.starting)
        except CallError as error:
            raise WorkError(f"workers cannot start: {describe_error(_cause(error))}") from error
        except ActorDiedError as error:
            # A node that is lost takes all workers along that start on it: they count as one.
            self._num_failed_starts += worker.num_failed_starts >= self._num_failed_starts
            if self._num_failed_starts == MAX_FAILED_STARTS:
                raise WorkError(f"workers die when they start: {describe_error(_cause(error))}") from error
            self._replace(worker)
            return
        self._num_failed_starts = 0
        worker.is_ready = True
        self._watcher.ready(self._num_ready)

    def _replace(self, worker: _Worker) -> None:
        """Put a new actor in the place of a dead one; only its oldest task was begun, the others are innocent."""
        self._workers[self._workers.index(worker)] = self._new_worker()
        self._watcher.failed("crash")
        self._watcher.ready(self._num_ready)
        worker.actor.kill()
        if worker.given:
            _, task = worker.given.popleft()
            task.crashed()
            self._again.append(task)
        self._again.extend(task for _, task in worker.given)

    @property
    def _num_ready(self) -> int:
        return sum(worker.is_ready for worker in self._workers)

    def _finish(self) -> None:
        """Give out no more, and take back what no worker has begun."""
        self._is_finishing = True
        busy = {worker.actor.close(): worker for worker in self._workers if worker.given}
        answered = self._actors.wait(list(busy), num_results=len(busy), timeout=SECONDS_TO_CLOSE) if busy else []
        for answer, worker in busy.items():
            num_begun = 1  # of one that is dead or cannot be reached: its oldest task will show it
            if answer in answered:
                with suppress(CallError, ActorDiedError):
                    num_begun = self._actors.result(answer) - worker.num_taken
            while len(worker.given) > num_begun:
                worker.given.pop()
        num_running = sum(len(worker.given) for worker in self._workers)
        if num_running:
            shards = f"{num_running} running shard{'s' * (num_running > 1)}"
            self._notify(f"finishing {shards}; press Ctrl-C again to stop at once")


def _cause(error: Exception) -> BaseException:
    return error.__cause__ or error
