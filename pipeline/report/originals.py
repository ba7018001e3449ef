"""Images of a compressed dataset beside their originals: decoded from the bitstream, and read again from the source."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from bls.bitstream import MAX_PIXELS, BitstreamError
from bls.measures import images as measures
from bls.pixels import Pixels
from pipeline import images
from pipeline.images import ImageError
from pipeline.ledger.damage import read_table
from pipeline.ledger.plan import planned_shards
from pipeline.ledger.schema import METRICS
from pipeline.read.dataset import CompressedDataset
from pipeline.read.images import ImageReader
from pipeline.sources.opening import open_source
from pipeline.sources.reading import read_encoded
from pipeline.sources.reference import Columns, ImageReference, Source
from pipeline.status import GOOD, Status
from pipeline.storage.secrets import redact

MAX_SECONDS = 60.0
_MSE_TOLERANCE = 0.05  # relative: machines differ in the last bits of floating point, and so in some samples


_T = TypeVar("_T")


@dataclass(frozen=True)
class Pair:
    """An image decoded, and its original if that can still be read; `trouble` says why there is only one or none."""

    x_hat: Pixels | None
    x: Pixels | None
    icc_profile: bytes | None = None
    trouble: str = ""


class Originals:
    """Reads the originals of a dataset: from where the job read them, or from another place that they were moved to.

    All are asked for at once, and none is waited for after `seconds`: a server that is gone answers none of them.
    """

    def __init__(self, dataset: CompressedDataset, *, uri: str | None, seconds: float = MAX_SECONDS) -> None:
        self._dataset = dataset
        self._uri = uri
        self._seconds = seconds
        self._files: dict[str, Future[bytes]] = {}
        self._deadline = 0.0

    def fetch(self, rows: Sequence[dict[str, Any]]) -> None:
        """Begin to read the originals of images, whose references are looked up in one pass over the plan."""
        keys = {row["key"] for row in rows}
        others = set(range(self._dataset.manifest.num_shards)) - {row["shard"] for row in rows}
        shards = planned_shards(self._dataset.output, self._dataset.manifest, skip=others)
        references = [item for shard in shards for item in shard.items if item.key in keys]
        self._deadline = time.monotonic() + self._seconds
        source = _in_background(self._open)
        for each in references:
            self._files[each.key] = _in_background(partial(_read, source, each))

    def read(self, key: str) -> Pixels:
        """Return the pixels of an original.

        Raises:
            ImageError: it cannot be read, or did not come in time.
        """
        if key not in self._files:
            raise ImageError(Status.UNREADABLE, "the plan of the job does not have it")
        try:
            data = self._files[key].result(max(0.0, self._deadline - time.monotonic()))
        except TimeoutError as error:
            raise ImageError(Status.UNREADABLE, f"it did not come within {self._seconds:g} s") from error
        except ImageError:
            raise
        except Exception as error:  # of the source as a whole: file systems raise more than OSError
            raise ImageError(Status.UNREADABLE, str(error)) from error
        return images.decode(data, max_pixels=self._dataset.manifest.settings.get("max_pixels", MAX_PIXELS)).pixels

    @property
    def num_missing(self) -> int:
        """Return how many originals have not come, or cannot be read."""
        return sum(not file.done() or file.exception() is not None for file in self._files.values())

    def _open(self) -> Source:
        settings = self._dataset.manifest.settings
        columns = Columns(settings["image_column"], settings["key_column"])
        return open_source(self._uri or settings["input"], columns)


def _read(source: Future[Source], reference: ImageReference) -> bytes:
    return read_encoded(source.result(), reference)


def _in_background(function: Callable[[], _T]) -> "Future[_T]":
    """Run a function in a thread that the process does not wait for at its end."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class Pairs:
    """Makes pairs of images, one at a time."""

    def __init__(self, dataset: CompressedDataset, reader: ImageReader, originals: Originals) -> None:
        self._dataset = dataset
        self._reader = reader
        self._originals = originals
        self._markers = {marker.shard: marker for marker in dataset.markers}

    def pair(self, row: dict[str, Any]) -> Pair:
        """Decode the image of a row of metrics, and read its original."""
        try:
            pair = self._decoded(row)
        except (BitstreamError, OSError, ValueError) as error:
            return Pair(None, None, trouble=f"The bitstream cannot be decoded: {redact(str(error))}")
        assert pair.x_hat is not None
        try:
            x = self._originals.read(row["key"])
        except ImageError as error:
            return replace(pair, trouble=f"The original cannot be read any more: {redact(str(error))}")
        if x.shape != pair.x_hat.shape or _differ(measures.mse_255(x, pair.x_hat), row["mse_255"]):
            return replace(pair, trouble="What is now in the original's place is another image than was compressed.")
        return replace(pair, x=x)

    def _decoded(self, row: dict[str, Any]) -> Pair:
        files = self._markers[row["shard"]].files
        folder = self._dataset.output.folder
        table = read_table(folder, files["metrics"], METRICS, columns=["key", "status"])
        stored = [
            key for key, status in zip(*map(pa.ChunkedArray.to_pylist, table.columns), strict=True) if status in GOOD
        ]
        for columns, decoded in self._reader.read(files["bitstreams"], [stored.index(row["key"])]):
            (x_hat,) = decoded["image"]
            profile = columns["icc_profile"][0].as_py()
            return Pair(x_hat[:, :, 0] if x_hat.shape[2] == 1 else x_hat, None, profile)
        raise ValueError("its row is missing")


def _differ(mse_255: float, stored: float) -> bool:
    return abs(mse_255 - stored) > _MSE_TOLERANCE * stored + 0.01
