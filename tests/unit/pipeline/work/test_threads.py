import threading

from pipeline.work.threads import AHEAD_BYTES, AHEAD_PIXELS, IO_THREADS, WorkerThreads


def test_work_on_pixels_is_ahead_within_a_window_and_a_number_of_pixels() -> None:
    begun: list[int] = []
    threads = WorkerThreads(2)
    results = threads.map_pixels(begun.append, range(100), cost=lambda _: 1)
    assert next(results) is None
    assert len(begun) <= 2 * 2 + 2
    begun_of_large: list[int] = []
    next(WorkerThreads(2).map_pixels(begun_of_large.append, range(100), cost=lambda _: AHEAD_PIXELS))
    assert len(begun_of_large) <= 3


def test_as_many_requests_wait_for_storage_as_it_has_threads() -> None:
    together = threading.Barrier(IO_THREADS, timeout=20)
    threads = WorkerThreads(1)
    list(threads.map_storage(lambda _: together.wait(), range(IO_THREADS)))  # would break with fewer
    alone, most = threading.Semaphore(1), []

    def fetch(item: int) -> int:
        most.append(alone.acquire(blocking=False))
        alone.release()
        return item

    assert list(threads.map_storage(fetch, range(5), cost=lambda _: AHEAD_BYTES + 1)) == list(range(5))
    assert all(most)
