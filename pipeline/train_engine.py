"""Fits on a Ray cluster: images read by tasks, one Ray Train run per model, models of a sweep one from another.

The only file of the train job that imports Ray. A sweep begins in the middle of its lambdas; from there each model
starts from its neighbour, upwards and downwards side by side where the cluster has room. The storage folder holds what
a run needs that goes on where another was killed:

    quality-4/          checkpoints of a model, written by Ray Train
    quality-4.json      the settings it was begun with
    fitted/quality-4/   the fitted model and its curve (pipeline/fitted_models.py)
"""

import json
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bls.bundle import FittedModel
from bls.parallel import BatchPart
from pipeline.engine import ClusterError, connect
from pipeline.fit import Fit, FitConfig, Sample, mean_of
from pipeline.fitted_models import read_fitted, write_fitted
from pipeline.patches import STEPS_PER_GROUP, PatchConfig, PatchSet, read_group, with_noise
from pipeline.report import reasons_text, say
from pipeline.sources import ImageReference, Source
from pipeline.storage import Folder
from pipeline.tasks import WorkError, describe_error

import ray  # isort: skip
import ray.data  # isort: skip
import ray.train  # isort: skip
import ray.train.torch  # isort: skip

IMAGES_PER_TASK = 64
TASKS_IN_FLIGHT = 64
MAX_HELD_OUT = 16
HELD_OUT_PART = 20
"""One image in so many is held out of training, up to the number above."""
MIDDLE_LMBDA = 0.013
"""A sweep from the KLT begins at the lambda nearest to this one, the middle of the field's ladder; one from a fitted
model at the nearest to that model's."""
STATE = "state.pt"
SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Resources:
    """What a fit runs on."""

    num_workers: int = 1
    max_workers: int | None = None
    """The fit grows up to so many workers while the cluster has room, and shrinks to `num_workers`."""
    cpus_per_worker: int = 1
    use_gpu: bool = False
    max_worker_failures: int = 3
    """Times that lost workers are replaced, per model."""


@dataclass(frozen=True)
class Milestones:
    """After how many steps something happens."""

    checkpoint_steps: int = 250
    evaluation_steps: int = 1000


@dataclass(frozen=True)
class Images:
    """The training images on the cluster: some decoded in the object store, all of them by reference."""

    source: Source
    chunks: Sequence[Any]
    """References to lists of decoded images."""
    num_held_out: int
    num_decoded: int
    dropped: Counter[str]
    stream: Sequence[ImageReference] | None
    """What batches are read from while training; None where the decoded images are all there are."""


@contextmanager
def cluster(resources: Resources) -> Iterator[None]:
    """Join the cluster of RAY_ADDRESS, or start Ray on this machine with room for one fit at least, and for reading.

    Raises:
        ClusterError: there is no cluster, or no room for the workers.
    """
    needed = (resources.max_workers or resources.num_workers) * resources.cpus_per_worker
    try:
        can_grow = connect(num_cpus=max(needed, os.cpu_count() or 1) + 1)
        num_gpus = ray.cluster_resources().get("GPU", 0)
        if resources.use_gpu and num_gpus < resources.num_workers and not can_grow:
            raise ClusterError(
                f"there are {num_gpus:g} GPUs for {resources.num_workers} workers: leave out --use-gpu, or lower "
                "--num-workers"
            )
        yield
    finally:
        ray.shutdown()


def read_images(source: Source, config: PatchConfig, *, max_cached_gib: float) -> Images:
    """Read a source in random order until so much is decoded; what is left is streamed.

    Raises:
        ValueError: no image is fit to be trained on.
    """
    references = shuffled(list(source.references()), config.seed)
    parts = [references[i : i + IMAGES_PER_TASK] for i in range(0, len(references), IMAGES_PER_TASK)]
    read: Any = ray.remote(_read_part).options(num_returns=2)
    pending = [read.remote(source, part, config) for part in parts[:TASKS_IN_FLIGHT]]
    chunks: list[Any] = []
    dropped: Counter[str] = Counter()
    keys: list[str] = []
    num_bytes = 0
    while len(chunks) < len(parts) and num_bytes < max_cached_gib * 2**30:
        chunk, info = pending[len(chunks)]
        kept, left_out, size = ray.get(info)
        chunks.append(chunk)
        keys += kept
        dropped += left_out
        num_bytes += size
        pending += [read.remote(source, part, config) for part in parts[len(pending) : len(pending) + 1]]
    if not keys:
        raise ValueError(
            f"no image of {source} can be trained on ({dict(dropped) or 'none found'}): "
            f"expected images of at least {config.patch_size} pixels a side"
        )
    num_held_out = min(MAX_HELD_OUT, len(keys) // HELD_OUT_PART)
    held_out = set(keys[:num_held_out])
    stream = None if len(chunks) == len(parts) else [r for r in references if r.key not in held_out]
    return Images(source, chunks, num_held_out, len(keys), dropped, stream)


def shuffled(references: Sequence[ImageReference], seed: int) -> list[ImageReference]:
    """Return references in random order; rows of Parquet files in runs, as such a file is read by groups of rows."""
    in_rows = len(references) > 0 and references[0].start is not None and references[0].num_bytes is None
    run = IMAGES_PER_TASK if in_rows else 1
    order = torch.randperm(math.ceil(len(references) / run), generator=torch.Generator().manual_seed(seed))
    return [reference for place in order.tolist() for reference in references[run * place : run * (place + 1)]]


def _read_part(
    source: Source, references: Sequence[ImageReference], config: PatchConfig
) -> tuple[list[Any], tuple[list[str], Counter[str], int]]:
    patches = PatchSet.read(source, references, config)
    return patches.images, (patches.keys, patches.dropped, sum(image.nbytes for image in patches.images))


@dataclass(frozen=True)
class _Job:
    """What a worker is given."""

    config: FitConfig
    images: Images
    start: FittedModel | None
    resources: Resources
    milestones: Milestones
    storage: Folder
    description: Mapping[str, Any]
    board: Any


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
            job = _Job(by_quality[quality], images, origin, resources, milestones, storage, description, board)
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


def _run(job: _Job) -> str | None:
    """Run the fit of one model; return what went wrong with the fit itself."""
    resources = job.resources
    filesystem, path = job.storage.to_arrow()
    num_workers: Any = resources.num_workers
    if resources.max_workers:
        num_workers = (resources.num_workers, resources.max_workers)
    train: Any = _train  # Ray's annotations know no return value
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


def _train(loop_config: dict[str, _Job]) -> str | None:
    """Take all steps of a fit, in every worker; return why it cannot be fitted."""
    job = loop_config["job"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    torch.set_num_threads(job.resources.cpus_per_worker)
    # Squares of small gradients become denormal numbers, which x86 computes a hundred times slower. A setting of the
    # whole process: this one does nothing else.
    torch.set_flush_denormal(True)
    part = BatchPart.of_rank(rank, context.get_world_size(), job.config.batch_size)
    sample = _sample(job)
    fit = Fit(job.config, sample, part, start=job.start, device=str(ray.train.torch.get_device()))
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            fit.load_state_bytes((Path(folder) / STATE).read_bytes())
    reporter = _Reporter(job, fit, is_first=rank == 0)
    try:
        for x in _batches(job, sample, fit.step, part):
            reporter.add(fit.train_step(x))
            if fit.is_done or fit.step % job.milestones.checkpoint_steps == 0:
                reporter.checkpoint()
    except FloatingPointError as error:
        return str(error)
    if rank == 0:
        reporter.post("fitting tables and coder to whole images")
        write_fitted(job.storage, fit.fitted_model(description=job.description), fit.curve(), step=fit.step)
    return None


def _sample(job: _Job) -> Sample:
    images = [image for chunk in ray.get(list(job.images.chunks)) for image in chunk]
    held_out = job.images.num_held_out
    return Sample(PatchSet(job.config.patches, images[held_out:]), images[:held_out])


def _batches(job: _Job, sample: Sample, first_step: int, part: BatchPart) -> Iterator[torch.Tensor]:
    steps = job.config.training.steps
    if job.images.stream is None:
        yield from sample.patches.batches(first_step, steps, part)
    else:
        yield from _stream(job, first_step, steps, part)


def _stream(job: _Job, first_step: int, steps: int, part: BatchPart) -> Iterator[torch.Tensor]:
    """Read batches ahead of need, by a Ray Data stream of this worker's own: which images come depends on the step."""
    config, source = job.config.patches, job.images.source
    references: Any = ray.put(job.images.stream)
    first_group = first_step // STEPS_PER_GROUP
    num_groups = -(-steps // STEPS_PER_GROUP) - first_group

    def read(row: dict[str, Any]) -> dict[str, Any]:
        patches, dropped = read_group(source, ray.get(references), config, first_group + row["id"], part)
        return {"group": first_group + row["id"], "patches": patches, "dropped": json.dumps(dropped)}

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    dataset = ray.data.range(num_groups, override_num_blocks=num_groups).map(read)
    for row in dataset.iter_rows():
        job.board.drop.remote(Counter(json.loads(row["dropped"])))
        for index, patches in enumerate(row["patches"]):
            step = row["group"] * STEPS_PER_GROUP + index
            if first_step <= step < steps:
                yield with_noise(patches, step, part, config)


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


class _Reporter:
    """Tells how a fit goes and keeps its checkpoints; of all workers the first one does the talking."""

    def __init__(self, job: _Job, fit: Fit, *, is_first: bool) -> None:
        self._job = job
        self._fit = fit
        self._is_first = is_first
        self._window: list[Any] = []
        self._first_step = fit.step
        self._start = self._last_line = time.monotonic()
        if fit.step and not fit.is_done:
            self.post(f"going on from step {fit.step}")

    def post(self, text: str) -> None:
        if self._is_first:
            self._job.board.post.remote(f"quality {self._job.config.quality}  {text}")

    def add(self, metrics: Any) -> None:
        self._window.append(metrics)
        now = time.monotonic()
        if now - self._last_line < SECONDS_BETWEEN_LINES and not self._fit.is_done:
            return
        mean = mean_of(self._window)
        steps, step = self._job.config.training.steps, mean["step"]
        remaining = (now - self._start) / (step - self._first_step) * (steps - step)
        self.post(
            f"step {step}/{steps}  loss {mean['loss']:.4f}  estimated {mean['estimated_bpp']:.4f} bpp  "
            f"PSNR {mean['psnr_db']:.2f} dB  {(now - self._last_line) / len(self._window):.3f} s/step  "
            f"{_minutes_text(remaining)} left"
        )
        self._window, self._last_line = [], now

    def checkpoint(self) -> None:
        """Keep the state; now and then measure real bitstreams of the held-out images."""
        fit = self._fit
        if not self._is_first:
            ray.train.report({"step": fit.step})
            return
        is_due = fit.is_done or fit.step % self._job.milestones.evaluation_steps == 0
        metrics: dict[str, Any] = {"step": fit.step, **(fit.curve()[-1] if fit.curve() else {})}
        if is_due and self._job.images.num_held_out:
            bpp, psnr_db = fit.evaluate()
            metrics |= {"held_out_bpp": bpp, "held_out_psnr_db": psnr_db}
            count = self._job.images.num_held_out
            self.post(f"step {fit.step}  {count} held-out images: {bpp:.4f} bpp  PSNR {psnr_db:.2f} dB")
        with tempfile.TemporaryDirectory() as temporary:
            (Path(temporary) / STATE).write_bytes(fit.state_bytes())
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(temporary))


def _minutes_text(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
