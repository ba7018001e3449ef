"""What becomes of shards whose workers die, on a real Ray with workers that do nothing else."""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.cluster import Cluster
from pipeline.cluster.pool import run_shards
from pipeline.console.exits import WorkError
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary

pytestmark = pytest.mark.integration


def make_worker(deadly: set[str], log: Path, *, deadly_together: bool = False) -> Callable[[], Any]:
    """Return a call that makes a worker which ends its process at a deadly item, or when it has all of them."""

    class Worker:  # inside a function, so that it travels to the actors by value
        def run(self, shard: Shard, *, crashed: Collection[int] = ()) -> Marker:
            self.probe(Shard(shard.index, tuple(item for i, item in enumerate(shard.items) if i not in crashed)))
            done = [item for i, item in enumerate(shard.items) if i not in crashed]
            with log.open("a") as file:
                file.write("".join(f"{item}\n" for item in done))
            summary = Summary(num_images=len(shard.items), quarantined={"crashed": len(crashed)} if crashed else {})
            return Marker(shard=shard.index, attempt="a", files={}, summary=summary)

        def probe(self, shard: Shard) -> None:
            fatal = deadly <= set(shard.items) if deadly_together else deadly & set(shard.items)
            if deadly and fatal:
                os._exit(1)

    return Worker


def test_images_that_kill_are_isolated_and_all_others_done(tmp_path: Path) -> None:
    shards = [Shard(n, tuple(f"{n}-{i}" for i in range(5))) for n in range(4)]
    deadly = {"1-3", "2-0", "2-4"}
    with Cluster(num_workers=2) as cluster:
        markers = list(run_shards(cluster, make_worker(deadly, tmp_path / "log"), iter(shards)))
    assert sorted(marker.shard for marker in markers) == [0, 1, 2, 3]
    assert {m.shard: m.summary.quarantined.get("crashed", 0) for m in markers} == {0: 0, 1: 1, 2: 2, 3: 0}
    # Some are done twice: an answer may be lost with a process that died of the next shard. One commit stands.
    done = set((tmp_path / "log").read_text().split())
    assert done == {item for shard in shards for item in shard.items} - deadly


@pytest.mark.slow
def test_a_shard_that_kills_with_no_image_to_blame_ends_the_job(tmp_path: Path) -> None:
    shard = Shard(7, ("a", "b", "c", "d"))
    worker = make_worker({"a", "d"}, tmp_path / "log", deadly_together=True)
    with Cluster(num_workers=1) as cluster, pytest.raises(WorkError, match="shard 7 ends its worker again and again"):
        list(run_shards(cluster, worker, iter([shard])))
