"""Compress a dataset of images: bitstreams and one row of metrics per image, in Parquet."""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Literal

from tyro.conf import OmitArgPrefixes

from bls.refinement.descent import check_effort
from bls.transforms.precision import Precision
from jobs.budget import curve_of, measured_curve, new_curve, run_within_budget, steering_of
from jobs.goal import GoalOptions
from jobs.options import (
    BundleOption,
    ClusterOptions,
    InputOptions,
    OutputFolder,
    RerunOptions,
    arguments_of,
    check_at_least,
    lasting_arguments,
    parse,
    share_of,
)
from pipeline.cluster.cluster import Cluster
from pipeline.cluster.run import Result, Work, run_to_end
from pipeline.compress.append import plan_new, tell
from pipeline.compress.budget import MIN_SHARDS, Steering
from pipeline.compress.forecast import draw_sample, measure
from pipeline.compress.settings import settings_of
from pipeline.compress.worker import CompressionConfig, ShardCompressor
from pipeline.console import events
from pipeline.console.exits import ExitCode, exit_code, usage
from pipeline.console.printing import (
    job_command,
    metrics_glob,
    print_commands,
    print_damage,
    print_quarantined,
    print_table,
    say,
    shown,
)
from pipeline.console.text import (
    bitstreams_row,
    counts_text,
    grown_row,
    kept_row,
    mean_text,
    num_bytes_text,
    rate_text,
    size_rows,
    skipped_text,
)
from pipeline.ledger.append import NewInputs
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.output import Output, check_same
from pipeline.ledger.plan import SHARDS_PER_WORKER, default_size, freeze_plan, planned_shards
from pipeline.ledger.summary import Summary
from pipeline.sources.opening import check_apart, no_images
from pipeline.sources.reference import ImageReference, Source
from pipeline.storage.secrets import redact
from pipeline.storage.uris import absolute
from pipeline.work.bundles import load_bundle
from pipeline.work.codec import CodecSpec

JOB = "compress"
_CURVE_PIXELS = 2**22  # of a sample that is measured at all qualities, for --dry-run
_NO_MS_SSIM = "none: not asked for, or no image has 161 pixels a side"


@dataclass(frozen=True)
class CompressDataset:
    """Compress a dataset of images into bitstreams and metrics, on Ray.

    Every image ends as a verified bitstream, or with --keep-smaller as the original file, or as a quarantined row that
    says why not. To go on with a run that was stopped, give the same command again. Exit codes: 0 all done, 1 failed, 2
    wrong usage, 3 done with quarantined images.
    """

    images: OmitArgPrefixes[InputOptions]
    output: OutputFolder
    goal: OmitArgPrefixes[GoalOptions] = field(default_factory=GoalOptions)
    coder: Literal["mixed", "adaptive", "static"] = "mixed"
    """Entropy coder: mixed has the smallest bitstreams, adaptive is faster, static has tables alone."""
    effort: int = 0
    """From 0 (fastest) to 3: time that the encoder spends on fewer bits at the same quality, for the same decoder;
    docs/effort.md has what each costs, --dry-run estimates it for these images."""
    bundle: BundleOption = None
    shard_size: int | None = None
    """Images that are committed together. Default: 128, or fewer if workers would be idle."""
    min_psnr_db: float | None = None
    """Quarantine images that come out with a lower PSNR than this, in dB: line art, screenshots. Default: none."""
    raise_quality: bool = False
    """Code images that fall short of --min-psnr-db again, at the lowest quality that reaches it; only those that no
    quality brings there are quarantined."""
    keep_smaller: bool = False
    """Keep an original as it is, byte for byte, where its bitstream and what is stored beside it would be larger."""
    ms_ssim: str = "all"
    """Images whose MS-SSIM is measured: `all`, `none`, or a sample such as `10%`. Images with fewer than 161
    pixels a side never have one: its coarsest window does not fit into them."""
    precision: Precision = "auto"
    """Arithmetic inside the transforms; auto is bfloat16 where the hardware has it and the quality loses nothing by it
    (1 to 4 of the shipped bundle), else float32."""
    append: bool = False
    """Add what is new in the input since the last run: images with keys that the output does not know. The settings
    must be those of then; images that changed or vanished are left alone. Begins the output where there is none."""
    dry_run: bool = False
    """Write nothing; compress a sample and estimate what the whole would take."""
    cluster: OmitArgPrefixes[ClusterOptions] = field(default_factory=ClusterOptions)
    rerun: OmitArgPrefixes[RerunOptions] = field(default_factory=RerunOptions)

    def __post_init__(self) -> None:
        check_at_least(1, shard_size=self.shard_size)
        check_effort(self.effort)
        if self.raise_quality and (self.min_psnr_db is None or self.goal.common_quality is None):
            raise ValueError("--raise-quality needs --min-psnr-db, and one quality for all images instead of a target")
        if self.append and self.rerun.overwrite:
            raise ValueError("--append is given with --overwrite, which deletes what it would add to: leave out one")
        if self.append and self.goal.budget is not None:
            raise ValueError(
                "--append is given with --max-total-bytes, which is for all images together: use --quality"
            )
        _ = self.ms_ssim_share

    @property
    def ms_ssim_share(self) -> float:
        """The part of the images whose MS-SSIM is measured.

        Raises:
            ValueError: --ms-ssim is none of the three kinds.
        """
        if (share := share_of(self.ms_ssim)) is not None:
            return share
        if self.ms_ssim not in ("all", "none"):
            raise ValueError(f"--ms-ssim is {self.ms_ssim}, expected all, none, or a share such as 10%")
        return float(self.ms_ssim == "all")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = parse(CompressDataset, arguments)
    with events.for_machines(config.rerun.log_json):
        return exit_code(lambda: compress_dataset(config))


def compress_dataset(config: CompressDataset) -> ExitCode:
    """Compress what is not compressed yet, or estimate what that would take, and print a summary."""
    if config.dry_run:
        with _cluster(config) as cluster, usage():
            return _dry_run(config, cluster)
    output, result = compress(config)
    if result.total.num_images:
        _print_result(config, output, result)
    print_damage(result.damage, dataset=output, bundle=config.bundle)
    return result.exit_code


def compress(config: CompressDataset) -> tuple[Output, Result]:
    """Compress what is not compressed yet.

    Raises:
        UsageError: the job cannot begin as it was asked to.
        WorkError: it cannot go on.
    """
    with _cluster(config) as cluster:
        with usage():
            work, steering = _prepare(config, cluster)
        run = partial(
            run_to_end,
            cluster=cluster,
            max_failures=config.rerun.max_failures,
            retry_quarantined=config.rerun.retry_quarantined,
        )
        result = run(work) if steering is None else run_within_budget(work, steering, run)
    return work.output, result


def _cluster(config: CompressDataset) -> Cluster:
    return Cluster(job=JOB, **asdict(config.cluster))


def _worker_config(config: CompressDataset) -> CompressionConfig:
    """Return what a worker needs, with the fingerprint of the network."""
    codec = CodecSpec.of(
        config.bundle,
        None if config.raise_quality else config.goal.common_quality,
        coder=config.coder,
        effort=config.effort,
        device=config.cluster.device,
        max_pixels=config.images.max_pixels,
        precision=config.precision,
    )
    return CompressionConfig(
        input=absolute(config.images.input),
        output=absolute(config.output),
        codec=codec,
        target=config.goal.target,
        max_total_bytes=config.goal.budget,
        min_psnr_db=config.min_psnr_db,
        raised_from=config.goal.common_quality if config.raise_quality else None,
        keep_smaller=config.keep_smaller,
        ms_ssim_share=config.ms_ssim_share,
        columns=config.images.columns,
        num_threads=config.cluster.cpus_per_worker,
        patience=config.images.patience,
    )


def _prepare(config: CompressDataset, cluster: Cluster) -> tuple[Work, Steering | None]:
    source = config.images.open()
    check_apart(config.output, config.images.input)
    worker_config = _worker_config(config)
    output = Output(config.output)
    output.check_free()
    if config.rerun.overwrite:
        output.clear(JOB)
    budget, least_num_workers = config.goal.budget, 1
    settings = settings_of(source, worker_config, curve=curve_of(output))
    if budget is not None:
        settings["curve"] = settings["curve"] or new_curve(source, worker_config, budget).to_json()
        least_num_workers = MIN_SHARDS // SHARDS_PER_WORKER
    manifest = (plan_new if config.append else freeze_plan)(
        output,
        source,
        begun=Manifest(job=JOB, settings=settings, arguments=lasting_arguments(config)),
        shard_size=config.shard_size,
        num_workers=lambda: max(cluster.connect().num_workers, least_num_workers),
    )
    if skipped := manifest.plans[-1].skipped:
        say(skipped_text(skipped))
    work = Work(
        verb="compressed",
        output=output,
        num_images=manifest.num_images,
        shards=lambda done: planned_shards(output, manifest, skip=done),
        make_worker=partial(ShardCompressor, replace(worker_config, carried=source.carried)),
        is_append=config.append,
    )
    return work, None if budget is None else steering_of(budget, output, manifest, bundle=config.bundle)


def _dry_run(config: CompressDataset, cluster: Cluster) -> ExitCode:
    source = config.images.open()
    check_apart(config.output, config.images.input)
    worker_config = _worker_config(config)
    output = Output(config.output)
    stored = None if config.rerun.overwrite else output.manifest()
    if stored is not None:
        settings = settings_of(source, worker_config, curve=curve_of(output))
        check_same(stored, Manifest(job=JOB, settings=settings), output=output)
    num_images, num_done, sample = _drawn(config, output, source, stored)
    if not sample:
        return ExitCode.DONE
    worker_config = replace(worker_config, carried=source.carried)
    curve = measured_curve(worker_config, sample, max_pixels=_CURVE_PIXELS)
    size = stored.plans[0].shard_size if stored and not config.append else config.shard_size
    size = size or default_size(num_images, cluster.connect().num_workers)
    quality = None
    if config.goal.budget is not None:
        quality = curve.highest_quality(config.goal.budget / num_images, load_bundle(config.bundle).qualities)
    rows = [
        ("images", f"{num_images}, {num_done} of them compressed already"),
        ("shards", f"{math.ceil(num_images / size)} of {size} images"),
        *measure(ShardCompressor(worker_config), sample, quality=quality).report(
            num_images=num_images, num_left=num_images - num_done, num_workers=cluster.connect().num_workers
        ),
        *curve.table(num_images),
    ]
    print_table(rows)
    if source.skipped:
        say(skipped_text(source.skipped))
    command = job_command("compress_dataset", *arguments_of(config, leave_out=["dry_run"]))
    print_commands([("Nothing was written. To compress:", command)])
    return ExitCode.DONE


def _drawn(
    config: CompressDataset, output: Output, source: Source, stored: Manifest | None
) -> tuple[int, int, list[ImageReference]]:
    """Draw a sample of what the job would do; return how many images that is, how many of them are done, the sample."""
    if config.append and stored is not None:
        new = NewInputs(output, stored, source)
        num_images, sample = draw_sample(new.references())
        tell(new.compared(num_images), source)
        return num_images, 0, sample
    num_images, sample = draw_sample(source.references())
    if not sample:
        raise no_images(source)
    return num_images, sum(marker.summary.num_images for marker in output.iter_markers()) if stored else 0, sample


def _goal_rows(goal: GoalOptions, total: Summary) -> list[tuple[str, str]]:
    """Tell how the images meet their target or their budget, if they have one."""
    if goal.budget is not None:
        used = f"{num_bytes_text(total.num_bytes_out)}, {100 * total.num_bytes_out / goal.budget:.1f} % of it"
        return [("quality", mean_text(total.quality, ".2f")), (f"budget {num_bytes_text(goal.budget)}", used)]
    if goal.target is None:
        return []
    missed, num_good = total.num_targets_missed, total.num_images - total.num_quarantined
    told = f"{num_good - missed} images meet it, {missed} do not at any quality"
    return [("quality", mean_text(total.quality, ".2f")), (str(goal.target), told)]


def _print_result(config: CompressDataset, output: Output, result: Result) -> None:
    total = result.total
    print_table(
        [
            ("images", counts_text("compressed", total, num_left=result.num_left)),
            *size_rows("source", "stored", total),
            *grown_row(total, keeps_smaller=config.keep_smaller),
            *kept_row(total),
            *bitstreams_row(total),
            ("bpp", rate_text(total)),
            ("PSNR", mean_text(total.psnr_db, ".2f", "dB")),
            ("MS-SSIM", mean_text(total.ms_ssim, ".4f") if total.ms_ssim.count else _NO_MS_SSIM),
            *_goal_rows(config.goal, total),
            ("this run", result.speed),
            ("metrics", metrics_glob(output)),
        ]
    )
    print_quarantined(total)
    bundle = [] if config.bundle is None else ["--bundle", redact(config.bundle)]
    report_arguments = ["--input", shown(output), "--output", "report.html", *bundle]
    restore = ["--input", shown(output), "--output", f"{shown(output)}-restored", *bundle]
    print_commands(
        [
            ("See it, pictures first:", job_command("report", *report_arguments)),
            (
                "Query the metrics, for example:",
                job_command("query_metrics", "--input", shown(output), "--worst", "10"),
            ),
            ("Get the images back:", job_command("decompress_dataset", *restore)),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
