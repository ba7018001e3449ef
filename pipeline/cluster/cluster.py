"""The cluster that a job runs on: how many workers it has room for."""

from contextlib import ExitStack

import ray

from pipeline.cluster.connection import ClusterError, connect
from pipeline.cluster.interrupts import termination_as_interrupt
from pipeline.cluster.scheduler import Room
from pipeline.console.printing import say
from pipeline.console.text import counted


class Cluster:
    """The cluster of RAY_ADDRESS, or Ray on this machine alone: `connect` joins or starts it, the end leaves it.

    A process that uses Ray already keeps it. Without a number of workers the job has all that fit in the cluster, and
    more when nodes join. `job` names the job in Ray's metrics.
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
        self.cpus_per_worker = cpus_per_worker
        self.gpus_per_worker = gpus_per_worker
        self._num_workers = num_workers
        self._room: Room | None = None
        self._is_own_machine = False
        self._exit = ExitStack()

    def __enter__(self) -> "Cluster":
        self._exit.enter_context(termination_as_interrupt())
        if not ray.is_initialized():
            self._exit.callback(ray.shutdown)
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def connect(self) -> Room:
        """Join the cluster, or start Ray, unless that is done; return what room there was at first.

        Raises:
            ClusterError: the cluster is missing, or has no room for the workers.
        """
        if self._room is None:
            was_running = ray.is_initialized()
            may_join = connect()
            self._is_own_machine = not (was_running or may_join)
            self._room = Room(self._first_num_workers(may_join), can_grow=may_join and self._num_workers is None)
        return self._room

    @property
    def waits_for(self) -> str:
        """What workers wait for that do not start."""
        if self._is_own_machine:
            return "this machine is busy, and the job goes on by itself"
        cpus = counted(self.cpus_per_worker, "free CPU")
        gpus = f" and {counted(self.gpus_per_worker, 'free GPU')}" if self.gpus_per_worker else ""
        return f"waiting for a node with {cpus}{gpus}, as `ray status` shows"

    def num_workers_now(self) -> int:
        """Return for how many workers there is room by now."""
        return self._count()[0]

    def _first_num_workers(self, may_join: bool) -> int:
        count, num_cpus, num_gpus = self._count()
        wanted = self._num_workers
        if wanted is not None and (may_join or wanted <= count):
            return wanted
        has = f"{num_cpus:g} CPUs and {num_gpus:g} GPUs"
        each = f"{self.cpus_per_worker} CPUs and {self.gpus_per_worker:g} GPUs"
        if count == 0:
            raise ClusterError(
                f"there are {has}, and no room for a worker of {each}: lower --cpus-per-worker or --gpus-per-worker"
                f"{', or set --num-workers to wait for nodes that join' if may_join else ''}"
            )
        if wanted is not None:
            say(f"{count} workers are started, not {wanted}: more would slow each other down on {has}")
        return count

    def _count(self) -> tuple[int, float, float]:
        """Return for how many workers there is room, and the CPUs and GPUs of the cluster."""
        resources: dict[str, float] = ray.cluster_resources()
        num_cpus, num_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        count = int(num_cpus // self.cpus_per_worker)
        if self.gpus_per_worker > 0:
            count = min(count, int(num_gpus / self.gpus_per_worker))
        return count, num_cpus, num_gpus
