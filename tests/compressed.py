"""Compressed datasets for tests as the compress job leaves them, without Ray: planned, compressed, committed."""

import itertools
from pathlib import Path

from jobs import compress_dataset
from pipeline.compress.settings import settings_of
from pipeline.compress.worker import CompressionConfig, ShardCompressor
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.output import Output
from pipeline.ledger.plan import freeze_plan, planned_shards
from pipeline.sources.opening import open_source
from pipeline.work.codec import CodecSpec


def compress(images: Path, output: Path, bundle: Path, *, shard_size: int = 4, num_shards: int | None = None) -> None:
    """Compress the images of a folder; with `num_shards` stop after so many, as a job that was killed."""
    config = CompressionConfig(
        input=str(images),
        output=str(output),
        codec=CodecSpec.of(str(bundle), 4, coder="adaptive", max_pixels=2**22),
    )
    source, folder = open_source(config.input), Output(config.output)
    begun = Manifest(job=compress_dataset.JOB, settings=settings_of(source, config))
    manifest = freeze_plan(folder, source, begun=begun, shard_size=shard_size, num_workers=lambda: 1)
    compressor = ShardCompressor(config)
    for shard in itertools.islice(planned_shards(folder, manifest, skip=set()), num_shards):
        compressor.run(shard)
