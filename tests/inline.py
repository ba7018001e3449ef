"""A cluster of one worker in this process, where a job expects one of Ray."""

from collections.abc import Callable, Generator, Iterator

from pipeline.cluster.cluster import Cluster
from pipeline.cluster.pool import ShardWorker
from pipeline.cluster.scheduler import Room
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard


class InlineCluster(Cluster):
    """One worker, in this process."""

    def connect(self) -> Room:
        return Room(1)

    def run(
        self, make_worker: Callable[[], ShardWorker], shards: Iterator[Shard | None]
    ) -> Generator[Marker, None, None]:
        worker = make_worker()
        for shard in shards:
            assert shard is not None  # nothing runs that the next one could wait for
            yield worker.run(shard)
