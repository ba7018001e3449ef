"""What a fit runs on, and when something happens in it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import ray

from pipeline.cluster.connection import ClusterError, connect
from pipeline.cluster.interrupts import termination_as_interrupt


@dataclass(frozen=True)
class Resources:
    """What a fit runs on."""

    num_workers: int = 1
    max_workers: int | None = None
    """The fit grows up to this number of workers while the cluster has room, and shrinks to `num_workers`."""
    cpus_per_worker: int = 1
    use_gpu: bool = False
    max_worker_failures: int = 3
    """How many lost workers may be replaced per model."""


@dataclass(frozen=True)
class Milestones:
    """After how many steps something happens."""

    checkpoint_steps: int = 250
    evaluation_steps: int = 1000


@contextmanager
def cluster(resources: Resources) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS, or start Ray on this machine with room for one fit at least, and for reading.

    Raises:
        ClusterError: there is no cluster, or no room for the workers.
    """
    needed = (resources.max_workers or resources.num_workers) * resources.cpus_per_worker
    with termination_as_interrupt(), ExitStack() as stack:
        stack.callback(ray.shutdown)
        can_grow = connect(num_cpus=max(needed, os.cpu_count() or 1) + 1)
        num_gpus = ray.cluster_resources().get("GPU", 0)
        if resources.use_gpu and num_gpus < resources.num_workers and not can_grow:
            raise ClusterError(
                f"there are {num_gpus:g} GPUs for {resources.num_workers} workers: leave out --use-gpu, or lower "
                "--num-workers"
            )
        yield
