"""Fits on a Ray cluster: images read by tasks, one Ray Train run per model, models of a sweep one from another.

The only file of the train job that imports Ray. A sweep begins in the middle of its lambdas; from there each model
starts from its neighbour, upwards and downwards side by side where the cluster has room. The storage folder holds what
a run needs that goes on where another was killed:

    quality-4/          checkpoints of a model, written by Ray Train
    quality-4.json      the settings it was begun with
    fitted/quality-4/   the fitted model and its curve (pipeline/train/fitted.py)
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bls.bundle import FittedModel
from pipeline.console.exits import WorkError, describe_error
from pipeline.console.printing import say
from pipeline.console.text import reasons_text
from pipeline.storage.folder import Folder
from pipeline.train.fit import FitConfig
from pipeline.train.fitted import read_fitted

import ray  # isort: skip
import ray.data  # isort: skip
import ray.train  # isort: skip
import ray.train.torch  # isort: skip
from pipeline.train.images import Images
from pipeline.train.resources import Milestones, Resources
from pipeline.train.worker import FitJob, train_in_worker

MIDDLE_LMBDA = 0.013
"""A sweep from the KLT begins at the lambda nearest to this one, the middle of the field's ladder; one from a fitted
model at the nearest to that model's."""
SECONDS_BETWEEN_LOOKS = 1.0


def fit_models(
    configs: Sequence[FitConfig],
    images: Images,
    storage: Folder,
    *,
    start: FittedModel | None,
    resources: Resources,
    milestones: Milestones,
    description: Mapping[str, Any],
) -> Iterator[FittedModel]:
    """Fit every model that the storage folder does not hold yet; yield each when it is there.

    Raises:
        WorkError: a fit diverged, or its workers were lost too often.
    """
    by_quality = {config.quality: config for config in configs}
    fitted = {quality: model for quality in by_quality if (model := read_fitted(storage, quality)) is not None}
    yield from fitted.values()
    board: Any = ray.remote(num_cpus=0)(_Board).remote()
    middle = MIDDLE_LMBDA if start is None else start.lmbda
    parents = neighbours({config.quality: config.training.lmbda for config in configs}, middle=middle)
    run: Any = ray.remote(num_cpus=0, max_retries=0)(_run)
    running: dict[Any, int] = {}
    while len(fitted) < len(configs):
        for quality, parent in parents.items():
            if quality in fitted or quality in running.values() or (parent is not None and parent not in fitted):
                continue
            origin = start if parent is None else fitted[parent]
            job = FitJob(by_quality[quality], images, origin, resources, milestones, storage, description, board)
            running[run.remote(job)] = quality
        done, _ = ray.wait(list(running), timeout=SECONDS_BETWEEN_LOOKS)
        for line in ray.get(board.take.remote()):
            say(line)
        for reference in done:
            quality = running.pop(reference)
            try:
                reason = ray.get(reference)
            except ray.exceptions.RayError as error:
                raise WorkError(f"quality {quality} cannot be fitted: {describe_error(error)}") from error
            model = read_fitted(storage, quality)
            if model is None:
                raise WorkError(f"quality {quality}: {reason}")
            fitted[quality] = model
            yield model
    if dropped := ray.get(board.dropped.remote()):
        say(f"left out of the stream, each time that it came up: {reasons_text(dropped)}")


def neighbours(lmbdas: Mapping[int, float], *, middle: float) -> dict[int, int | None]:
    """Return which quality each one starts from: its neighbour towards the middle, None for the one nearest to it."""
    order = sorted(lmbdas, key=lambda quality: lmbdas[quality])
    first = min(order, key=lambda quality: abs(math.log(lmbdas[quality] / middle)))
    at = order.index(first)
    upwards = {order[i]: order[i - 1] for i in range(at + 1, len(order))}
    downwards = {order[i]: order[i + 1] for i in range(at - 1, -1, -1)}
    return {first: None, **upwards, **downwards}


def _run(job: FitJob) -> str | None:
    """Run the fit of one model; return what went wrong with the fit itself."""
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
            name=f"quality-{job.config.quality}",
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
