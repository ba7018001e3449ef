"""How long a call takes."""

import time
from collections.abc import Callable
from statistics import median


def median_seconds(function: Callable[[], object], repeats: int, *, warm_up: int) -> float:
    """Return the median time of a call, after some that do not count."""
    times = []
    for _ in range(warm_up + repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times[warm_up:])
