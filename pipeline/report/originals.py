"""Images of a compressed dataset beside their originals: decoded from the bitstream, and read again from the source."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from bls.bitstream import MAX_PIXELS, BitstreamError
from bls.measures import images as measures
from pipeline import images
from pipeline.baselines import Pixels
from pipeline.images import ImageError
from pipeline.ledger.damage import parse_table, read_named
from pipeline.ledger.plan import planned_shards
from pipeline.ledger.schema import METRICS
from pipeline.read.dataset import CompressedDataset
from pipeline.read.images import ImageReader
from pipeline.sources.opening import open_source
from pipeline.sources.reading import read_encoded
from pipeline.sources.reference import Columns, ImageReference, Source
from pipeline.status import Status
from pipeline.storage.secrets import redact

_MSE_TOLERANCE = 0.05  # relative: machines differ in the last bits of floating point, and so in some samples


@dataclass(frozen=True)
class Pair:
    """An image decoded, and its original if that can still be read; `trouble` says why there is only one or none."""

    x_hat: Pixels | None
    x: Pixels | None
    icc_profile: bytes | None = None
    trouble: str = ""


class Originals:
    """Reads the originals of a dataset: from where the job read them, or from another place that they were moved to."""

    def __init__(self, dataset: CompressedDataset, *, uri: str | None) -> None:
        settings = dataset.manifest.settings
        self._dataset = dataset
        self._max_pixels = MAX_PIXELS
        self._references: dict[str, ImageReference] = {}
        self._source: Source | None = None
        self._trouble = ""
        try:
            self._max_pixels = settings["max_pixels"]
            columns = Columns(settings["image_column"], settings["key_column"])
            self._source = open_source(uri or settings["input"], columns)
        except Exception as error:  # the report says so and goes on: file systems raise more than OSError
            self._trouble = redact(str(error))

    def look_up(self, rows: Sequence[dict[str, Any]]) -> None:
        """Find the references of images in the plan, in one pass over it."""
        keys = {row["key"] for row in rows}
        others = set(range(self._dataset.manifest.num_shards)) - {row["shard"] for row in rows}
        for shard in planned_shards(self._dataset.output, self._dataset.manifest, skip=others):
            self._references |= {item.key: item for item in shard.items if item.key in keys}

    def read(self, key: str) -> Pixels:
        """Read an original again.

        Raises:
            ImageError: it cannot be read.
        """
        if self._source is None:
            raise ImageError(Status.UNREADABLE, self._trouble)
        if key not in self._references:
            raise ImageError(Status.UNREADABLE, "the plan of the job does not have it")
        data = read_encoded(self._source, self._references[key])
        return images.decode(data, max_pixels=self._max_pixels).pixels


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
        output, name = self._dataset.output, files["metrics"]
        data = read_named(output.folder, name)
        table = parse_table(data, METRICS, folder=output, name=name, columns=["key", "status"])
        stored = [
            key
            for key, status in zip(*map(pa.ChunkedArray.to_pylist, table.columns), strict=True)
            if status == Status.OK
        ]
        for columns, decoded in self._reader.read(files["bitstreams"], [stored.index(row["key"])]):
            x_hat = decoded[0]
            profile = columns["icc_profile"][0].as_py()
            return Pair(x_hat[:, :, 0] if x_hat.shape[2] == 1 else x_hat, None, profile)
        raise ValueError("its row is missing")


def _differ(mse_255: float, stored: float) -> bool:
    return abs(mse_255 - stored) > _MSE_TOLERANCE * stored + 0.01
