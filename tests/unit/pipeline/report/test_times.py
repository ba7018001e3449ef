import pytest

from pipeline.ledger.markers import Marker, Stint
from pipeline.ledger.summary import Summary
from pipeline.report.times import job_times


def marker(shard: int, *stints: Stint, num_pixels: int = 1_000_000) -> Marker:
    return Marker(shard, "a", {}, Summary(num_images=1, num_pixels=num_pixels), stints=stints)


def test_workers_are_busy_side_by_side() -> None:
    times = job_times(
        [
            marker(0, Stint("a:1", 1000, 1010)),
            marker(1, Stint("b:1", 1002, 1012), num_pixels=500_000),
            marker(2, Stint("a:1", 1010, 1020)),
        ]
    )
    assert (times.seconds, times.mean_workers) == (20, 1.5)
    assert [(worker.name, worker.seconds, worker.busy) for worker in times.workers] == [
        ("a:1", 20, [(0, 20)]),
        ("b:1", 10, [(2, 12)]),
    ]
    assert [worker.seconds_per_megapixel for worker in times.workers] == [10, 20]


def test_pauses_of_the_job_are_cut_out_and_those_of_a_worker_are_not() -> None:
    times = job_times(
        [
            marker(0, Stint("a:1", 0, 10)),
            marker(1, Stint("b:1", 0, 4)),
            marker(2, Stint("b:1", 8, 10)),
            marker(3, Stint("a:2", 90_000, 90_005)),
        ]
    )
    assert times.seconds == 15
    assert {worker.name: worker.busy for worker in times.workers} == {
        "a:1": [(0, 10)],
        "b:1": [(0, 4), (8, 10)],
        "a:2": [(10, 15)],
    }


def test_a_retry_adds_its_time_and_leaves_the_images_with_who_did_most() -> None:
    times = job_times([marker(0, Stint("a:1", 0, 10), Stint("b:1", 20, 21))])
    assert times.seconds == 11
    assert [(worker.name, worker.summary.num_images, worker.seconds) for worker in times.workers] == [
        ("a:1", 1, 10),
        ("b:1", 0, 1),
    ]


def test_many_shards_are_few_bars() -> None:
    times = job_times(marker(number, Stint("a:1", number, number + 0.999)) for number in range(10_000))
    (worker,) = times.workers
    assert len(worker.busy) == 1
    assert worker.seconds == pytest.approx(9_990)


def test_markers_of_older_releases_tell_nothing() -> None:
    times = job_times([marker(0)])
    assert (times.seconds, times.mean_workers, times.workers) == (0, 0, [])
