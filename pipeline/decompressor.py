"""Restore the images of a shard of a compressed dataset.

Threads entropy decode and write image files while the calling thread runs the synthesis transform. An image that fails
becomes a quarantined row and disturbs no other.
"""

import errno
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bls.bitstream import Header
from bls.codec import Pixels, Symbols
from pipeline import images
from pipeline.output import Marker, Output
from pipeline.schema import RESTORED, to_parquet
from pipeline.shards import Shard
from pipeline.stages import Item, ahead, batches
from pipeline.storage import UnsafeNameError
from pipeline.summary import OK, Summary
from pipeline.worker import (
    BATCH_PIXELS,
    WorkerCrashError,
    load_codec,
    num_pixels,
    own_process,
    shape_of,
    synthesize,
    try_out,
)

# Errors of a file's name; any other error of writing concerns the output as a whole.
_NAME_ERRORS = frozenset((errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL))


@dataclass(frozen=True)
class DecompressionConfig:
    """What a worker needs to restore images; `image_format` is a key of `images.FORMATS`."""

    input: str
    output: str
    image_format: str
    bundle: str | None
    bundle_fingerprint: str
    max_pixels: int
    device: str = "cpu"
    num_threads: int = 1


@dataclass(frozen=True)
class StoredImage:
    """A bitstream of a compressed dataset: a row of one of its files."""

    file: str
    row: int


@dataclass
class _StoredItem(Item):
    """An image being restored."""

    stored: dict[str, Any]
    decoded: tuple[Header, Symbols] | None = None
    x_hat: Pixels | None = None


class ShardDecompressor:
    """Restore the images of shards of a compressed dataset below the output's images folder."""

    def __init__(self, config: DecompressionConfig) -> None:
        own_process(config.num_threads)
        self._config = config
        self._codec = load_codec(config)
        try_out(self._codec, quality=self._codec.qualities[0], coder="adaptive")
        self._input = Output(config.input)
        self._output = Output(config.output)
        self._images = self._output.folder.child("images")
        self._pool = ThreadPoolExecutor(config.num_threads)
        self._window = 2 * config.num_threads + 1

    def run(self, shard: Shard, *, crashed: Collection[int] = ()) -> Marker:
        """Restore a shard and commit it; return the marker that stands, which may be another run's.

        `crashed` are the positions of the items that killed workers before: they are quarantined unseen.
        """
        if (marker := self._output.marker(shard.index, retry=shard.retry)) is not None:
            return marker
        rows = [item.row for item in self._process(shard, crashed)]
        metadata = {"job": "decompress", "bundle_fingerprint": self._codec.fingerprint}
        summary = Summary.of_rows(rows, bytes_in="num_bytes", bytes_out="image_num_bytes")
        files = {"metrics": to_parquet(rows, RESTORED, metadata=metadata)}
        return self._output.commit(shard.index, files, summary, retry=shard.retry)

    def probe(self, shard: Shard) -> None:
        """Do the work of a shard but commit nothing, to see whether the process survives it."""
        self._process(shard, ())

    def _process(self, shard: Shard, crashed: Collection[int]) -> list[_StoredItem]:
        decoded = ahead(self._pool, self._decode, self._begin(shard, crashed), window=self._window)
        grouped = batches(decoded, key=shape_of, cost=num_pixels, max_cost=BATCH_PIXELS[self._config.device])
        synthesised = chain.from_iterable(synthesize(self._codec, batch) for batch in grouped)
        written = ahead(self._pool, self._write, synthesised, window=self._window)
        return sorted(written, key=lambda item: item.position)

    def _begin(self, shard: Shard, crashed: Collection[int]) -> Iterator[_StoredItem]:
        (file,) = {image.file for image in shard.items}
        table = pq.read_table(pa.BufferReader(self._input.folder.read(file)))
        for position, stored in enumerate(table.take([image.row for image in shard.items]).to_pylist()):
            row = {"key": stored["key"], "shard": shard.index, "status": OK, "num_bytes": len(stored["bitstream"])}
            item = _StoredItem(position, row, stored)
            if position in crashed:
                item.quarantine("crashed", WorkerCrashError())
            yield item

    def _decode(self, item: _StoredItem) -> _StoredItem:
        if item.ok:
            with item.stage("entropy_decode_seconds"):
                item.decoded = self._codec.decode(item.stored["bitstream"])
                item.row.update(width=item.decoded[0].width, height=item.decoded[0].height)
        return item

    def _write(self, item: _StoredItem) -> _StoredItem:
        if item.ok:
            with item.stage("image_encode_seconds"):
                carried = {name: item.stored[name] for name in ("exif", "icc_profile", "alpha_png")}
                assert item.x_hat is not None
                data = images.encode(item.x_hat, image_format=self._config.image_format, **carried)
        if item.ok:
            path = item.stored["stem"] + images.FORMATS[self._config.image_format]
            item.row.update(path=path, image_num_bytes=len(data))
            try:
                self._images.write(path, data)
            except UnsafeNameError as error:
                item.quarantine("unsafe_name", error)
            except OSError as error:
                if error.errno not in _NAME_ERRORS:
                    raise
                item.quarantine("unwritable", error)
        item.x_hat = None
        return item
