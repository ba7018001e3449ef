"""How a job connects to Ray: to a cluster that runs, or to one of its own."""

import logging
import os
import signal
from typing import Any

import ray

from pipeline.cluster.interrupts import handler_kept
from pipeline.console.exits import UsageError, WorkError, describe_error
from pipeline.console.printing import say
from pipeline.reachable import check_cluster


class ClusterError(UsageError):
    """There is no cluster, or it has no room for the workers that were asked for."""


def cluster_address() -> str | None:
    """Return where RAY_ADDRESS says that a cluster is; None where Ray is to start on this machine."""
    address = os.environ.get("RAY_ADDRESS", "local")
    return None if address in ("", "local") else address


def connect(*, num_cpus: int | None = None) -> bool:
    """Join the cluster of RAY_ADDRESS, else start Ray here, unless it runs; return whether nodes may join later.

    `num_cpus` is what Ray takes for the CPUs of this machine, where it is started; without it those that there are.

    Raises:
        ClusterError: there is no cluster at RAY_ADDRESS.
        WorkError: Ray does not start here.
    """
    with handler_kept(signal.SIGTERM):  # Ray's own would print a stack and exit with 15
        return _connect(num_cpus)


def _connect(num_cpus: int | None) -> bool:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = cluster_address()
    if ray.is_initialized():
        return address is not None or len(ray.nodes()) > 1
    if address is not None:
        say(f"joining the Ray cluster at {address}")
        try:
            check_cluster(address)
            ray.init(**quiet)
        except ConnectionError as error:
            raise ClusterError(str(error)) from error
    else:
        try:
            say("starting Ray on this machine")
            ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **quiet)
        except Exception as error:  # Ray raises no class of its own
            raise WorkError(
                f"Ray cannot start on this machine ({describe_error(error)}): if it is very busy, try again later"
            ) from error
    return address is not None
