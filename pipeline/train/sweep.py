"""Fits on a Ray cluster: images read by tasks, one Ray Train run per network, those of a sweep one from another.

A sweep begins in the middle of its qualities; from there each network
starts from its neighbour, upwards and downwards side by side where the cluster has room. The storage folder holds what
a run needs that goes on where another was killed:

    quality-1-4.5/          checkpoints of a network, written by Ray Train
    quality-1-4.5.json      the settings it was begun with
    fitted/quality-1-4.5/   the fitted network and its curve (pipeline/train/fitted.py)
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
import ray.train
import ray.train.torch

from bls.ladder import QualityRange
from bls.network import FittedNetwork
from pipeline.console.exits import WorkError, describe_error
from pipeline.console.printing import say
from pipeline.console.text import reasons_text
from pipeline.storage.folder import Folder
from pipeline.train.fit import FitConfig
from pipeline.train.fitted import read_fitted
from pipeline.train.images import Images
from pipeline.train.resources import Milestones, Resources
from pipeline.train.worker import FitJob, train_in_worker

MIDDLE_QUALITY = 4.0
"""A sweep from the KLT begins at the range nearest to this quality; one from a fitted network nearest to its range."""
SECONDS_BETWEEN_LOOKS = 1.0


def fit_networks(
    configs: Sequence[FitConfig],
    images: Images,
    storage: Folder,
    *,
    start: FittedNetwork | None,
    resources: Resources,
    milestones: Milestones,
    description: Mapping[str, Any],
) -> Iterator[FittedNetwork]:
    """Fit every network that the storage folder does not hold yet; yield each when it is there.

    Raises:
        WorkError: a fit diverged, or its workers were lost too often.
    """
    by_range = {config.qualities: config for config in configs}
    fitted = {each: network for each in by_range if (network := read_fitted(storage, each)) is not None}
    yield from fitted.values()
    board: Any = ray.remote(num_cpus=0)(_Board).remote()
    parents = neighbours(list(by_range), middle=MIDDLE_QUALITY if start is None else start.qualities.middle)
    run: Any = ray.remote(num_cpus=0, max_retries=0)(_run)
    running: dict[Any, QualityRange] = {}
    while len(fitted) < len(configs):
        for qualities, parent in parents.items():
            if qualities in fitted or qualities in running.values() or (parent is not None and parent not in fitted):
                continue
            origin = start if parent is None else fitted[parent]
            job = FitJob(by_range[qualities], images, origin, resources, milestones, storage, description, board)
            running[run.remote(job)] = qualities
        done, _ = ray.wait(list(running), timeout=SECONDS_BETWEEN_LOOKS)
        for line in ray.get(board.take.remote()):
            say(line)
        for reference in done:
            qualities = running.pop(reference)
            try:
                reason = ray.get(reference)
            except ray.exceptions.RayError as error:
                raise WorkError(f"quality {qualities} cannot be fitted: {describe_error(error)}") from error
            network = read_fitted(storage, qualities)
            if network is None:
                raise WorkError(f"quality {qualities}: {reason}")
            fitted[qualities] = network
            yield network
    if dropped := ray.get(board.dropped.remote()):
        say(f"left out of the stream, each time that it came up: {reasons_text(dropped)}")


def neighbours(ranges: Sequence[QualityRange], *, middle: float) -> dict[QualityRange, QualityRange | None]:
    """Return which range each one starts from: its neighbour towards the middle, None for the one nearest to it."""
    order = sorted(ranges)
    first = min(order, key=lambda qualities: abs(qualities.middle - middle))
    at = order.index(first)
    upwards = {order[i]: order[i - 1] for i in range(at + 1, len(order))}
    downwards = {order[i]: order[i + 1] for i in range(at - 1, -1, -1)}
    return {first: None, **upwards, **downwards}


def _run(job: FitJob) -> str | None:
    """Run the fit of one network; return what went wrong with the fit itself."""
    resources = job.resources
    filesystem, path = job.storage.to_arrow()
    num_workers: Any = resources.num_workers
    if resources.max_workers:
        num_workers = (resources.num_workers, resources.max_workers)
    train: Any = train_in_worker  # Ray's annotations know no return value
    trainer = ray.train.torch.TorchTrainer(
        train,
        train_loop_config={"job": job},
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=resources.use_gpu,
            resources_per_worker={"CPU": resources.cpus_per_worker, **({"GPU": 1} if resources.use_gpu else {})},
        ),
        run_config=ray.train.RunConfig(
            name=f"quality-{job.config.qualities.stem}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=resources.max_worker_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    result: Any = trainer.fit()
    reason: str | None = result.return_value
    return reason


class _Board:
    """Where workers leave lines for the driver to print, and what a stream left out."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._dropped: Counter[str] = Counter()

    def post(self, line: str) -> None:
        self._lines.append(line)

    def drop(self, dropped: Counter[str]) -> None:
        self._dropped += dropped

    def dropped(self) -> Counter[str]:
        return self._dropped

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines
