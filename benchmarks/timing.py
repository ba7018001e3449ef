"""How long a call takes, and calls in processes of their own."""

import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import TypeVar

T = TypeVar("T")


def median_seconds(function: Callable[[], object], repeats: int, *, warm_up: int) -> float:
    """Return the median time of a call, after some that do not count."""
    times = []
    for _ in range(warm_up + repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times[warm_up:])


def in_a_process(function: Callable[..., T], *arguments: object) -> T:
    """Call a function in a process of its own, whose memory holds nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()


def images_per_second(output: Path) -> float:
    """Return a job's images per second between its first and its last commit, so that the start of Ray stands apart."""
    commits = sorted((output / "commits").iterdir(), key=lambda path: path.stat().st_mtime)
    sizes: list[int] = [json.loads(path.read_bytes())["summary"]["num_images"] for path in commits]
    return sum(sizes[1:]) / (commits[-1].stat().st_mtime - commits[0].stat().st_mtime)
