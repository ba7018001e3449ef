"""Many images of a dataset at a glance: thumbnails, which are made of bitstreams without the synthesis.

Those of kept originals are made of their pixels.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from bls.bitstream import MAX_PIXELS, BitstreamError
from bls.codec import Codec
from bls.pixels import Pixels
from pipeline.ledger.bitstream_rows import Bitstreams, read_stored
from pipeline.ledger.damage import DamagedFileError
from pipeline.ledger.markers import CommittedFile
from pipeline.ledger.schema import ORIGINAL
from pipeline.read.dataset import CompressedDataset
from pipeline.read.selection import stored_keys
from pipeline.report.pictures import preview
from pipeline.work.kept import KeptFile, stored

MAX_IMAGES = 48
SIDE = 192


@dataclass(frozen=True)
class Thumbnail:
    """A row of metrics, and the data URI of its picture."""

    row: dict[str, Any]
    picture: str


def contact_sheet(dataset: CompressedDataset, codec: Codec, rows: Sequence[dict[str, Any]]) -> list[Thumbnail]:
    """Draw the images of some rows of metrics; none where the bundle has no thumbnails.

    A damaged image is left out: `bls-verify` finds those.
    """
    if any(network.thumbnails is None for network in codec.bundle.networks):
        return []
    pictures: dict[str, str] = {}
    for file, places in _places(dataset, rows).items():
        with suppress(DamagedFileError, OSError):
            pictures.update(_draw(Bitstreams.read(dataset.output.folder, file), places, codec))
    return [Thumbnail(row, pictures[row["key"]]) for row in rows if row["key"] in pictures]


def _places(dataset: CompressedDataset, rows: Sequence[dict[str, Any]]) -> dict[CommittedFile, list[int]]:
    """Return the rows of each file of bitstreams that are wanted, ascending."""
    shards, keys = {row["shard"] for row in rows}, {row["key"] for row in rows}
    markers = {marker.shard: marker for marker in dataset.markers if marker.shard in shards}
    places: dict[CommittedFile, list[int]] = defaultdict(list)
    for shard, place, key in stored_keys(dataset.output, list(markers.values())):
        if key in keys:
            places[markers[shard].files["bitstreams"]].append(place)
    return places


def _draw(bitstreams: Bitstreams, places: Sequence[int], codec: Codec) -> Iterator[tuple[str, str]]:
    """Yield the keys and pictures of the images that are whole."""
    for table in read_stored(bitstreams, places, ["key", "bitstream", "icc_profile", *ORIGINAL]):
        for row in table.to_pylist():
            with suppress(BitstreamError):
                yield row["key"], preview(*_small(row, codec), side=SIDE)


def _small(row: Mapping[str, Any], codec: Codec) -> tuple[Pixels, bytes | None]:
    """Return an image at an eighth of its height and width, and its ICC profile."""
    content = stored(row)
    if not isinstance(content, KeptFile):
        return codec.thumbnail(content, scale=8), row["icc_profile"]
    original = content.decode(max_pixels=MAX_PIXELS)
    return np.asarray(Image.fromarray(original.pixels).reduce(8)), original.icc_profile
