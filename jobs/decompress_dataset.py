"""Restore the images of a compressed dataset."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import tyro

from bls.bundle import load_bundle
from pipeline import events, report
from pipeline.decompressor import DecompressionConfig, ShardDecompressor, StoredImage
from pipeline.engine import Cluster
from pipeline.images import MAX_PIXELS
from pipeline.job import ExitCode, Result, Work, check_at_least, exit_code, run_to_end, usage
from pipeline.output import Manifest, Marker, Output, check_same, versions
from pipeline.schema import SCHEMA_VERSION
from pipeline.shards import Shard
from pipeline.storage import absolute

JOB = "decompress"


@dataclass(frozen=True)
class DecompressDataset:
    """Restore the images of a compressed dataset, on Ray.

    Images are written to OUTPUT/images with the paths that they had below the input, EXIF, ICC profile, alpha and
    grayscale as they were; where two images differ in their extension alone, both keep it: a.jpg.png, a.png.png. A run
    that was stopped goes on where it was when the same command is given again. Exit codes: 0 all done, 1 failed, 2
    wrong usage, 3 done with images that could not be restored.
    """

    input: str
    """Output folder of jobs/compress_dataset.py: a path or URI."""
    output: str
    """Folder to write to: a path or URI."""
    format: Literal["png", "jpeg", "webp"] = "png"
    """File format of the images: png and webp are lossless, jpeg has quality 95."""
    bundle: str | None = None
    """Folder of fitted models that compressed the dataset; without it the one that comes with the package."""
    num_workers: int | None = None
    """Number of workers; without it as many as the machine or cluster has room for."""
    cpus_per_worker: int = 1
    """CPUs of each worker, and threads that it uses."""
    gpus_per_worker: float = 0
    """GPUs of each worker; above 0 the transforms run on a GPU."""
    max_failures: int | None = None
    """Stop when more images than this cannot be restored; without it never."""
    retry_quarantined: bool = False
    """Try images again that an earlier run quarantined, for causes that have passed: a store that was down, a file
    that was mended, a worker short of memory. Settings stay as they were, and so do images that are restored."""
    max_pixels: int = MAX_PIXELS
    """Refuse bitstreams that claim more pixels than this."""
    overwrite: bool = False
    """Delete what an earlier run left in the output, and begin again."""
    log_json: bool = False
    """Write what happens as JSON to stderr, an object per line, and nothing else; see docs/operations.md."""

    def __post_init__(self) -> None:
        check_at_least(
            1, num_workers=self.num_workers, cpus_per_worker=self.cpus_per_worker, max_pixels=self.max_pixels
        )
        check_at_least(0, gpus_per_worker=self.gpus_per_worker, max_failures=self.max_failures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = tyro.cli(DecompressDataset, args=arguments)
    with events.for_machines(config.log_json):
        return exit_code(lambda: decompress_dataset(config))


def decompress_dataset(config: DecompressDataset) -> ExitCode:
    """Restore what is not restored yet, and print a summary."""
    cluster = Cluster(
        num_workers=config.num_workers,
        cpus_per_worker=config.cpus_per_worker,
        gpus_per_worker=config.gpus_per_worker,
        job=JOB,
    )
    with cluster:
        with usage():
            work = _prepare(config)
        result = run_to_end(work, cluster, max_failures=config.max_failures, retry_quarantined=config.retry_quarantined)
    _print_result(work.output, result)
    return result.exit_code


def _prepare(config: DecompressDataset) -> Work:
    source, output = Output(config.input), Output(config.output)
    compressed = source.manifest()
    if compressed is None or compressed.job != "compress":
        raise ValueError(f"input {source} is no compressed dataset: expected the --output of jobs/compress_dataset.py")
    if compressed.settings["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"{source} has schema {compressed.settings['schema_version']}, this release reads {SCHEMA_VERSION}: "
            "use the release that wrote it"
        )
    fingerprint = load_bundle(config.bundle).fingerprint.hex()
    if fingerprint != compressed.settings["bundle_fingerprint"]:
        raise ValueError(
            f"{source} was compressed with bundle {compressed.settings['bundle_fingerprint']}, this is bundle "
            f"{fingerprint}: pass the --bundle that compressed it"
        )
    if config.overwrite:
        output.clear(JOB)
    markers = source.markers()
    _tell_what_is_missing(compressed, markers)
    settings = {
        "input": str(source),
        "input_plan": compressed.plan,
        "bundle_fingerprint": fingerprint,
        "format": config.format,
        "max_pixels": config.max_pixels,
        **versions(),
    }
    check_same(output.begin(Manifest(job=JOB, settings=settings)), job=JOB, settings=settings, output=output)
    worker_config = DecompressionConfig(
        input=absolute(config.input),
        output=absolute(config.output),
        image_format=config.format,
        bundle=config.bundle and os.path.abspath(config.bundle),
        bundle_fingerprint=fingerprint,
        max_pixels=config.max_pixels,
        device="cuda" if config.gpus_per_worker > 0 else "cpu",
        num_threads=config.cpus_per_worker,
    )
    return Work(
        verb="restored",
        output=output,
        num_images=sum(_num_stored(marker) for marker in markers),
        shards=lambda done: _shards(markers, done),
        make_worker=partial(ShardDecompressor, worker_config),
        num_images_of={marker.shard: _num_stored(marker) for marker in markers},
    )


def _shards(markers: Sequence[Marker], done: set[int]) -> Iterator[Shard]:
    """Make a shard of each committed file of bitstreams."""
    for marker in markers:
        if marker.shard not in done and _num_stored(marker):
            rows = range(_num_stored(marker))
            yield Shard(marker.shard, tuple(StoredImage(marker.files["bitstreams"], row) for row in rows))


def _num_stored(marker: Marker) -> int:
    return marker.summary.num_images - marker.summary.num_quarantined


def _tell_what_is_missing(compressed: Manifest, markers: Sequence[Marker]) -> None:
    num_done = sum(marker.summary.num_images for marker in markers)
    num_quarantined = sum(marker.summary.num_quarantined for marker in markers)
    if num_done < compressed.num_images:
        report.say(f"only {num_done} of {compressed.num_images} images are compressed yet: run both jobs again for all")
    if num_quarantined:
        report.say(
            f"{num_quarantined} images were quarantined when they were to be compressed: there is nothing to restore"
        )


def _print_result(output: Output, result: Result) -> None:
    total = result.total
    report.print_table(
        [
            ("images", f"{total.num_images - total.num_quarantined} restored, {total.num_quarantined} quarantined"),
            *report.size_rows("bitstreams", "image files", total),
            ("this run", report.speed_text(result.added, result.seconds)),
            ("images in", f"{report.shown(output)}/images"),
            ("a row each in", report.metrics_glob(output)),
        ]
    )
    report.print_quarantined(total)


if __name__ == "__main__":
    sys.exit(main())
