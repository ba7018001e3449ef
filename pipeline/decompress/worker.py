"""Restore the images of a shard of a compressed dataset; originals that were kept are written as they are.

Threads entropy decode and write image files while the calling thread runs the synthesis transform. An image that fails
becomes a quarantined row and disturbs no other.
"""

import errno
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa

from pipeline import images
from pipeline.decompress.containers import Container, RestoredFiles, RestoredImage, open_restored
from pipeline.images import ImageError
from pipeline.ledger.bitstream_rows import Bitstreams, carried_names, read_stored
from pipeline.ledger.markers import CommittedFile, Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import CARRIED, ORIGINAL, RESTORED
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary
from pipeline.status import Status
from pipeline.storage.uris import UnsafeNameError
from pipeline.work.codec import (
    CodecSpec,
    DecodedItem,
    WorkerCrashError,
    configure_process,
    num_pixels,
    shape_of,
    synthesize,
)
from pipeline.work.commit import Results, commit_once
from pipeline.work.kept import KeptFile, Stored, claimed_pixels, stored
from pipeline.work.stages import batches
from pipeline.work.threads import WorkerThreads

_COLUMNS = ["key", "stem", "bitstream", "exif", "icc_profile", "alpha_png", *ORIGINAL]
# Errors of a file's name; any other error of writing concerns the output as a whole.
_NAME_ERRORS = frozenset((errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL))


@dataclass(frozen=True)
class DecompressionConfig:
    """What a worker needs to restore images; `image_format` is a key of `images.FORMATS`, `container` a
    `pipeline.decompress.containers.Container`."""

    input: str
    output: str
    image_format: str
    codec: CodecSpec
    num_threads: int = 1
    container: Container = "files"


@dataclass(frozen=True)
class StoredImage:
    """A bitstream of a compressed dataset: a row of one of its files."""

    file: CommittedFile
    row: int


@dataclass
class _StoredItem(DecodedItem):
    """An image being restored; `carried` holds what the input carried beside it, by its names there."""

    stored: dict[str, Any]
    carried: dict[str, Any]
    content: Stored = b""
    data: bytes = b""  # of the image file


class ShardDecompressor:
    """Restore the images of shards of a compressed dataset as files, tars or tables."""

    def __init__(self, config: DecompressionConfig) -> None:
        configure_process(config.num_threads)
        self._config = config
        self._codec = config.codec.load_and_try()
        self._input = Output(config.input)
        self._output = Output(config.output)
        self._threads = WorkerThreads(config.num_threads)
        # Files have no place for carried values, and a table gets them as they are.
        self._columns = [*_COLUMNS, CARRIED] if config.container == "webdataset" else _COLUMNS

    def run(self, shard: Shard, *, crashed: Collection[int] = ()) -> Marker:
        """Restore a shard and commit it; return the marker that stands, which may be another run's.

        `crashed` are the positions of the items that killed workers before: they are quarantined unseen.
        """
        metadata = {"job": "decompress", "model_fingerprint": self._config.codec.model_fingerprint}
        with ExitStack() as stack:  # what takes the images is open until they are committed
            return commit_once(
                self._output,
                shard,
                lambda: self._restore(shard.index, *stack.enter_context(self._open(shard)), crashed),
                schema=RESTORED,
                metadata=metadata,
            )

    def probe(self, shard: Shard) -> None:
        """Do the work of a shard but commit nothing, to see whether the process survives it."""
        with self._open(shard) as (tables, restored):
            self._process(shard.index, tables, restored, ())

    @contextmanager
    def _open(self, shard: Shard) -> Iterator[tuple[Iterator[pa.Table], RestoredFiles]]:
        """Open the rows that a shard is made of, and what takes their images."""
        (file,) = {image.file for image in shard.items}
        rows = [image.row for image in shard.items]
        bitstreams = Bitstreams.read(self._input.folder, file)
        with open_restored(
            self._config.container,
            output=self._output,
            shard=shard.index,
            image_format=self._config.image_format,
            bitstreams=bitstreams,
            rows=rows,
        ) as restored:
            yield read_stored(bitstreams, rows, self._columns), restored

    def _restore(
        self, shard: int, tables: Iterator[pa.Table], restored: RestoredFiles, crashed: Collection[int]
    ) -> Results:
        rows = [item.row for item in self._process(shard, tables, restored, crashed)]
        summary = Summary.of_rows(rows, bytes_in=["num_bytes"], bytes_out=["image_num_bytes"])
        return Results(rows, summary, restored.finish())

    def _process(
        self, shard: int, tables: Iterator[pa.Table], restored: RestoredFiles, crashed: Collection[int]
    ) -> list[_StoredItem]:
        begun = self._begin(shard, tables, crashed)
        decoded = self._threads.map_pixels(self._decode, begun, cost=lambda item: claimed_pixels(item.content))
        grouped = batches(decoded, key=shape_of, cost=num_pixels, max_cost=self._config.codec.batch_pixels)
        synthesised = chain.from_iterable(synthesize(self._codec, batch) for batch in grouped)
        encoded = self._threads.map_pixels(self._encode, synthesised, cost=num_pixels)
        written = self._threads.map_storage(partial(self._write, restored), encoded, cost=lambda item: len(item.data))
        items = sorted(written, key=lambda item: item.position)
        for item in items:
            item.fit(RESTORED)
        return items

    def _begin(self, shard: int, tables: Iterator[pa.Table], crashed: Collection[int]) -> Iterator[_StoredItem]:
        for position, (columns, carried) in enumerate(_rows(tables)):
            content = stored(columns)
            del columns["bitstream"], columns["original"]
            status = Status.KEPT if isinstance(content, KeptFile) else Status.OK
            row = {"key": columns["key"], "shard": shard, "status": status, "num_bytes": len(content)}
            item = _StoredItem(position, row, columns, {}, content)
            if position in crashed:
                item.quarantine(Status.CRASHED, WorkerCrashError())
            try:
                item.carried = {name: value.as_py() for name, value in carried.items()}
            except Exception as error:  # Python has no value for some of Arrow's: years, time zones
                item.quarantine(Status.FAILED, error)
            yield item

    def _decode(self, item: _StoredItem) -> _StoredItem:
        content, item.content = item.content, b""
        if isinstance(content, KeptFile):
            self._open_kept(item, content)
        elif item.ok:
            with item.stage("entropy_decode_seconds"):
                item.decoded = self._codec.decode(content)
                item.row.update(width=item.decoded[0].width, height=item.decoded[0].height)
        return item

    def _open_kept(self, item: _StoredItem, kept: KeptFile) -> None:
        """Take the file of an original, which is decoded to see that it is an image."""
        if item.ok:
            with item.stage():
                height, width = kept.decode(max_pixels=self._config.codec.max_pixels).pixels.shape[:2]
                item.data = kept.data
                item.row.update(width=width, height=height, image_num_bytes=len(kept))

    def _encode(self, item: _StoredItem) -> _StoredItem:
        if item.ok and not item.is_kept:
            with item.stage("image_encode_seconds"):
                carried = {name: item.stored[name] for name in ("exif", "icc_profile", "alpha_png")}
                assert item.x_hat is not None
                item.data = images.encode(item.x_hat, image_format=self._config.image_format, **carried)
                item.row["image_num_bytes"] = len(item.data)
        item.x_hat = None
        return item

    def _write(self, restored: RestoredFiles, item: _StoredItem) -> _StoredItem:
        if item.ok:
            size = {name: item.row[name] for name in ("width", "height")}
            extension = item.stored["original_extension"] or images.FORMATS[self._config.image_format]
            image = RestoredImage(
                item.position, item.stored["stem"], extension, item.data, **size, carried=item.carried
            )
            start = time.perf_counter()
            try:
                item.row["path"] = restored.add(image)
            except UnsafeNameError as error:
                item.quarantine(Status.UNSAFE_NAME, error)
            except ImageError as error:
                item.quarantine(error.status, error)
            except OSError as error:
                if error.errno not in _NAME_ERRORS:
                    raise
                item.quarantine(Status.UNWRITABLE, error)
            item.row["write_seconds"] = time.perf_counter() - start
        item.data, item.stored, item.carried = b"", {}, {}
        return item


def _rows(tables: Iterator[pa.Table]) -> Iterator[tuple[dict[str, Any], dict[str, pa.Scalar]]]:
    """Return the rows of tables: our columns, and what the input carried, by its names there."""
    for table in tables:
        names = carried_names(table)
        for index, row in enumerate(table.drop_columns(list(names)).to_pylist()):
            yield row, {name: table[column][index] for column, name in names.items()}
