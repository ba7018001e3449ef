"""The decoded images of a compressed dataset, file by file; no Ray.

Columns of an image: `key`; `image`, uint8 of (h, w, 3) or, where it was grayscale, (h, w, 1); `width` and `height`; the
carried columns of the input, flat. Where they are asked for: `thumbnail_16` and `thumbnail_8`, the same as `image` with
1/16 and 1/8 of its height and width; `latents`, what the synthesis makes the image of, float32 of (c, hl, wl);
`symbols`, the same as `DecodedSymbols`; and the others of `pipeline.ledger.schema.BITSTREAMS`.

An original that was kept in the place of a bitstream is decoded as the compress job would have: it has all of these
columns but `latents`. Its `symbols` are its `image`.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from bls.bitstream import MAX_PIXELS, BitstreamError, Header, parse_header
from bls.codec import Codec, Latents, Symbols
from bls.ladder import quality_of, quality_text
from bls.pixels import Pixels
from bls.transforms.thumbnails import Scale
from pipeline.images import SourceImage
from pipeline.ledger.bitstream_rows import MADE_COLUMNS, Bitstreams, carried_names, read_stored
from pipeline.ledger.markers import CommittedFile
from pipeline.ledger.schema import BITSTREAMS, CARRIED, ORIGINAL
from pipeline.read.dataset import CompressedDataset
from pipeline.storage.folder import Folder
from pipeline.work.codec import CodecSpec
from pipeline.work.kept import KeptFile, Stored, claimed_pixels, stored

DECODED = ("image", "thumbnail_16", "thumbnail_8", "latents", "symbols")
"""Columns for which the bitstream is decoded."""
_INSIDE = ("exif", "icc_profile", "alpha_png")  # the file of a kept original


@dataclass(frozen=True)
class DecodedSymbols:
    """What the entropy decoder gives, which the synthesis makes an image of."""

    header: Header
    values: Symbols


@dataclass(frozen=True)
class ReadingConfig:
    """How the images of a compressed dataset are read; `columns` None stands for key, image, size and all carried."""

    folder: Folder
    codec: CodecSpec
    columns: tuple[str, ...] | None = None
    skip_corrupt: bool = False


def codec_of(dataset: CompressedDataset, bundle: str | None, **options: Any) -> CodecSpec:
    """Return the codec that decodes a dataset, if a bundle has it; None is the shipped bundle.

    Raises:
        ValueError: it has another network of this quality, or none.
    """
    spec = CodecSpec.of(bundle, dataset.quality, **options)
    expected = dataset.manifest.settings["model_fingerprint"]
    if spec.model_fingerprint != expected:
        what = "the whole" if dataset.quality is None else f"quality {quality_text(dataset.quality)}"
        raise ValueError(
            f"{dataset.output} was compressed with network {expected}, {what} of this bundle is "
            f"{spec.model_fingerprint}: pass the bundle that compressed it"
        )
    return spec


def reading_config(
    dataset: CompressedDataset,
    *,
    columns: Sequence[str] | None,
    bundle: str | None,
    device: str = "cpu",
    max_pixels: int = MAX_PIXELS,
    skip_corrupt: bool = False,
) -> ReadingConfig:
    """Return how the images of a dataset are to be read.

    Raises:
        TypeError: the columns are one string.
        ValueError: another model compressed them.
    """
    if isinstance(columns, str):
        raise TypeError(f"columns is the string {columns!r}, expected a list of names: columns=[{columns!r}]")
    return ReadingConfig(
        folder=dataset.output.folder,
        codec=codec_of(dataset, bundle, device=device, max_pixels=max_pixels),
        columns=None if columns is None else tuple(columns),
        skip_corrupt=skip_corrupt,
    )


@dataclass(frozen=True)
class StoredImage:
    """A row of a file of bitstreams, with those of its columns that are wanted."""

    key: str
    content: Stored
    columns: dict[str, Any]

    @property
    def num_pixels(self) -> int:
        """How many pixels it has; 0 if its header is damaged, which decoding finds."""
        return claimed_pixels(self.content)


@dataclass(frozen=True)
class _Decoded:
    """What is decoded of an image: its header and, if they are wanted, symbols; or its original, which was kept."""

    place: int
    header: Header | None = None
    symbols: Symbols | None = None
    original: SourceImage | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        if self.original is not None:
            height, width = self.original.pixels.shape[:2]
            return height, width
        assert self.header is not None
        return self.header.height, self.header.width

    def inside(self) -> dict[str, bytes | None]:
        """Return the columns that the file of a kept original has inside."""
        return {} if self.original is None else {name: getattr(self.original, name) for name in _INSIDE}


class ImageReader:
    """Read files of bitstreams and decode their images. It holds the codec: make one per process, and keep it."""

    def __init__(self, config: ReadingConfig) -> None:
        self._config = config
        self._wanted = ["image"] if config.columns is None else [name for name in DECODED if name in config.columns]
        self._codec: Codec | None = None
        self._num_skipped = 0

    def read(self, file: CommittedFile, rows: Sequence[int]) -> Iterator[tuple[pa.Table, dict[str, list[Any]]]]:
        """Read rows of a file, a batch at a time: a table, and the columns that are decoded.

        Raises:
            BitstreamError: a bitstream or kept original is damaged, and not to be skipped; it names the image.
            DamagedFileError: the file itself is.
        """
        columns = self._config.columns
        max_pixels = self._config.codec.batch_pixels
        bitstreams = Bitstreams.read(self._config.folder, file)
        for table in read_stored(bitstreams, rows, _stored_columns(columns)):
            contents = [stored(row) for row in table.select(["bitstream", *ORIGINAL]).to_pylist()]
            for start, stop in _spans(contents, max_pixels):
                part = table.slice(start, stop - start)
                decoded = self._decode(part["key"].to_pylist(), contents[start:stop])
                if decoded:
                    yield _project(part, decoded, columns), self._made(decoded)

    def load(self, file: CommittedFile, rows: Sequence[int]) -> list[StoredImage]:
        """Read rows of a file, not decoded.

        Raises:
            DamagedFileError: the file is damaged.
        """
        columns = self._config.columns
        bitstreams = Bitstreams.read(self._config.folder, file)
        images = []
        for table in read_stored(bitstreams, rows, _stored_columns(columns)):
            names = carried_names(table) if columns is None else set(columns).difference(MADE_COLUMNS)
            for row in table.to_pylist():
                wanted = {name: row.get(name) for name in names}
                images.append(StoredImage(row["key"], stored(row), wanted))
        return images

    def load_many(self, places: Sequence[tuple[CommittedFile, int]]) -> list[StoredImage]:
        """Read rows of several files, each file once."""
        rows: defaultdict[CommittedFile, set[int]] = defaultdict(set)
        for file, row in places:
            rows[file].add(row)
        loaded = {
            (file, row): image
            for file, wanted in rows.items()
            for row, image in zip(sorted(wanted), self.load(file, sorted(wanted)), strict=True)
        }
        return [loaded[place] for place in places]

    def batches(self, images: Iterable[StoredImage]) -> Iterator[list[StoredImage]]:
        """Cut a sequence into batches for the device."""
        batch: list[StoredImage] = []
        num_pixels = 0
        for image in images:
            batch.append(image)
            num_pixels += image.num_pixels
            if num_pixels >= self._config.codec.batch_pixels:
                yield batch
                batch, num_pixels = [], 0
        if batch:
            yield batch

    def decode(self, batch: Sequence[StoredImage]) -> list[dict[str, Any] | None]:
        """Decode images: a dictionary of the wanted columns for each; None for a damaged one that is skipped.

        Raises:
            BitstreamError: as `read`.
        """
        samples: list[dict[str, Any] | None] = [None] * len(batch)
        decoded = self._decode([image.key for image in batch], [image.content for image in batch])
        made = self._made(decoded)
        for number, each in enumerate(decoded):
            image, (height, width) = batch[each.place], each.shape
            there = {"key": image.key, "width": width, "height": height, **image.columns}
            there |= {name: value for name, value in each.inside().items() if name in image.columns}
            there |= {name: values[number] for name, values in made.items()}
            samples[each.place] = {name: there[name] for name in in_order(self._config.columns, there)}
        return samples

    def take_num_skipped(self) -> int:
        """Return how many damaged images were skipped since the last call."""
        taken, self._num_skipped = self._num_skipped, 0
        return taken

    def _decode(self, keys: Sequence[str], contents: Sequence[Stored]) -> list[_Decoded]:
        """Decode what is stored of images, as far as it is wanted; those that are damaged are missing."""
        decoded = []
        for place, content in enumerate(contents):
            try:
                decoded.append(self._decode_one(place, content))
            except BitstreamError as error:
                if not self._config.skip_corrupt:
                    raise BitstreamError(f"image {keys[place]} of {self._config.folder}: {error}") from error
                self._num_skipped += 1
        return decoded

    def _decode_one(self, place: int, content: Stored) -> _Decoded:
        if isinstance(content, KeptFile):
            return _Decoded(place, original=content.decode(max_pixels=self._config.codec.max_pixels))
        if not self._wanted:
            return _Decoded(place, parse_header(content))
        return _Decoded(place, *self._load_codec().decode(content))

    def _made(self, decoded: Sequence[_Decoded]) -> dict[str, list[Any]]:
        """Return the wanted columns of DECODED."""
        coded = [(each.header, each.symbols) for each in decoded if each.header and each.symbols is not None]
        made: dict[str, list[Any]] = {}
        for name in self._wanted:
            values = iter(_MAKERS[name](self._load_codec(), coded))
            made[name] = [next(values) if each.original is None else _of_kept(name, each.original) for each in decoded]
        return made

    def _load_codec(self) -> Codec:
        if self._codec is None:
            self._codec = self._config.codec.load()
        return self._codec


def _images(codec: Codec, decoded: Sequence[tuple[Header, Symbols]]) -> list[npt.NDArray[np.uint8]]:
    return _with_channels(codec.synthesize(decoded))


def _thumbnails(
    codec: Codec, decoded: Sequence[tuple[Header, Symbols]], *, scale: Scale
) -> list[npt.NDArray[np.uint8]]:
    return _with_channels(codec.thumbnails(decoded, scale=scale))


def _with_channels(images: Sequence[Pixels]) -> list[npt.NDArray[np.uint8]]:
    return [x if x.ndim == 3 else x[:, :, None] for x in images]


def _latents(codec: Codec, decoded: Sequence[tuple[Header, Symbols]]) -> list[Latents]:
    return [codec.dequantize(values, quality=quality_of(header.quality_index)) for header, values in decoded]


def _symbols(_: Codec, decoded: Sequence[tuple[Header, Symbols]]) -> list[DecodedSymbols]:
    return [DecodedSymbols(header, values) for header, values in decoded]


_MAKERS: dict[str, Callable[[Codec, Sequence[tuple[Header, Symbols]]], list[Any]]] = {
    "image": _images,
    "thumbnail_16": partial(_thumbnails, scale=16),
    "thumbnail_8": partial(_thumbnails, scale=8),
    "latents": _latents,
    "symbols": _symbols,
}
_SHRUNK: dict[str, Scale] = {"thumbnail_16": 16, "thumbnail_8": 8}


def _of_kept(name: str, original: SourceImage) -> npt.NDArray[np.uint8]:
    """Return a column of DECODED for a kept original."""
    if name == "latents":
        raise ValueError("a kept original has no latents: leave it out")
    pixels = original.pixels
    if name in _SHRUNK:
        pixels = np.asarray(Image.fromarray(pixels).reduce(_SHRUNK[name]))
    return _with_channels([pixels])[0]


def in_order(columns: Sequence[str] | None, there: Collection[str]) -> Sequence[str]:
    """Return the wanted columns in their order; None stands for all that are there, the key and the image first."""
    return columns or ["key", "image", *(name for name in there if name not in ("key", "image"))]


def _stored_columns(columns: Sequence[str] | None) -> list[str]:
    """Return the columns of the file that the wanted ones are made of."""
    ours = [name for name in BITSTREAMS.names if name in ("key", "bitstream", *ORIGINAL, *(columns or ()))]
    carries = columns is None or not {*BITSTREAMS.names, *MADE_COLUMNS}.issuperset(columns)
    return [*ours, CARRIED] if carries else ours


def _project(table: pa.Table, decoded: Sequence[_Decoded], columns: Sequence[str] | None) -> pa.Table:
    """Return the wanted columns but those of DECODED; a column that this file does not carry is null."""
    table = table.take(pa.array([each.place for each in decoded]))
    made = {"height": [each.shape[0] for each in decoded], "width": [each.shape[1] for each in decoded]}
    names = ("key", "width", "height", *carried_names(table)) if columns is None else columns
    there = {name: pa.array(values, pa.int32()) for name, values in made.items()}
    there |= {name: table[name] for name in table.column_names}
    for name in set(_INSIDE).intersection(names):
        values = zip(table[name].to_pylist(), decoded, strict=True)
        there[name] = pa.array([each.inside().get(name, value) for value, each in values], pa.binary())
    absent = pa.nulls(len(table), pa.binary())
    return pa.table({name: there.get(name, absent) for name in names if name not in DECODED})


def _spans(contents: Sequence[Stored], max_pixels: int) -> Iterator[tuple[int, int]]:
    """Cut a sequence into spans of about this number of pixels."""
    start = num_pixels = 0
    for stop, content in enumerate(contents, 1):
        num_pixels += claimed_pixels(content)
        if num_pixels >= max_pixels or stop == len(contents):
            yield start, stop
            start, num_pixels = stop, 0
