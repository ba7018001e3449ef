"""Recode a shard of a compressed dataset: every bitstream to its symbols, and these by another entropy coder.

Nothing is transformed, so the images stay as they are to the last bit. What is stored beside a bitstream is copied, and
so are originals that were kept in the place of one.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bls.entropy.coders import coder_of
from bls.measures.images import bpp
from bls.targets import Target
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import METRICS, ORIGINAL, SOURCE_SIZES, STORED_SIZES
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary
from pipeline.recode.stored import StoredShard
from pipeline.status import Status
from pipeline.work.codec import (
    CodecSpec,
    WorkerCrashError,
    configure_process,
    decode_again,
    num_pixels,
    try_out,
)
from pipeline.work.commit import Results, commit_once
from pipeline.work.kept import KeptFile, Stored, stored
from pipeline.work.stages import Item
from pipeline.work.threads import WorkerThreads

JOB = "recode"
# Columns of an image whose bitstream cannot be recoded: the copy has none.
_NONE_OF_A_BITSTREAM = dict.fromkeys(
    ("num_bytes", "bpp", "estimated_bpp", "mse_255", "psnr_db", "ms_ssim", "target_met", "verified")
)


@dataclass(frozen=True)
class RecodingConfig:
    """What a worker needs to recode shards: the codec with the coder of the input, and the coder of the output."""

    input: str
    output: str
    codec: CodecSpec
    coder: str
    num_threads: int = 1


@dataclass(frozen=True)
class CommittedImage:
    """An image of a committed shard, good or quarantined: a row of its metrics."""

    marker: Marker
    row: int


@dataclass
class _StoredItem(Item):
    """An image being recoded."""

    stored: Stored = b""

    @property
    def bitstream(self) -> bytes | None:
        """Return what was coded; None if the original was kept."""
        return None if isinstance(self.stored, KeptFile) else self.stored


class ShardRecoder:
    """Recode shards of a compressed dataset with the bundle that compressed it."""

    def __init__(self, config: RecodingConfig) -> None:
        configure_process(config.num_threads)
        self._codec = config.codec.load_and_try()
        quality = config.codec.quality or self._codec.quality_range[0]
        try_out(self._codec, quality=quality, coder=config.coder)
        self._coder = config.coder
        self._input, self._output = Output(config.input), Output(config.output)
        self._threads = WorkerThreads(config.num_threads)

    def run(self, shard: Shard, *, crashed: Collection[int] = ()) -> Marker:
        """Recode a shard and commit it; return the marker that stands, which may be another run's.

        `crashed` are the positions of the items that killed workers before: they are quarantined unseen.
        """
        committed = self._read(shard)
        metadata = {**committed.metadata, "job": JOB, "coder": self._coder}

        def recode() -> Results:
            items = self._process(committed, shard, crashed)
            rows = [item.row for item in items]
            bitstreams = {item.row["key"]: item.bitstream for item in items if item.ok}
            return Results(
                rows,
                Summary.of_rows(rows, bytes_in=SOURCE_SIZES, bytes_out=STORED_SIZES),
                {"bitstreams": committed.with_bitstreams(bitstreams, metadata=metadata)},
            )

        return commit_once(self._output, shard, recode, schema=METRICS, metadata=metadata)

    def probe(self, shard: Shard) -> None:
        """Do the work of a shard but write nothing, to see whether the process survives it."""
        self._process(self._read(shard), shard, ())

    def _read(self, shard: Shard) -> StoredShard:
        return StoredShard.read(self._input, shard.items[0].marker)

    def _process(self, committed: StoredShard, shard: Shard, crashed: Collection[int]) -> list[_StoredItem]:
        return list(self._threads.map_pixels(self._recode, self._begin(committed, shard, crashed), cost=num_pixels))

    def _begin(self, committed: StoredShard, shard: Shard, crashed: Collection[int]) -> Iterator[_StoredItem]:
        columns = committed.bitstreams.select(["key", "bitstream", *ORIGINAL]).to_pylist()
        contents = {row["key"]: stored(row) for row in columns}
        rows = committed.metrics.to_pylist()
        for position, image in enumerate(shard.items):
            row = {name: value for name, value in rows[image.row].items() if not name.endswith("_seconds")}
            coder = row["coder"] if row["status"] == Status.KEPT else self._coder
            item = _StoredItem(position, {**row, "coder": coder}, contents.get(row["key"], b""))
            if position in crashed:
                item.quarantine(Status.CRASHED, WorkerCrashError())
                item.row.update(_NONE_OF_A_BITSTREAM)
            yield item

    def _recode(self, item: _StoredItem) -> _StoredItem:
        if item.ok:
            with item.stage():
                if isinstance(item.stored, KeptFile):
                    item.stored.check()
                else:
                    item.stored = self._coded(item, item.stored)
                    item.row.update(_sizes(item.row, len(item.stored)))
            if not item.ok:
                item.row.update(_NONE_OF_A_BITSTREAM)
        return item

    def _coded(self, item: _StoredItem, bitstream: bytes) -> bytes:
        with item.timed("entropy_decode_seconds"):
            header, symbols = self._codec.decode(bitstream)
        header = replace(header, coder=coder_of(self._coder))
        with item.timed("entropy_encode_seconds"):
            bitstream = self._codec.encode(symbols, header=header)
        with item.timed("entropy_decode_seconds"):
            decode_again(self._codec, bitstream, header=header, symbols=symbols)
        return bitstream


def _sizes(row: Mapping[str, Any], num_bytes: int) -> dict[str, Any]:
    """Return the columns that change with the size of a bitstream."""
    sizes = {"num_bytes": num_bytes, "bpp": bpp(num_bytes, height=row["height"], width=row["width"])}
    target = row["target"] and Target.parse(row["target"])
    return {**sizes, "target_met": sizes[target.kind] <= target.value} if target and target.is_size else sizes
