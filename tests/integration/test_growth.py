"""A cluster that grows while a job runs: the node that joins gets work."""

import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster as Nodes

from pipeline.cluster import scheduler
from pipeline.cluster.cluster import Cluster
from pipeline.cluster.pool import run_shards
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary

pytestmark = pytest.mark.integration


def make_worker(log: Path) -> Callable[[], Any]:
    """Return a call that makes a worker which ends no shard before workers of two nodes have begun one."""

    class Worker:  # inside a function, so that it travels to the actors by value
        def run(self, shard: Shard, *, crashed: Collection[int] = ()) -> Marker:
            with log.open("a") as file:
                file.write(f"{ray.get_runtime_context().get_node_id()}\n")
            deadline = time.monotonic() + 200
            while len(set(log.read_text().split())) < 2:
                if time.monotonic() > deadline:
                    raise TimeoutError("no worker of another node began a shard")
                time.sleep(0.05)
            return Marker(shard=shard.index, attempt="a", files={}, summary=Summary(1))

        def probe(self, shard: Shard) -> None:
            raise AssertionError("no image is suspected")

    return Worker


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """Return a cluster of one node that has room for one worker, which RAY_ADDRESS names."""
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    yield nodes
    nodes.shutdown()


@pytest.mark.parametrize("num_workers", [2, None])
def test_a_node_that_joins_gets_work(
    num_workers: int | None, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "SECONDS_BETWEEN_LOOKS", 1.0)
    log = tmp_path / "log"

    def shards() -> Iterator[Shard]:
        yield Shard(0, ("image",))
        nodes.add_node(num_cpus=1)  # while the first shard is worked on, and by the main thread, as Ray wants it
        yield from (Shard(number, ("image",)) for number in range(1, 6))

    with Cluster(num_workers=num_workers) as cluster:
        markers = list(run_shards(cluster, make_worker(log), shards()))
    assert sorted(marker.shard for marker in markers) == list(range(6))
    assert len(set(log.read_text().split())) == 2
