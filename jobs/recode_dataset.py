"""Code the bitstreams of a compressed dataset by another entropy coder, without any loss."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal

from tyro.conf import OmitArgPrefixes

from jobs.options import (
    BundleOption,
    CompressedFolder,
    OutputFolder,
    RerunOptions,
    WorkerOptions,
    arguments_of,
    lasting_arguments,
    parse,
)
from pipeline.cluster.cluster import Cluster
from pipeline.cluster.run import Result, Work, run_to_end
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
from pipeline.console.text import counts_text, kept_row, rate_text, size_rows
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.plan import copy_plan
from pipeline.ledger.schema import SCHEMA_VERSION
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary
from pipeline.read.dataset import CompressedDataset
from pipeline.read.images import codec_of
from pipeline.recode.worker import JOB, CommittedImage, RecodingConfig, ShardRecoder
from pipeline.sources.opening import check_apart
from pipeline.storage.secrets import redact
from pipeline.storage.uris import absolute


@dataclass(frozen=True)
class RecodeDataset:
    """Copy a compressed dataset and code its bitstreams by another entropy coder, on Ray: lossless, no transform.

    Every bitstream is decoded to its symbols and these are coded again; what was coded is decoded and compared. What
    is stored beside the bitstreams, and the metrics, are copied. The copy is read like any compressed dataset. To go on
    with a run that was stopped, give the same command again. Exit codes: 0 all done, 1 failed, 2 wrong usage, 3 done
    with quarantined images, 4 done, but the job that writes the input is not finished yet.
    """

    input: CompressedFolder
    output: OutputFolder
    coder: Literal["mixed", "adaptive", "static"]
    """Entropy coder of the copy: mixed has the smallest bitstreams, adaptive is faster, static has tables alone."""
    bundle: BundleOption = None
    cluster: OmitArgPrefixes[WorkerOptions] = field(default_factory=WorkerOptions)
    rerun: OmitArgPrefixes[RerunOptions] = field(default_factory=RerunOptions)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = parse(RecodeDataset, arguments)
    with events.for_machines(config.rerun.log_json):
        return exit_code(lambda: recode_dataset(config))


def recode_dataset(config: RecodeDataset) -> ExitCode:
    """Recode what is committed in the input and not recoded yet, and print a summary."""
    with Cluster(job=JOB, **asdict(config.cluster)) as cluster:
        with usage():
            source = CompressedDataset(config.input)
            work = _prepare(config, source)
        result = run_to_end(
            work, cluster, max_failures=config.rerun.max_failures, retry_quarantined=config.rerun.retry_quarantined
        )
    _print_result(config, source, work.output, result)
    again = job_command("recode_dataset", *arguments_of(config, leave_out=["overwrite"]))
    print_damage(result.damage, dataset=source.output, bundle=config.bundle, again=again)
    return result.exit_code


def _prepare(config: RecodeDataset, source: CompressedDataset) -> Work:
    check_apart(config.output, config.input)
    output, settings = Output(config.output), source.manifest.settings
    if config.coder == settings["coder"]:
        raise ValueError(f"{source.output} is coded with {config.coder} already: choose another --coder")
    output.check_free()
    codec = codec_of(source, config.bundle, coder=settings["coder"], max_pixels=settings["max_pixels"])
    if config.rerun.overwrite:
        output.clear(JOB)
    origin = {"recoded_from": str(source.output), "input_plan": source.manifest.id}
    copied = {**settings, **origin, "coder": config.coder, "schema_version": SCHEMA_VERSION}
    begun = Manifest(job=JOB, settings=copied, arguments=lasting_arguments(config))
    copy_plan(output, source.output, source.manifest, begun=begun)
    _check_kept(source, output)
    if state := source.state():
        say(f"{state}; then give this command again")
    worker_config = RecodingConfig(
        input=absolute(config.input),
        output=absolute(config.output),
        codec=codec,
        coder=config.coder,
        num_threads=config.cluster.cpus_per_worker,
    )
    return Work(
        verb="recoded",
        output=output,
        num_images=sum(marker.summary.num_images for marker in source.markers),
        shards=lambda done: _shards(source.markers, done),
        make_worker=partial(ShardRecoder, worker_config),
        is_part=source.num_left > 0,
    )


def _check_kept(source: CompressedDataset, output: Output) -> None:
    """Refuse to go on where shards were taken out of the input since they were recoded.

    Raises:
        ValueError: how many.
    """
    if gone := output.committed() - {marker.shard for marker in source.markers}:
        raise ValueError(
            f"{len(gone)} shards in {output} are not in {source.output} any more, as after bls-verify --repair: "
            "give the command that wrote the input first"
        )


def _shards(markers: Sequence[Marker], done: set[int]) -> Iterator[Shard]:
    """Make a shard of each committed one."""
    for marker in markers:
        if marker.shard not in done:
            rows = range(marker.summary.num_images)
            yield Shard(marker.shard, tuple(CommittedImage(marker, row) for row in rows))


def _print_result(config: RecodeDataset, source: CompressedDataset, output: Output, result: Result) -> None:
    total, done = result.total, output.committed()
    markers = [marker for marker in source.markers if marker.shard in done]
    before = sum((marker.summary for marker in markers), Summary())
    sizes = Summary(num_bytes_in=before.num_bytes_bitstreams, num_bytes_out=total.num_bytes_bitstreams)
    print_table(
        [
            ("images", counts_text("recoded", total, num_left=result.num_left)),
            *size_rows(f"bitstreams, {source.manifest.settings['coder']}", f"bitstreams, {config.coder}", sizes),
            *kept_row(total),
            ("bpp", rate_text(total)),
            ("this run", result.speed),
            ("metrics", metrics_glob(output)),
        ]
    )
    print_quarantined(total)
    if num_more := total.num_quarantined - before.num_quarantined:
        say(
            f"{num_more} images are good in the metrics of {source.output} and not in the copy: "
            "--retry-quarantined tries them again"
        )
    bundle = [] if config.bundle is None else ["--bundle", redact(config.bundle)]
    verify = job_command("verify_dataset", "--input", shown(output), *bundle)
    print_commands([("Verify the copy, before the input is deleted:", verify)])


if __name__ == "__main__":
    sys.exit(main())
