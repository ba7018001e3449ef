"""Shards on Ray actors.

Each actor holds one loaded worker and is given whole shards: references in, markers out, no pixels. An actor whose
process dies is replaced by a new one, which waits for free resources as the first ones did: workers come and go with
the nodes of a cluster. Ray's own retries are off. A shard whose worker died is tried once more, then bisected until the
images that kill are alone; they are quarantined and the rest is committed. On Ctrl-C running shards are finished, and
no more are given out.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import suppress
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.cluster.cluster import Cluster
from pipeline.cluster.interrupts import Interrupts
from pipeline.cluster.tasks import Task
from pipeline.cluster.telemetry import Telemetry
from pipeline.console.exits import WorkError, describe_error
from pipeline.console.printing import say
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard

IN_FLIGHT = 2  # shards of an actor: the next one is there when one ends
MAX_FAILED_STARTS = 3  # of workers in a row
SECONDS_TO_START = 60.0  # of a first worker, before a message says what the job waits for
SECONDS_BETWEEN_LOOKS = 10.0  # at the room that the cluster has
SECONDS_TO_WAIT = 1.0  # for results, before Ctrl-C is looked for
SECONDS_TO_CLOSE = 5.0  # for a worker to report, after Ctrl-C, what it has begun


class InterruptedWorkError(Exception):
    """The user stopped the job; the shards that ran then are committed."""


class ShardWorker(Protocol):
    """What an actor holds; see pipeline/compress/worker.py."""

    def run(self, shard: Shard, *, crashed: Collection[int] = ()) -> Marker:
        """Do a shard and commit it."""
        ...

    def probe(self, shard: Shard) -> None:
        """Do a shard without committing it."""
        ...


def run_shards(
    cluster: Cluster, make_worker: Callable[[], ShardWorker], shards: Iterator[Shard]
) -> Generator[Marker, None, None]:
    """Do shards on actors; yield their markers in the order of completion.

    Raises:
        WorkError: workers cannot start, a shard cannot be written, or ends its workers with no image to blame.
        InterruptedWorkError: on Ctrl-C, when the shards that ran then are done; on a second one KeyboardInterrupt.
    """
    pool = _Pool(cluster, make_worker, shards)
    try:
        with Interrupts() as interrupts:
            yield from pool.markers(interrupts)
    finally:
        pool.stop()


class _Host:
    """The class of the actors. The worker is made by a call, so that its errors come back like those of any call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_begun = 0
        self._is_closed = False

    def start(self, make_worker: Callable[[], ShardWorker]) -> None:
        self._worker = make_worker()

    def run(self, shard: Shard, crashed: frozenset[int]) -> Marker | None:
        return self._worker.run(shard, crashed=crashed) if self._begin() else None

    def probe(self, shard: Shard) -> None:
        if self._begin():
            self._worker.probe(shard)

    @ray.method(concurrency_group="control")
    def close(self) -> int:
        """Begin no more tasks; return how many were begun. `ray.cancel` does not keep an actor from a waiting one."""
        with self._lock:
            self._is_closed = True
            return self._num_begun

    def _begin(self) -> bool:
        with self._lock:
            self._num_begun += not self._is_closed
            return not self._is_closed


class _Actor:
    """An actor and the tasks it was given, oldest first: it works on the oldest."""

    def __init__(self, handle: Any, make_worker: Callable[[], ShardWorker]) -> None:
        self.handle = handle
        self.starting = handle.start.remote(make_worker)
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


class _Pool:
    """The actors of a run and the tasks that wait for them."""

    def __init__(self, cluster: Cluster, make_worker: Callable[[], ShardWorker], shards: Iterator[Shard]) -> None:
        self._host = ray.remote(concurrency_groups={"control": 1})(_Host).options(  # type: ignore[call-overload]
            num_cpus=cluster.cpus_per_worker,
            num_gpus=cluster.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
        )
        self._needs = f"{cluster.cpus_per_worker} free CPUs and {cluster.gpus_per_worker:g} free GPUs on a node"
        self._cluster = cluster
        self._make_worker = make_worker
        self._new = (Task(shard) for shard in shards)
        self._again: deque[Task] = deque()
        self._num_failed_starts = 0
        self._waiting_since = time.monotonic()
        self._is_finishing = False
        self._actors = [self._new_actor() for _ in range(cluster.num_workers)]
        self._last_look = time.monotonic()
        self._telemetry = Telemetry(cluster.job)

    def markers(self, interrupts: Interrupts) -> Iterator[Marker]:
        while self._give():
            for actor in self._wait():
                marker = self._take(actor)
                if marker is not None:
                    self._telemetry.committed(marker.summary)
                    yield marker
            if interrupts.came and not self._is_finishing:
                self._finish()
        if self._is_finishing:
            raise InterruptedWorkError

    def stop(self) -> None:
        for actor in self._actors:
            ray.kill(actor.handle)

    def _new_actor(self) -> _Actor:
        return _Actor(self._host.remote(), self._make_worker)

    def _give(self) -> bool:
        """Fill up the actors that are ready; return whether anything is left to wait for."""
        if self._is_finishing:
            return any(actor.given for actor in self._actors)
        for _ in range(IN_FLIGHT):
            for actor in self._actors:
                if actor.has_room and (task := self._next(actor)) is not None:
                    actor.given.append((task.submit(actor.handle), task))
        return any(actor.given for actor in self._actors) or not any(actor.is_ready for actor in self._actors)

    def _finish(self) -> None:
        """Give out no more, and take back what no actor has begun."""
        self._is_finishing = True
        busy = {actor.handle.close.remote(): actor for actor in self._actors if actor.given}
        answered = ray.wait(list(busy), num_returns=len(busy), timeout=SECONDS_TO_CLOSE)[0] if busy else []
        for answer, actor in busy.items():
            num_begun = 1  # of one that is dead or cannot be reached: its oldest task will show it
            if answer in answered:
                with suppress(RayError):
                    num_begun = ray.get(answer) - actor.num_taken
            while len(actor.given) > num_begun:
                actor.given.pop()
        num_running = sum(len(actor.given) for actor in self._actors)
        if num_running:
            say(f"finishing {num_running} running shard{'s' * (num_running > 1)}; press Ctrl-C again to stop at once")

    def _next(self, actor: _Actor) -> Task | None:
        """Return the next task for an actor.

        Probes go only to idle actors: with two tasks in flight we could not know which one killed the process.
        """
        if self._again and not (self._again[0].suspects and actor.given):
            return self._again.popleft()
        return next(self._new, None)

    def _wait(self) -> list[_Actor]:
        """Wait for results; return the actors that have one."""
        self._grow()
        by_reference = {actor.awaited: actor for actor in self._actors if actor.awaited is not None}
        done, others = ray.wait(list(by_reference), timeout=SECONDS_TO_WAIT)
        if done and others:  # take all that are there: looking costs more, the more workers there are
            done += ray.wait(others, num_returns=len(others), timeout=0)[0]
        now = time.monotonic()
        if done or any(actor.is_ready for actor in self._actors):
            self._waiting_since = now
        elif now - self._waiting_since > SECONDS_TO_START:
            self._waiting_since = now
            say(f"no worker has started in {SECONDS_TO_START:g} s: waiting for {self._needs}, as `ray status` shows")
        return [by_reference[reference] for reference in done]

    def _grow(self) -> None:
        """Look now and then whether nodes joined, and add workers that find their place there."""
        if (
            self._cluster.follows_room
            and not self._is_finishing
            and time.monotonic() - self._last_look >= SECONDS_BETWEEN_LOOKS
        ):
            self._last_look = time.monotonic()
            missing = self._cluster.num_workers_now() - len(self._actors)
            self._actors += [self._new_actor() for _ in range(missing)]

    def _take(self, actor: _Actor) -> Marker | None:
        """Take the next result of an actor; return the marker, if it is one."""
        if not actor.is_ready:
            self._take_start(actor)
            return None
        reference, task = actor.given[0]
        try:
            marker: Marker | None = ray.get(reference)
        except RayTaskError as error:
            actor.take()
            self._telemetry.failed("error")
            task.raised(error.cause)
            self._again.append(task)
            return None
        except RayError:
            self._replace(actor)
            return None
        actor.take()
        if marker is None:
            task.survived_probe()
            self._again.append(task)
        return marker

    def _take_start(self, actor: _Actor) -> None:
        try:
            ray.get(actor.starting)
        except RayTaskError as error:
            raise WorkError(f"workers cannot start: {describe_error(error.cause)}") from error
        except RayError as error:
            self._num_failed_starts += 1
            if self._num_failed_starts == MAX_FAILED_STARTS:
                raise WorkError(f"workers die when they start: {describe_error(error)}") from error
            self._replace(actor)
            return
        self._num_failed_starts = 0
        actor.is_ready = True
        self._telemetry.ready(sum(each.is_ready for each in self._actors))

    def _replace(self, actor: _Actor) -> None:
        """Put a new actor in the place of a dead one; only its oldest task was begun, the others are innocent."""
        self._actors[self._actors.index(actor)] = self._new_actor()
        self._telemetry.failed("crash")
        self._telemetry.ready(sum(each.is_ready for each in self._actors))
        ray.kill(actor.handle)
        if actor.given:
            _, task = actor.given.popleft()
            task.crashed()
            self._again.append(task)
        self._again.extend(task for _, task in actor.given)
