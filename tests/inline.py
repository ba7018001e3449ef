"""A cluster of one worker in this process, where a job expects one of Ray: the real scheduler, calls in their order."""

import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from pipeline.cluster.cluster import Cluster
from pipeline.cluster.pool import ShardWorker
from pipeline.cluster.run import run_to_end
from pipeline.cluster.scheduler import CallError, Room, Scheduler
from pipeline.console.printing import say
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard


class InlineCluster(Cluster):
    """One worker, in this process."""

    def connect(self) -> Room:
        return Room(1)

    def run(
        self, make_worker: Callable[[], ShardWorker], shards: Iterator[Shard | None]
    ) -> Generator[Marker, None, None]:
        actors = _Actors(make_worker)
        yield from Scheduler(actors, shards, room=Room(1), notify=say, watcher=actors).markers(lambda: False)


def run_inline(patch: pytest.MonkeyPatch, *jobs: ModuleType) -> None:
    """Let jobs do their work in this process."""
    for job in jobs:
        patch.setattr(job, "Cluster", InlineCluster)
        if hasattr(job, "run_to_end"):
            patch.setattr(job, "run_to_end", partial(run_to_end, run=InlineCluster.run))
        else:
            patch.setattr(job, "run_shards", InlineCluster.run)


class _Actors:
    """Stands for Ray: a reference is a call, which is made when it is waited for."""

    waits_for = "nothing"

    def __init__(self, make_worker: Callable[[], ShardWorker]) -> None:
        self._make_worker = make_worker
        self._results: dict[Any, Any] = {}

    def new(self) -> "_Actor":
        return _Actor(self._make_worker)

    def wait(self, references: Sequence[Any], *, num_results: int, timeout: float) -> list[Any]:
        first = references[0]
        try:
            self._results[first] = first()
        except Exception as error:
            self._results[first] = error
        return [first]

    def result(self, reference: Any) -> Any:
        if isinstance(result := self._results.pop(reference), Exception):
            raise CallError from result
        return result

    def num_workers_now(self) -> int:
        return 1

    def seconds(self) -> float:
        return time.monotonic()

    def failed(self, kind: str) -> None:
        """Count nothing."""

    def ready(self, num_workers: int) -> None:
        """Count nothing."""


class _Actor:
    def __init__(self, make_worker: Callable[[], ShardWorker]) -> None:
        self._make_worker = make_worker

    def start(self) -> Any:
        def make() -> None:
            self._worker = self._make_worker()

        return make

    def run(self, shard: Shard, killers: Collection[int]) -> Any:
        return partial(self._run, shard, killers)

    def _run(self, shard: Shard, killers: Collection[int]) -> Marker:
        return self._worker.run(shard, crashed=killers)

    def probe(self, shard: Shard) -> Any:
        return partial(self._worker.probe, shard)

    def close(self) -> Any:
        return lambda: 0

    def kill(self) -> None:
        """Leave this process alive."""
