"""The threads of a worker, and how far they work ahead of need."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipeline.ahead import ahead

# Pixels of images that wait for the next stage, per stage and thread: two photographs, 200 MB with their symbols.
AHEAD_PIXELS = 2**25
# Requests to storage that a worker has under way at once, as storage is far away; and the bytes of their image files.
IO_THREADS = 16
AHEAD_BYTES = 2**26


class WorkerThreads:
    """Threads that work on pixels, as many as the worker has CPUs, and threads that wait for storage.

    `map_pixels` and `map_storage` are `ahead` in them: their costs are pixels and bytes.
    """

    def __init__(self, num_threads: int) -> None:
        self.map_pixels = partial(
            ahead,
            ThreadPoolExecutor(num_threads),
            window=2 * num_threads + 1,
            max_cost=AHEAD_PIXELS * num_threads,
        )
        self.map_storage = partial(ahead, ThreadPoolExecutor(IO_THREADS), window=IO_THREADS, max_cost=AHEAD_BYTES)
