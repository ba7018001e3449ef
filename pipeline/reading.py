"""A compressed dataset as its readers see it: the files that markers name, and their images decoded; no Ray.

Columns of an image: `key`; `image`, uint8 of (h, w, 3) or, where it was grayscale, (h, w, 1); `width` and `height`; the
carried columns of the input, flat; and, where they are asked for, the other columns of `pipeline.schema.BITSTREAMS`.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bls.bitstream import BitstreamError, Header, parse_header
from bls.codec import MAX_PIXELS, Codec, Symbols
from pipeline.bundles import load_model
from pipeline.output import Output
from pipeline.schema import BITSTREAMS, CARRIED, SCHEMA_VERSION
from pipeline.selection import Selection, select
from pipeline.storage import Folder, absolute
from pipeline.stored_rows import MADE_COLUMNS, carried_names, read_stored, unlike_ours
from pipeline.worker import BATCH_PIXELS, load_codec


@dataclass(frozen=True)
class StoredFile:
    """Rows of a committed file of bitstreams, in order."""

    shard: int
    name: str
    rows: Sequence[int]


class CompressedDataset:
    """The committed part of a compress job's output.

    Raises:
        ValueError: there is no compressed dataset at the URI, or another release wrote it.
    """

    def __init__(self, uri: str) -> None:
        self.output = Output(uri)
        manifest = self.output.manifest()
        if manifest is None or manifest.job != "compress":
            raise ValueError(
                f"input {self.output} is no compressed dataset: expected the --output of jobs/compress_dataset.py"
            )
        if manifest.settings["schema_version"] != SCHEMA_VERSION:
            raise ValueError(
                f"{self.output} has schema {manifest.settings['schema_version']}, this release reads {SCHEMA_VERSION}: "
                "use the release that wrote it"
            )
        self.manifest = manifest
        self.markers = self.output.markers()

    @property
    def quality(self) -> int:
        """The quality it was compressed with."""
        quality: int = self.manifest.settings["quality"]
        return quality

    def check_bundle(self, bundle: str | None) -> str:
        """Return the fingerprint of the model that compressed this, if a bundle has it; None is the shipped bundle.

        Raises:
            ValueError: it has another of this quality, or none.
        """
        fingerprint = load_model(bundle, self.quality).fingerprint.hex()
        if fingerprint != self.manifest.settings["model_fingerprint"]:
            raise ValueError(
                f"{self.output} was compressed with model {self.manifest.settings['model_fingerprint']}, quality "
                f"{self.quality} of this bundle is {fingerprint}: pass the bundle that compressed it"
            )
        return fingerprint

    def select(self, *, keys: Collection[str] | None = None, where: str | None = None) -> Selection:
        """Select images, as `pipeline.selection.select`."""
        return select(self.output, self.markers, keys=keys, where=where)

    def files(self, selection: Selection) -> list[StoredFile]:
        """Return where the images of a selection are."""
        return [
            StoredFile(marker.shard, marker.files["bitstreams"], selection.rows[marker.shard])
            for marker in self.markers
            if marker.shard in selection.rows
        ]

    def reading(
        self,
        *,
        columns: Sequence[str] | None,
        bundle: str | None,
        device: str = "cpu",
        max_pixels: int = MAX_PIXELS,
        skip_corrupt: bool = False,
    ) -> "ReadingConfig":
        """Return how its images are to be read.

        Raises:
            ValueError: another model compressed them.
        """
        return ReadingConfig(
            folder=self.output.folder,
            quality=self.quality,
            model_fingerprint=self.check_bundle(bundle),
            columns=None if columns is None else tuple(columns),
            bundle=bundle and absolute(bundle),
            device=device,
            max_pixels=max_pixels,
            skip_corrupt=skip_corrupt,
        )

    def check_columns(self, columns: Sequence[str] | None, files: Sequence[StoredFile]) -> None:
        """Refuse columns that no image has; what WebDataset members are carried differs from file to file.

        Raises:
            ValueError: names those there are.
        """
        if columns is None or not files:
            return
        schema = pq.read_schema(pa.BufferReader(self.output.folder.read(files[0].name)))
        carried = schema.field(CARRIED).type if CARRIED in schema.names else pa.struct([])
        if pa.types.is_map(carried):
            return
        there = [*BITSTREAMS.names, *MADE_COLUMNS, *unlike_ours([member.name for member in carried])]
        if unknown := [name for name in columns if name not in there]:
            raise ValueError(f"{self.output} has no column {', '.join(unknown)}: expected some of {', '.join(there)}")


@dataclass(frozen=True)
class ReadingConfig:
    """How the images of a compressed dataset are read; `columns` None stands for key, image, size and all carried."""

    folder: Folder
    quality: int
    model_fingerprint: str
    columns: tuple[str, ...] | None = None
    bundle: str | None = None
    device: str = "cpu"
    max_pixels: int = MAX_PIXELS
    skip_corrupt: bool = False


class ImageReader:
    """Read files of bitstreams and decode their images. It holds the codec: make one per process, and keep it."""

    def __init__(self, config: ReadingConfig) -> None:
        self._config = config
        self._codec: Codec | None = None
        self._num_skipped = 0

    def read(self, name: str, rows: Sequence[int]) -> Iterator[tuple[pa.Table, list[npt.NDArray[np.uint8]]]]:
        """Read rows of a file, a batch at a time: a table of all columns but `image`, and the images, if wanted.

        Raises:
            BitstreamError: a bitstream is damaged, and not to be skipped; it names the image.
        """
        columns = self._config.columns
        wants_image = columns is None or "image" in columns
        max_pixels = BATCH_PIXELS[self._config.device.partition(":")[0]]
        data = self._config.folder.read(name)
        for table in read_stored(data, rows, _stored_columns(columns)):
            for start, stop in _spans(table["bitstream"].to_pylist(), max_pixels):
                part = table.slice(start, stop - start)
                good, headers, images = self._decode(part, wants_image)
                if good:
                    yield _project(part.take(pa.array(good)), headers, columns), images

    def take_num_skipped(self) -> int:
        """Return how many damaged bitstreams were skipped since the last call."""
        taken, self._num_skipped = self._num_skipped, 0
        return taken

    def _decode(
        self, table: pa.Table, wants_image: bool
    ) -> tuple[list[int], list[Header], list[npt.NDArray[np.uint8]]]:
        """Decode the rows of a table: the numbers of those that are whole, their headers, their images if wanted."""
        codec = self._load_codec() if wants_image else None
        good: list[int] = []
        headers: list[Header] = []
        symbols: list[Symbols] = []
        for row, bitstream in enumerate(table["bitstream"].to_pylist()):
            try:
                if codec is None:
                    headers.append(parse_header(bitstream))
                else:
                    header, decoded = codec.decode(bitstream)
                    headers.append(header)
                    symbols.append(decoded)
            except BitstreamError as error:
                if not self._config.skip_corrupt:
                    raise BitstreamError(f"image {table['key'][row]} of {self._config.folder}: {error}") from error
                self._num_skipped += 1
            else:
                good.append(row)
        images = codec.synthesize(list(zip(headers, symbols, strict=True))) if codec is not None else []
        return good, headers, [x if x.ndim == 3 else x[:, :, None] for x in images]

    def _load_codec(self) -> Codec:
        if self._codec is None:
            self._codec = load_codec(self._config)
        return self._codec


def in_order(columns: Sequence[str] | None, there: Collection[str]) -> Sequence[str]:
    """Return the wanted columns in their order; None stands for all that are there, the key and the image first."""
    return columns or ["key", "image", *(name for name in there if name not in ("key", "image"))]


def _stored_columns(columns: Sequence[str] | None) -> list[str]:
    """Return the columns of the file that the wanted ones are made of."""
    ours = [name for name in BITSTREAMS.names if name in ("key", "bitstream", *(columns or ()))]
    carries = columns is None or not {*BITSTREAMS.names, *MADE_COLUMNS}.issuperset(columns)
    return [*ours, CARRIED] if carries else ours


def _project(table: pa.Table, headers: Sequence[Header], columns: Sequence[str] | None) -> pa.Table:
    """Return the wanted columns but `image`; a column that this file does not carry is null."""
    made = {"width": [header.width for header in headers], "height": [header.height for header in headers]}
    names = ("key", "width", "height", *carried_names(table)) if columns is None else columns
    there = {name: pa.array(values, pa.int32()) for name, values in made.items()}
    there |= {name: table[name] for name in table.column_names}
    absent = pa.nulls(len(table), pa.binary())
    return pa.table({name: there.get(name, absent) for name in names if name != "image"})


def _spans(bitstreams: Sequence[bytes], max_pixels: int) -> Iterator[tuple[int, int]]:
    """Cut a sequence where so many pixels are passed."""
    start = num_pixels = 0
    for stop, bitstream in enumerate(bitstreams, 1):
        with contextlib.suppress(BitstreamError):  # which decoding will tell
            header = parse_header(bitstream)
            num_pixels += header.width * header.height
        if num_pixels >= max_pixels or stop == len(bitstreams):
            yield start, stop
            start, num_pixels = stop, 0
