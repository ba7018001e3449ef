"""What a worker of a fit does: steps, checkpoints, and lines for the driver."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.data
import ray.train
import ray.train.torch
import torch

from bls.ladder import quality_text
from bls.network import FittedNetwork
from bls.training.parallel import BatchPart
from pipeline.console.text import duration_text
from pipeline.storage.folder import Folder
from pipeline.train.fit import Fit, FitConfig, Sample, mean_of
from pipeline.train.fitted import write_fitted
from pipeline.train.images import Images
from pipeline.train.patches import STEPS_PER_GROUP, PatchSet, read_group, with_noise
from pipeline.train.resources import Milestones, Resources

STATE = "state.pt"
SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class FitJob:
    """What a worker is given."""

    config: FitConfig
    images: Images
    start: FittedNetwork | None
    resources: Resources
    milestones: Milestones
    storage: Folder
    description: Mapping[str, Any]
    board: Any


def train_in_worker(loop_config: dict[str, FitJob]) -> str | None:
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
        write_fitted(job.storage, fit.fitted_network(description=job.description), fit.curve(), step=fit.step)
    return None


def _sample(job: FitJob) -> Sample:
    images = [image for chunk in ray.get(list(job.images.chunks)) for image in chunk]
    held_out = job.images.num_held_out
    return Sample(PatchSet(job.config.patches, images[held_out:]), images[:held_out])


def _batches(job: FitJob, sample: Sample, first_step: int, part: BatchPart) -> Iterator[torch.Tensor]:
    steps = job.config.training.steps
    if job.images.stream is None:
        yield from sample.patches.batches(first_step, steps, part)
    else:
        yield from _stream(job, first_step, steps, part)


def _stream(job: FitJob, first_step: int, steps: int, part: BatchPart) -> Iterator[torch.Tensor]:
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


class _Reporter:
    """Reports how a fit goes and keeps its checkpoints; only the first worker prints."""

    def __init__(self, job: FitJob, fit: Fit, *, is_first: bool) -> None:
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
            self._job.board.post.remote(f"quality {self._job.config.qualities}  {text}")

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
            f"{duration_text(remaining)} left"
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
            middle = quality_text(self._job.config.qualities.middle)
            measured = f"{bpp:.4f} bpp  PSNR {psnr_db:.2f} dB"
            self.post(f"step {fit.step}  {count} held-out images at quality {middle}: {measured}")
        with tempfile.TemporaryDirectory() as temporary:
            (Path(temporary) / STATE).write_bytes(fit.state_bytes())
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(temporary))
