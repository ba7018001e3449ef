"""Compress a shard: images in, bitstreams and metrics out.

Threads fetch, others decode, entropy code and measure, while the calling thread runs the transforms. An image that
fails becomes a quarantined row and disturbs no other.
"""

import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any

import pyarrow as pa

from bls.measures import images as measures
from bls.targets import Target
from pipeline import images
from pipeline.ahead import ExpectedCost
from pipeline.compress.coding import (
    CodedItem,
    analyze,
    analyze_for_target,
    code,
    code_to_target,
    quality_columns,
    rate_and_distortion,
)
from pipeline.compress.good_rows import GoodRows
from pipeline.compress.keeping import is_to_be_kept, keep
from pipeline.images import ImageError, SourceImage
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import CARRIED, METRICS, SOURCE_SIZES, STORED_SIZES, bitstreams_schema, to_parquet
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary
from pipeline.sources.opening import open_source
from pipeline.sources.reading import read_sample
from pipeline.sources.reference import Columns, ImageReference
from pipeline.status import Status
from pipeline.storage.patience import Patience, have_patience
from pipeline.work.codec import (
    CodecSpec,
    WorkerCrashError,
    configure_process,
    num_pixels,
    shape_of,
    synthesize,
)
from pipeline.work.commit import Results, commit_once
from pipeline.work.kept import KeptFile
from pipeline.work.stages import batches
from pipeline.work.threads import AHEAD_BYTES, WorkerThreads


@dataclass(frozen=True)
class CompressionConfig:
    """What a worker needs to compress shards; `ms_ssim_share` is the part of the images whose MS-SSIM is measured.

    The codec has a quality, or there is a target for which the quality of each image is searched, or `max_total_bytes`
    for all images, and each shard says its quality.
    """

    input: str
    output: str
    codec: CodecSpec
    target: Target | None = None
    max_total_bytes: int | None = None
    min_psnr_db: float | None = None
    raised_from: float | None = None  # quality of the images that do not fall short of it; the codec then has all
    keep_smaller: bool = False  # originals that are smaller than their bitstreams, as they are
    ms_ssim_share: float = 1.0
    columns: Columns | None = None
    carried: pa.DataType | None = None  # beside each image, as the source said when it was listed
    num_threads: int = 1
    patience: Patience = field(default_factory=Patience)

    @property
    def quality(self) -> float | None:
        """The quality of all images, but for those whose quality is raised; None if each is searched for."""
        return self.codec.quality if self.raised_from is None else self.raised_from

    @property
    def goal(self) -> str | None:
        """What qualities are searched for; None if there is one quality for all."""
        if self.max_total_bytes is not None:
            return f"total bytes <= {self.max_total_bytes}"
        return None if self.target is None else str(self.target)


@dataclass
class _SourceItem(CodedItem):
    """An image of a shard."""

    reference: ImageReference = field(kw_only=True)
    batch: int = 0
    data: bytes = b""
    carried: Any = None
    stored: dict[str, Any] = field(default_factory=dict)  # its row of the bitstreams table


class ShardCompressor:
    """Compress shards of image references with one model.

    Raises:
        ValueError: the bundle is another or has no model of this quality, or the input is not a source of images.
    """

    def __init__(self, config: CompressionConfig) -> None:
        configure_process(config.num_threads)
        have_patience(config.patience)
        self._config = config
        self._codec = config.codec.load_and_try()
        self._source = open_source(config.input, config.columns)
        self._bitstreams = bitstreams_schema(config.carried)
        self._output = Output(config.output)
        self._threads = WorkerThreads(config.num_threads)
        self._file_num_bytes = ExpectedCost(AHEAD_BYTES)
        quality = config.quality
        self._model_columns = {
            "coder": config.codec.coder,
            "effort": config.codec.effort,
            "target": config.goal,
            **({} if quality is None else quality_columns(self._codec, quality)),
        }
        self._metadata = {
            "job": "compress",
            "max_pixels": config.codec.max_pixels,
            "model_fingerprint": config.codec.model_fingerprint,
            **self._model_columns,
        }

    def run(self, shard: Shard, *, crashed: Collection[int] = ()) -> Marker:
        """Compress a shard and commit it; return the marker that stands, which may be another run's.

        `crashed` are the positions of the items that killed workers before: they are quarantined unseen. Good images
        of a shard that is done again are kept.
        """
        return commit_once(
            self._output, shard, lambda: self._compress(shard, crashed), schema=METRICS, metadata=self._metadata
        )

    def probe(self, shard: Shard) -> None:
        """Do the work of a shard but write nothing, to see whether the process survives it."""
        self.measure(shard)

    def measure(self, shard: Shard) -> list[dict[str, Any]]:
        """Do the work of a shard but write nothing; return the rows of its metrics."""
        return [item.row for item in self._process(shard, (), ())]

    def _compress(self, shard: Shard, crashed: Collection[int]) -> Results:
        good = GoodRows.of(self._output, shard.replaces if shard.keeps_rows else None)
        items = self._process(shard, crashed, good.metrics)
        metrics = {**good.metrics, **{item.row["key"]: item.row for item in items}}
        bitstreams = {**good.bitstreams, **{item.row["key"]: item.stored for item in items if item.ok}}
        keys = [reference.key for reference in shard.items]
        rows = [metrics[key] for key in keys]
        stored = [bitstreams[key] for key in keys if key in bitstreams]
        return Results(
            rows,
            Summary.of_rows(rows, bytes_in=SOURCE_SIZES, bytes_out=STORED_SIZES),
            {"bitstreams": to_parquet(stored, self._bitstreams, metadata=self._metadata)},
            earlier=shard.earlier_stints,
        )

    def _process(self, shard: Shard, crashed: Collection[int], kept: Collection[str]) -> list[_SourceItem]:
        begun = (item for item in self._begin(shard, crashed) if item.row["key"] not in kept)
        fetched = self._fetched(begun)
        decoded = self._threads.map_pixels(self._decode, fetched, cost=lambda item: images.num_pixels(item.data))
        grouped = batches(decoded, key=shape_of, cost=num_pixels, max_cost=self._config.codec.batch_pixels)
        analysed = chain.from_iterable(self._analyze(batch, number) for number, batch in enumerate(grouped))
        coded = self._threads.map_pixels(self._code, analysed, cost=num_pixels)
        regrouped = groupby(coded, key=lambda item: item.batch)
        synthesised = chain.from_iterable(synthesize(self._codec, list(batch)) for _, batch in regrouped)
        measured = self._threads.map_pixels(self._measure, synthesised, cost=num_pixels)
        items = sorted(measured, key=lambda item: item.position)
        self._check_rows(items)
        return items

    def _begin(self, shard: Shard, crashed: Collection[int]) -> Iterator[_SourceItem]:
        own = {} if shard.quality is None else quality_columns(self._codec, shard.quality)
        for position, reference in enumerate(shard.items):
            row = {"key": reference.key, "source_uri": reference.source_uri, "shard": shard.index, "status": Status.OK}
            item = _SourceItem(position, {**row, **self._model_columns, **own}, reference=reference)
            if position in crashed:
                item.quarantine(Status.CRASHED, WorkerCrashError())
            yield item

    def _fetched(self, begun: Iterator[_SourceItem]) -> Iterator[_SourceItem]:
        expected = self._file_num_bytes

        def num_bytes(item: _SourceItem) -> int:
            return item.reference.num_bytes or expected.value

        for item in self._threads.map_storage(self._fetch, begun, cost=num_bytes):
            if item.data:
                expected.saw(len(item.data))
            yield item

    def _fetch(self, item: _SourceItem) -> _SourceItem:
        if item.ok:
            with item.stage("fetch_seconds"):
                sample = read_sample(self._source, item.reference)
                item.data, item.carried = sample.data, sample.carried
                item.row["source_num_bytes"] = len(item.data)
        return item

    def _decode(self, item: _SourceItem) -> _SourceItem:
        if item.ok:
            with item.stage("decode_seconds"):
                item.image = images.decode(item.data, max_pixels=self._config.codec.max_pixels)
                item.row.update(source_columns(item.image, source_num_bytes=len(item.data)))
        if not (item.ok and self._config.keep_smaller):
            item.data = b""
        return item

    def _analyze(self, batch: list[_SourceItem], number: int) -> list[_SourceItem]:
        spec = self._config.codec
        if (quality := batch[0].row.get("quality")) is not None:
            analyze(self._codec, batch, quality=quality, coder=spec.coder, effort=spec.effort)
        elif spec.effort == 0:  # else the search refines the image anew at each quality
            analyze_for_target(self._codec, batch)
        for item in batch:
            item.batch = number
        return batch

    def _code(self, item: _SourceItem) -> _SourceItem:
        coder, effort = self._config.codec.coder, self._config.codec.effort
        if (quality := item.row.get("quality")) is not None:
            code(self._codec, item, quality=quality, coder=coder)
        else:
            assert self._config.target is not None
            code_to_target(self._codec, item, target=self._config.target, coder=coder, effort=effort)
        self._keep_if_smaller(item)
        return item

    def _keep_if_smaller(self, item: _SourceItem) -> None:
        """Keep the original if that is asked for and its bitstream is larger: then nothing is left to be measured."""
        target, num_bytes = self._config.target, len(item.data)
        if item.ok and self._config.keep_smaller and is_to_be_kept(item, num_bytes, target):
            keep(item, num_bytes, target)

    def _measure(self, item: _SourceItem) -> _SourceItem:
        self._measure_distortion(item)
        if item.ok and self._config.raised_from is not None:
            self._raise_quality(item)
        if item.ok and not item.is_kept:
            self._measure_quality(item)
        if item.ok:
            with item.stage("quality_seconds"):
                item.stored = {**_stored_columns(item), CARRIED: item.carried}
                item.row["carried_num_bytes"] = self._carried_num_bytes(item.carried)
        item.data = b""
        item.carried = item.image = item.symbols = item.x_hat = None
        return item

    def _measure_quality(self, item: _SourceItem) -> None:
        assert item.image is not None and item.symbols is not None and item.x_hat is not None
        with item.stage("quality_seconds"):
            bits = self._codec.estimate_bits(item.symbols, quality=item.row["quality"])
            item.symbols = None
            item.row["estimated_bpp"] = bits / num_pixels(item)
            self._check_psnr(item.row["psnr_db"])
            if is_sampled(item.reference.key, self._config.ms_ssim_share):
                item.row["ms_ssim"] = item.ms_ssim or measures.ms_ssim(item.image.pixels, item.x_hat)

    def _raise_quality(self, item: _SourceItem) -> None:
        """Code an image that came out worse than is wanted again, at the lowest quality that is good enough."""
        spec, wanted = self._config.codec, self._config.min_psnr_db
        assert wanted is not None
        if (psnr_db := item.row["psnr_db"]) is not None and psnr_db < wanted:
            target = Target("psnr_db", wanted)
            code_to_target(self._codec, item, target=target, coder=spec.coder, effort=spec.effort)
            self._keep_if_smaller(item)
            synthesize(self._codec, [item])  # where the search did not need to
            self._measure_distortion(item)

    def _measure_distortion(self, item: _SourceItem) -> None:
        if item.ok and not item.is_kept:
            with item.stage("quality_seconds"):
                item.row.update(rate_and_distortion(item))

    def _check_psnr(self, psnr_db: float | None) -> None:
        """Raise an ImageError where an image came out worse than is wanted; None is an image without error."""
        wanted = self._config.min_psnr_db
        if wanted is not None and psnr_db is not None and psnr_db < wanted:
            raise ImageError(Status.LOW_PSNR, f"PSNR is {psnr_db:.2f} dB, --min-psnr-db is {wanted:g}")

    def _carried_num_bytes(self, value: Any) -> int:
        return 0 if self._config.carried is None else pa.array([value], self._config.carried).nbytes

    def _check_rows(self, items: Sequence[_SourceItem]) -> None:
        """Quarantine images whose rows cannot be written: a value of an input must not fail its shard."""
        try:
            pa.Table.from_pylist([item.stored for item in items if item.ok], schema=self._bitstreams)
        except Exception:  # the images are tried one by one below
            for item in items:
                if item.ok:
                    with item.stage("quality_seconds"):
                        pa.Table.from_pylist([item.stored], schema=self._bitstreams)
        for item in items:
            item.fit(METRICS)


def is_sampled(key: str, share: float) -> bool:
    """Return whether an image belongs to a sample of about this share: always the same images."""
    return zlib.crc32(key.encode()) < share * 2**32


def source_columns(image: SourceImage, *, source_num_bytes: int) -> dict[str, Any]:
    height, width = image.pixels.shape[:2]
    return {
        "width": width,
        "height": height,
        "mode": image.mode,
        "source_format": image.source_format,
        "source_bpp": measures.bpp(source_num_bytes, height=height, width=width),
        "beside_num_bytes": image.beside_num_bytes,
    }


def _stored_columns(item: _SourceItem) -> dict[str, Any]:
    reference, image = item.reference, item.image
    assert image is not None
    columns = {"key": reference.key, "stem": reference.stem, "mode": image.mode}
    if item.is_kept:
        kept = KeptFile.of(item.data, key=reference.key, source_format=image.source_format)
        return {**columns, **kept.columns()}
    return {
        **columns,
        "bitstream": item.bitstream,
        "exif": image.exif,
        "icc_profile": image.icc_profile,
        "alpha_png": image.alpha_png,
    }
