"""Shards on Ray actors: what `pipeline.cluster.scheduler` asks for, done by Ray. Ray's own retries are off."""

import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.cluster.cluster import Cluster
from pipeline.cluster.interrupts import Interrupts
from pipeline.cluster.scheduler import ActorDiedError, CallError, Scheduler
from pipeline.cluster.telemetry import Telemetry
from pipeline.console.printing import say
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard


class ShardWorker(Protocol):
    """What an actor holds; see pipeline/compress/worker.py."""

    def run(self, shard: Shard, *, crashed: Collection[int] = ()) -> Marker:
        """Do a shard and commit it."""
        ...

    def probe(self, shard: Shard) -> None:
        """Do a shard without committing it."""
        ...


def run_shards(
    cluster: Cluster, make_worker: Callable[[], ShardWorker], shards: Iterator[Shard | None]
) -> Generator[Marker, None, None]:
    """Do shards on actors; yield their markers in the order of completion.

    Raises:
        ClusterError: as `Cluster.connect`.
        WorkError, InterruptedWorkError, DamagedShardsError: as `Scheduler.markers`.
        KeyboardInterrupt: on a second Ctrl-C.
    """
    room = cluster.connect()
    telemetry = Telemetry(cluster.job)
    actors = _RayActors(cluster, make_worker)
    scheduler = Scheduler(actors, shards, room=room, notify=say, watcher=telemetry)
    try:
        with Interrupts() as interrupts:
            for marker in scheduler.markers(lambda: interrupts.is_noted):
                telemetry.committed(marker.summary)
                yield marker
    finally:
        scheduler.stop()


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


class _RayActor:
    """A handle of Ray's as a `pipeline.cluster.scheduler.Actor`."""

    def __init__(self, handle: Any, make_worker: Callable[[], ShardWorker]) -> None:
        self._handle = handle
        self._make_worker = make_worker

    def start(self) -> Any:
        return self._handle.start.remote(self._make_worker)

    def run(self, shard: Shard, killers: frozenset[int]) -> Any:
        return self._handle.run.remote(shard, killers)

    def probe(self, shard: Shard) -> Any:
        return self._handle.probe.remote(shard)

    def close(self) -> Any:
        return self._handle.close.remote()

    def kill(self) -> None:
        ray.kill(self._handle)


class _RayActors:
    """Ray as `pipeline.cluster.scheduler.Actors`."""

    def __init__(self, cluster: Cluster, make_worker: Callable[[], ShardWorker]) -> None:
        self._host = ray.remote(concurrency_groups={"control": 1})(_Host).options(  # type: ignore[call-overload]
            num_cpus=cluster.cpus_per_worker,
            num_gpus=cluster.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
        )
        self._cluster = cluster
        self._make_worker = make_worker
        self.waits_for = cluster.waits_for

    def new(self) -> _RayActor:
        return _RayActor(self._host.remote(), self._make_worker)

    def wait(self, references: Sequence[Any], *, num_results: int, timeout: float) -> list[Any]:
        done, others = ray.wait(list(references), num_returns=num_results, timeout=timeout)
        if done and others:  # take all that are there: looking costs more, the more workers there are
            done += ray.wait(others, num_returns=len(others), timeout=0)[0]
        return list(done)

    def result(self, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            raise CallError from error.cause
        except RayError as error:
            raise ActorDiedError from error

    def num_workers_now(self) -> int:
        return self._cluster.num_workers_now()

    def seconds(self) -> float:
        return time.monotonic()
