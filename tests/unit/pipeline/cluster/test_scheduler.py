"""Thousands of schedules of completions, deaths, lost nodes, joins and Ctrl-C, each from a seed; no Ray, no waiting.

A failure names its seed: `check(SEED)` runs that schedule again.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from pipeline.cluster.scheduler import MAX_FAILED_STARTS, DamagedShardsError, InterruptedWorkError, Scheduler
from pipeline.console.exits import WorkError
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard
from tests.simulated_cluster import Schedule, SimulatedCluster

NUM_BLOCKS, SEEDS_PER_BLOCK = 20, 200


class Watched:
    """Remembers what a scheduler says."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.failures: Counter[str] = Counter()
        self.num_ready = 0

    def notify(self, message: str) -> None:
        self.messages.append(message)

    def failed(self, kind: str) -> None:
        self.failures[kind] += 1

    def ready(self, num_workers: int) -> None:
        self.num_ready = num_workers


def with_pauses(shards: Sequence[Shard], cluster: SimulatedCluster) -> Iterator[Shard | None]:
    """Give out a shard only if all but the last two before it are committed, None until then."""
    for number, shard in enumerate(shards):
        while any(each.index not in cluster.committed for each in shards[: max(number - 2, 0)]):
            yield None
        yield shard


def check(seed: int, *, pauses: bool = False) -> str:
    """Run a schedule to its end; return how it ended. Whatever happens, what must be true is true."""
    schedule = Schedule.of(seed)
    cluster, watched = SimulatedCluster(schedule), Watched()
    shards = with_pauses(schedule.shards, cluster) if pauses else iter(schedule.shards)
    scheduler = Scheduler(cluster, shards, room=cluster.room, notify=watched.notify, watcher=watched)
    markers: list[Marker] = []
    ended = "done"
    try:
        for marker in scheduler.markers(cluster.is_interrupted):
            markers.append(marker)
    except InterruptedWorkError:
        ended = "interrupted"
    except DamagedShardsError as error:
        ended = "damaged"
        assert sorted(map(str, error.damage)) == sorted(map(str, schedule.damaged)), "one of each, and once"
    except WorkError:
        assert cluster.num_incidents >= MAX_FAILED_STARTS
        ended = "given up"
    scheduler.stop()
    told = [marker.shard for marker in markers]
    assert len(told) == len(set(told)), "a shard is told twice"
    assert all(cluster.committed[marker.shard] is marker for marker in markers)
    accused = {item for marker in cluster.committed.values() for item in marker.summary.examples.values()}
    items = {item for number in cluster.committed for item in schedule.shards[number].items}
    assert schedule.deadly & items <= accused, "a killer is not found"
    assert len(accused - schedule.deadly) <= cluster.num_deaths // 2, "an innocent image is accused"
    if ended in ("done", "damaged"):
        if not (pauses and schedule.damaged):  # else shards wait for one that is never done
            assert set(told) == set(range(len(schedule.shards))) - schedule.damaged, "a shard is lost"
        assert (ended == "damaged") == bool(schedule.damaged)
    elif ended == "interrupted":
        assert schedule.interrupted_at < float("inf")
    assert watched.failures["error"] <= schedule.num_errors + len(schedule.damaged)
    return ended


@pytest.mark.parametrize("block", range(NUM_BLOCKS))
def test_whatever_happens_each_shard_is_committed_once_and_the_job_ends(block: int) -> None:
    endings: Counter[str] = Counter()
    for seed in range(block * SEEDS_PER_BLOCK, (block + 1) * SEEDS_PER_BLOCK):
        try:
            endings[check(seed)] += 1
        except (AssertionError, WorkError, LookupError) as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")
    assert endings["done"] > endings["damaged"] > endings["given up"] < endings["interrupted"]


def test_shards_that_depend_on_running_ones_wait_for_them() -> None:
    endings = Counter(check(seed, pauses=True) for seed in range(SEEDS_PER_BLOCK))
    assert endings["done"] > endings["interrupted"] > 0
