"""Verify a shard: its files against their marker and the plan, every bitstream to symbols, and to pixels if wanted.

Originals that were kept are compared with their checksums and decoded.

Threads read originals, decode and measure while the calling thread runs the synthesis transform. What is wrong with an
image is a row, and disturbs no other.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from bls.measures import images as measures
from bls.pixels import Pixels
from pipeline import images
from pipeline.images import ImageError
from pipeline.ledger.markers import Marker, Stint
from pipeline.ledger.output import Output, findings_name
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Mean, Summary
from pipeline.sources.opening import open_source
from pipeline.sources.reading import read_encoded
from pipeline.sources.reference import Columns, ImageReference, Source
from pipeline.status import Status
from pipeline.verify.files import ShardFiles, read_files
from pipeline.verify.findings import Finding, Problem, counts, findings_table
from pipeline.work.codec import CodecSpec, DecodedItem, configure_process, num_pixels, shape_of, synthesize
from pipeline.work.kept import KeptFile, Stored, stored
from pipeline.work.stages import batches
from pipeline.work.threads import WorkerThreads

MSE_TOLERANCE = 0.05  # relative: machines differ in the last bits of floating point, and so in some samples


@dataclass(frozen=True)
class VerificationConfig:
    """What a worker needs to verify shards; `originals` is where they are, None where pixels are not compared."""

    output: str
    run: str
    codec: CodecSpec
    originals: str | None = None
    columns: Columns | None = None
    num_threads: int = 1


@dataclass
class _StoredItem(DecodedItem):
    """What is stored of an image, with its row of the metrics and the reference of its original, if they are known."""

    stored: Stored
    metrics: Mapping[str, Any] | None = None
    reference: ImageReference | None = None
    data: bytes = b""  # of the original
    psnr_db: float | None = None
    problem: Problem = field(kw_only=True)


class ShardVerifier:
    """Verify committed shards, each of which names its marker as the one that it would replace."""

    def __init__(self, config: VerificationConfig) -> None:
        configure_process(config.num_threads)
        self._config = config
        self._codec = config.codec.load_and_try()
        self._output = Output(config.output)
        self._threads = WorkerThreads(config.num_threads)
        self._source: Source | None = None
        if config.originals is not None:
            self._source = open_source(config.originals, config.columns)

    def run(self, shard: Shard, *, crashed: Collection[int] = ()) -> Marker:
        """Verify a shard and write what is wrong; return sums, with the findings in the place of quarantined images.

        `crashed` are the positions of the items that killed workers before: they are not decoded.
        """
        began = time.monotonic()
        marker = _marker_of(shard)
        files = self._read(shard)
        killers = {shard.items[position].key for position in crashed}
        items = self._process(files, shard.items, killers)
        findings = [*files.findings, *_findings(items, marker)]
        if findings:
            name = findings_name(self._config.run, shard.index)
            self._output.folder.write(name, findings_table(findings, run=self._config.run))
        summary = _sums(items, marker.summary.num_images, files.num_bytes) + counts(findings)
        return Marker(shard.index, marker.attempt, {}, summary, marker.retry, (Stint.since(began),))

    def probe(self, shard: Shard) -> None:
        """Decode the images of a shard but write nothing, to see whether the process survives it."""
        keys = {reference.key for reference in shard.items}
        files = self._read(shard)
        files.bitstreams = [row for row in files.bitstreams or () if row["key"] in keys]
        self._process(files, shard.items, ())

    def _read(self, shard: Shard) -> ShardFiles:
        keys = [reference.key for reference in shard.items] or None
        return read_files(self._output, _marker_of(shard), keys)

    def _process(
        self, files: ShardFiles, references: Sequence[ImageReference], killers: Collection[str]
    ) -> list[_StoredItem]:
        items: Iterator[_StoredItem] = _begin(files, references, killers)
        if self._source is not None:
            items = self._threads.map_storage(self._fetch, items, cost=_source_num_bytes)
        items = self._threads.map_pixels(self._decode, items, cost=_claimed_pixels)
        if self._source is not None:
            grouped = batches(items, key=shape_of, cost=num_pixels, max_cost=self._config.codec.batch_pixels)
            synthesised = chain.from_iterable(synthesize(self._codec, batch) for batch in grouped)
            items = self._threads.map_pixels(self._measure, synthesised, cost=num_pixels)
        return sorted(items, key=lambda item: item.position)

    def _fetch(self, item: _StoredItem) -> _StoredItem:
        assert self._source is not None
        if item.ok and item.reference is not None:
            with suppress(ImageError):  # it cannot be compared, which the sums show
                item.data = read_encoded(self._source, item.reference)
        return item

    def _decode(self, item: _StoredItem) -> _StoredItem:
        if item.ok:
            with item.stage("entropy_decode_seconds"):
                if isinstance(item.stored, KeptFile):
                    x_hat = item.stored.decode(max_pixels=self._config.codec.max_pixels).pixels
                    item.row.update(width=x_hat.shape[1], height=x_hat.shape[0])
                    item.x_hat = None if self._source is None else x_hat
                else:
                    header, symbols = self._codec.decode(item.stored)
                    item.row.update(width=header.width, height=header.height)
                    item.decoded = None if self._source is None else (header, symbols)
                _compare_sizes(item)
        return item

    def _measure(self, item: _StoredItem) -> _StoredItem:
        x_hat, item.x_hat = item.x_hat, None
        if item.ok and x_hat is not None and item.data:
            with item.stage("quality_seconds"):
                try:
                    x = images.decode(item.data, max_pixels=self._config.codec.max_pixels).pixels
                except ImageError:
                    return item  # is not what was compressed, or not any more
                _compare_pixels(item, x, x_hat)
        item.data = b""
        return item


def _marker_of(shard: Shard) -> Marker:
    assert shard.replaces is not None
    return shard.replaces


def _begin(files: ShardFiles, references: Sequence[ImageReference], killers: Collection[str]) -> Iterator[_StoredItem]:
    metrics = {row["key"]: row for row in files.metrics or ()}
    by_key = {reference.key: reference for reference in references}
    for position, row in enumerate(files.bitstreams or ()):
        key = row["key"]
        content = stored(row)
        is_kept = isinstance(content, KeptFile)
        status, problem = (Status.KEPT, Problem.BAD_ORIGINAL) if is_kept else (Status.OK, Problem.BAD_BITSTREAM)
        known = {"key": key, "status": status}
        item = _StoredItem(position, known, content, metrics.get(key), by_key.get(key), problem=problem)
        if key in killers:
            item.quarantine(Status.CRASHED, RuntimeError("the process that decoded it died, each time"))
        yield item


def _source_num_bytes(item: _StoredItem) -> int:
    return int((item.metrics or {}).get("source_num_bytes") or 0)


def _claimed_pixels(item: _StoredItem) -> int:
    metrics = item.metrics or {}
    return int((metrics.get("width") or 0) * (metrics.get("height") or 0))


def _compare_sizes(item: _StoredItem) -> None:
    """Compare an image with its row of the metrics.

    Raises:
        ValueError: a size is another, or only one of both says that the original was kept.
    """
    if item.metrics is None:
        return
    found = {**item.row, "num_bytes": len(item.stored)}
    for name in ("status", "num_bytes", "width", "height"):
        if found[name] != item.metrics[name]:
            item.problem = Problem.WRONG_METRICS
            raise ValueError(f"{name} is {found[name]}, the metrics have {item.metrics[name]}")


def _compare_pixels(item: _StoredItem, x: Pixels, x_hat: Pixels) -> None:
    """Compare the error of a decoded image with the one in its row of the metrics.

    Raises:
        ValueError: it is another.
    """
    stored = (item.metrics or {}).get("mse_255")
    if stored is None:
        return
    item.problem = Problem.WRONG_PIXELS
    if x.shape != x_hat.shape:
        raise ValueError(f"the original is of shape {x.shape} by now, the image of {x_hat.shape}")
    mse_255 = measures.mse_255(x, x_hat)
    if abs(mse_255 - stored) > MSE_TOLERANCE * stored + 0.01:
        raise ValueError(
            f"mean squared error is {mse_255:.4g}, the metrics have {stored:.4g}: the original was exchanged, or this "
            "machine decodes otherwise"
        )
    item.psnr_db = measures.psnr_db(mse_255) if mse_255 > 0 else None


def _findings(items: Sequence[_StoredItem], marker: Marker) -> list[Finding]:
    file = marker.files["bitstreams"].name if "bitstreams" in marker.files else None
    return [
        Finding(item.problem, item.row["error_message"], marker.shard, file, item.row["key"])
        for item in items
        if not item.ok
    ]


def _sums(items: Sequence[_StoredItem], num_images: int, num_bytes: int) -> Summary:
    """Return the sums of a shard; the mean PSNR is over the images that were compared with their originals."""
    compared = [item.psnr_db for item in items if item.psnr_db is not None]
    return Summary(
        num_images=num_images,
        num_pixels=sum(num_pixels(item) for item in items),
        num_bytes_in=num_bytes,
        psnr_db=Mean(sum(compared), len(compared)),
    )
