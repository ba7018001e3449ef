"""Compress a folder of images: bitstreams and one row of metrics per image, in Parquet."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import tyro

from bls.bundle import load_bundle
from pipeline import report
from pipeline.compressor import CompressionConfig, ShardCompressor
from pipeline.engine import Cluster
from pipeline.images import MAX_PIXELS
from pipeline.job import ExitCode, Result, Work, check_at_least, exit_code, run_to_end, usage
from pipeline.output import Output, versions
from pipeline.shards import freeze_plan, planned_shards
from pipeline.sources import Columns, open_source
from pipeline.storage import absolute

JOB = "compress"


@dataclass(frozen=True)
class CompressDataset:
    """Compress a folder of images into bitstreams and metrics, on Ray.

    Every image ends as a verified bitstream, or as a quarantined row that says why not. A run that was stopped goes on
    where it was when the same command is given again. Exit codes: 0 all done, 1 failed, 2 wrong usage, 3 done with
    quarantined images.
    """

    input: str
    """Where the images are, a path or any URI that fsspec reads: a folder (searched with all folders in it), a pattern
    with stars, WebDataset tars (`{000..099}.tar`), Parquet files with a column of images, or a list of URIs in a .txt
    or Parquet file."""
    output: str
    """Folder to write to: a path or URI."""
    quality: int = 4
    """Index of lambda in the bundle: the field's ladder from 1 (smallest files) to 8 (best images)."""
    coder: Literal["mixed", "adaptive", "static"] | None = None
    """Entropy coder: mixed has the smallest bitstreams, adaptive is faster, static has tables alone; by default the
    first of these that the bundle has."""
    bundle: str | None = None
    """Folder of fitted models; without it the one that comes with the package."""
    num_workers: int | None = None
    """Number of workers; without it as many as the machine or cluster has room for."""
    cpus_per_worker: int = 1
    """CPUs of each worker, and threads that it uses."""
    gpus_per_worker: float = 0
    """GPUs of each worker; above 0 the transforms run on a GPU."""
    shard_size: int | None = None
    """Images that are committed together; without it 128, or fewer where workers would be idle."""
    max_failures: int | None = None
    """Stop when more images than this are quarantined; without it never."""
    max_pixels: int = MAX_PIXELS
    """Quarantine images with more pixels than this, before they are decoded."""
    image_column: str | None = None
    """Of Parquet input: the column of images or of their URIs; without it the one that can only be it."""
    key_column: str | None = None
    """Of Parquet input: the column of unique names; without it file name and row number."""
    overwrite: bool = False
    """Delete what an earlier run left in the output, and begin again."""

    def __post_init__(self) -> None:
        check_at_least(
            1,
            num_workers=self.num_workers,
            cpus_per_worker=self.cpus_per_worker,
            shard_size=self.shard_size,
            max_pixels=self.max_pixels,
        )
        check_at_least(0, gpus_per_worker=self.gpus_per_worker, max_failures=self.max_failures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = tyro.cli(CompressDataset, args=arguments)
    return exit_code(lambda: compress_dataset(config))


def compress_dataset(config: CompressDataset) -> ExitCode:
    """Compress what is not compressed yet, and print a summary."""
    cluster = Cluster(
        num_workers=config.num_workers,
        cpus_per_worker=config.cpus_per_worker,
        gpus_per_worker=config.gpus_per_worker,
    )
    with cluster:
        with usage():
            work = _prepare(config, cluster)
        result = run_to_end(work, cluster, max_failures=config.max_failures)
    _print_result(config, work.output, result)
    return result.exit_code


def _prepare(config: CompressDataset, cluster: Cluster) -> Work:
    bundle = load_bundle(config.bundle)
    if config.quality not in bundle.models:
        raise ValueError(f"--quality is {config.quality}, the bundle has {sorted(bundle.models)}: choose one of these")
    model = bundle.models[config.quality]
    coder = config.coder or model.coders[0]
    if coder not in model.coders:
        raise ValueError(f"--coder is {coder}, the bundle has {', '.join(model.coders)}: choose one of these")
    columns = Columns(config.image_column, config.key_column)
    source = open_source(config.input, columns)
    output = Output(config.output)
    if config.overwrite:
        output.clear(JOB)
    manifest = freeze_plan(
        output,
        source,
        job=JOB,
        settings={
            "input": str(source),
            "image_column": config.image_column,
            "key_column": config.key_column,
            "bundle_fingerprint": bundle.fingerprint.hex(),
            "quality": config.quality,
            "coder": coder,
            "max_pixels": config.max_pixels,
            **versions(),
        },
        shard_size=config.shard_size,
        num_workers=lambda: cluster.num_workers,
    )
    if manifest.skipped:
        report.say(report.skipped_text(manifest.skipped))
    worker_config = CompressionConfig(
        input=absolute(config.input),
        output=absolute(config.output),
        quality=config.quality,
        coder=coder,
        bundle=config.bundle and os.path.abspath(config.bundle),
        bundle_fingerprint=bundle.fingerprint.hex(),
        max_pixels=config.max_pixels,
        columns=columns,
        carried=source.carried,
        device="cuda" if config.gpus_per_worker > 0 else "cpu",
        num_threads=config.cpus_per_worker,
    )
    return Work(
        verb="compressed",
        output=output,
        num_images=manifest.num_images,
        shards=lambda done: planned_shards(output, manifest, skip=done),
        make_worker=partial(ShardCompressor, worker_config),
    )


def _print_result(config: CompressDataset, output: Output, result: Result) -> None:
    total = result.total
    report.print_table(
        [
            ("images", f"{total.num_images - total.num_quarantined} compressed, {total.num_quarantined} quarantined"),
            *report.size_rows("source", "bitstreams", total),
            ("bpp", report.mean_text(total.bpp, ".3f")),
            ("PSNR", report.mean_text(total.psnr_db, ".2f", "dB")),
            ("MS-SSIM", report.mean_text(total.ms_ssim, ".4f")),
            ("this run", report.speed_text(result.added, result.seconds)),
            ("metrics", report.metrics_glob(output)),
        ]
    )
    report.print_quarantined(total)
    columns = "status, count(*) AS images, round(avg(bpp), 3) AS bpp, round(avg(psnr_db), 2) AS psnr_db"
    path = report.metrics_glob(output).replace("'", "''")
    query = f"SELECT {columns} FROM '{path}' GROUP BY status ORDER BY status"
    restore = ["--input", report.shown(output), "--output", f"{report.shown(output)}-restored"]
    if config.bundle is not None:
        restore += ["--bundle", config.bundle]
    report.print_commands(
        [
            ("Query the metrics, for example:", report.query_command(query)),
            ("Get the images back:", report.job_command("decompress_dataset", *restore)),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
