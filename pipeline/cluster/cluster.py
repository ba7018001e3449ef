"""The cluster that a job runs on: how many workers it has room for."""

from functools import cached_property

import ray

from pipeline.cluster.connection import ClusterError, connect


class Cluster:
    """The cluster of RAY_ADDRESS, or Ray on this machine alone; started when it is needed, left at the end.

    Without a number of workers the job has all that fit in the cluster, and more when nodes join. `job` names the
    job in Ray's metrics.
    """

    def __init__(
        self,
        *,
        num_workers: int | None = None,
        cpus_per_worker: int = 1,
        gpus_per_worker: float = 0,
        job: str = "unnamed",
    ) -> None:
        self.job = job
        self._wanted_num_workers = num_workers
        self._can_grow = False
        self.cpus_per_worker = cpus_per_worker
        self.gpus_per_worker = gpus_per_worker

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()

    @cached_property
    def num_workers(self) -> int:
        """Connect and return the number of workers.

        Raises:
            ClusterError: the cluster is missing, or has no room for the workers.
        """
        self._can_grow = can_grow = self._connect()
        room, num_cpus, num_gpus = self._room()
        wanted = self._wanted_num_workers
        if wanted is not None and (can_grow or wanted <= room):
            return wanted
        if room < (wanted or 1):
            raise ClusterError(
                f"there are {num_cpus:g} CPUs and {num_gpus:g} GPUs, room for {room} workers of {self.cpus_per_worker} "
                f"CPUs and {self.gpus_per_worker:g} GPUs, expected room for {wanted or 1}: "
                f"lower {'--num-workers, ' if wanted else ''}--cpus-per-worker or --gpus-per-worker"
                f"{', or set --num-workers to wait for nodes that join' if can_grow else ''}"
            )
        return room

    @property
    def follows_room(self) -> bool:
        """Whether more workers are wanted when nodes join."""
        return self._can_grow and self._wanted_num_workers is None

    def num_workers_now(self) -> int:
        """Return for how many workers there is room by now."""
        return self._room()[0]

    def _room(self) -> tuple[int, float, float]:
        """Return for how many workers there is room, and the CPUs and GPUs of the cluster."""
        resources: dict[str, float] = ray.cluster_resources()
        num_cpus, num_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        room = int(num_cpus // self.cpus_per_worker)
        if self.gpus_per_worker > 0:
            room = min(room, int(num_gpus / self.gpus_per_worker))
        return room, num_cpus, num_gpus

    def _connect(self) -> bool:
        # A number of workers that was asked for is not cut down to the number of CPUs.
        return connect(num_cpus=self._wanted_num_workers and self._wanted_num_workers * self.cpus_per_worker)
