"""Restore the images of a compressed dataset."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal

from tyro.conf import OmitArgPrefixes

from bls.bitstream import MAX_PIXELS
from jobs.options import (
    BundleOption,
    ClusterOptions,
    CompressedFolder,
    OutputFolder,
    RerunOptions,
    arguments_of,
    check_at_least,
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
    print_damage,
    print_quarantined,
    print_table,
    say,
    shown,
)
from pipeline.console.text import counts_text, size_rows
from pipeline.decompress.containers import Container, tar_name
from pipeline.decompress.worker import DecompressionConfig, ShardDecompressor, StoredImage
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.output import Output, check_same
from pipeline.ledger.schema import SCHEMA_VERSION
from pipeline.ledger.shard import Shard
from pipeline.read.dataset import CompressedDataset, StoredFile
from pipeline.read.images import codec_of
from pipeline.read.selection import Selection, read_keys
from pipeline.sources.opening import check_apart
from pipeline.storage.uris import absolute

JOB = "decompress"


@dataclass(frozen=True)
class DecompressDataset:
    """Restore the images of a compressed dataset, on Ray.

    Images get back their EXIF, ICC profile, alpha and grayscale. `files` are written to OUTPUT/images with the paths
    that they had below the input; two images that differ only in their extension both keep it: a.jpg.png, a.png.png.
    `webdataset` writes a tar per shard to OUTPUT/images, with the carried data as further members. `parquet` writes a
    table per shard to OUTPUT/images: key, image (a struct of bytes and path), width, height, and the carried columns.
    To go on with a run that was stopped, give the same command again. Exit codes: 0 all done, 1 failed, or
    files of the input are missing or damaged (all others are restored), 2 wrong usage, 3 done, but some images could
    not be restored, 4 done, but the compress job is not finished yet.
    """

    input: CompressedFolder
    output: OutputFolder
    format: Literal["png", "jpeg", "webp"] = "png"
    """File format of the images: png and webp are lossless, jpeg has quality 95."""
    container: Container = "files"
    """Where the images go: files of their own, WebDataset tars, or Parquet tables. The last two also restore labels and
    whatever else the input carried beside its images."""
    keys: str | None = None
    """Restore only the images whose keys are in this text file, a path or URI: one key per line."""
    key: tuple[str, ...] = ()
    """Restore only the images of these keys; adds to --keys."""
    where: str | None = None
    """Restore only images whose metrics meet an SQL condition, as "psnr_db < 30 AND source_format = 'JPEG'"."""
    bundle: BundleOption = None
    max_pixels: int = MAX_PIXELS
    """Refuse bitstreams that claim more pixels than this."""
    cluster: OmitArgPrefixes[ClusterOptions] = field(default_factory=ClusterOptions)
    rerun: OmitArgPrefixes[RerunOptions] = field(default_factory=RerunOptions)

    def __post_init__(self) -> None:
        check_at_least(1, max_pixels=self.max_pixels)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = parse(DecompressDataset, arguments)
    with events.for_machines(config.rerun.log_json):
        return exit_code(lambda: decompress_dataset(config))


def decompress_dataset(config: DecompressDataset) -> ExitCode:
    """Restore what is not restored yet, and print a summary."""
    output, result = decompress(config)
    _print_result(output, result, config.container)
    again = job_command("decompress_dataset", *arguments_of(config, leave_out=["overwrite"]))
    print_damage(result.damage, dataset=Output(config.input), bundle=config.bundle, again=again)
    return result.exit_code


def decompress(config: DecompressDataset) -> tuple[Output, Result]:
    """Restore what is not restored yet.

    Raises:
        UsageError: the job cannot begin as it was asked to.
        WorkError: it cannot go on.
    """
    with Cluster(job=JOB, **asdict(config.cluster)) as cluster:
        with usage():
            work = _prepare(config)
        rerun = config.rerun
        result = run_to_end(work, cluster, max_failures=rerun.max_failures, retry_quarantined=rerun.retry_quarantined)
    return work.output, result


def _prepare(config: DecompressDataset) -> Work:
    check_apart(config.output, config.input)
    source, output = CompressedDataset(config.input), Output(config.output)
    output.check_free()
    codec = codec_of(
        source,
        config.bundle,
        coder=source.manifest.settings["coder"],
        device=config.cluster.device,
        max_pixels=config.max_pixels,
    )
    keys = _keys(config)
    selection = source.select(keys=keys, where=config.where)
    _tell_what_is_missing(source, selection)
    if config.rerun.overwrite:
        output.clear(JOB)
    settings = {
        "input": str(source.output),
        "input_plan": source.manifest.id,
        "model_fingerprint": codec.model_fingerprint,
        "format": config.format,
        "container": config.container,
        "keys_sha256": keys and _sha256(keys),
        "where": config.where,
        "max_pixels": config.max_pixels,
        "schema_version": SCHEMA_VERSION,
    }
    begun = Manifest(job=JOB, settings=settings, arguments=lasting_arguments(config))
    check_same(output.begin(begun), begun, output=output)
    worker_config = DecompressionConfig(
        input=absolute(config.input),
        output=absolute(config.output),
        image_format=config.format,
        codec=codec,
        num_threads=config.cluster.cpus_per_worker,
        container=config.container,
    )
    return Work(
        verb="restored",
        output=output,
        num_images=selection.num_images,
        shards=lambda done: _shards(source.files(selection), done),
        make_worker=partial(ShardDecompressor, worker_config),
        num_images_of={file.shard: len(file.rows) for file in source.files(selection)},
        is_part=keys is None and source.num_left > 0,
    )


def _keys(config: DecompressDataset) -> list[str] | None:
    """Return the keys that were asked for, sorted, or None if none were: restore all."""
    if config.keys is None and not config.key:
        return None
    keys = {*config.key, *(read_keys(config.keys) if config.keys is not None else ())}
    if not keys:
        raise ValueError(f"{config.keys} has no keys: expected one per line")
    return sorted(keys)


def _sha256(keys: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def _shards(files: Sequence[StoredFile], done: set[int]) -> Iterator[Shard]:
    """Make a shard of the selected images of each committed file of bitstreams."""
    for file in files:
        if file.shard not in done:
            yield Shard(file.shard, tuple(StoredImage(file.file, row) for row in file.rows))


def _tell_what_is_missing(compressed: CompressedDataset, selection: Selection) -> None:
    if state := compressed.state():
        say(f"{state}; then give this command again")
    if selection.num_quarantined:
        say(f"images that could not be compressed, and so cannot be restored: {selection.num_quarantined}")


def _tars(output: Output) -> str:
    """Return the pattern of all tars: with numbers, as WebDataset takes it, where a selection leaves no gap."""
    shards = sorted(output.committed())
    has_gap = shards != list(range(len(shards))) or not shards
    return "/*.tar" if has_gap else f"/{{{tar_name(0)[:-4]}..{tar_name(shards[-1])[:-4]}}}.tar"


def _print_result(output: Output, result: Result, container: Container) -> None:
    total = result.total
    print_table(
        [
            ("images", counts_text("restored", total, num_left=result.num_left)),
            *size_rows("bitstreams", "image files", total),
            ("this run", result.speed),
            ("images in", f"{shown(output)}/images{_tars(output) if container == 'webdataset' else ''}"),
            ("a row each in", metrics_glob(output)),
        ]
    )
    print_quarantined(total)


if __name__ == "__main__":
    sys.exit(main())
