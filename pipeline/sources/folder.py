"""Images that lie in a folder as files, or in tars or Parquet files there."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipeline.sources.globs import Glob
from pipeline.sources.parquet import ParquetSource
from pipeline.sources.reference import (
    IMAGE_EXTENSIONS,
    Columns,
    ImageReference,
    Sample,
    file_name,
    utf8,
    without_extension,
)
from pipeline.sources.tar import TarSource
from pipeline.sources.unique_keys import Hashes, hashes_of, repeated_hashes
from pipeline.storage.folder import Folder

_ALL = Glob(("**",))
_CHUNK_NUM_NAMES = 10_000  # of a folder that are strings at once
_ArchiveSource = TarSource | ParquetSource


def open_archives(
    folder: Folder,
    names: Sequence[str],
    columns: Columns,
    *,
    uri: str | None = None,
    left_out: Mapping[str, int] | None = None,
) -> "_ArchiveSource":
    if names[0].lower().endswith(".tar"):
        return TarSource(folder, names, image=columns.image, uri=uri, left_out=left_out)
    return ParquetSource(folder, names, columns, uri=uri, left_out=left_out)


class FolderSource:
    """All files below a folder whose names have an image extension; files and folders whose names begin with a dot
    are left out. Where no file has one, the samples of the tars in it, or else the rows of the Parquet files."""

    def __init__(self, folder: Folder, columns: Columns, glob: Glob = _ALL, *, uri: str | None = None) -> None:
        self._folder = folder
        self._columns = columns
        self._glob = glob
        self._uri = uri or str(folder)
        self._archives: _ArchiveSource | None = None
        self._left_out: Counter[str] = Counter()

    def __str__(self) -> str:
        return self._uri

    @property
    def skipped(self) -> Counter[str]:
        """What the last listing left out, by reason."""
        return self._left_out + (self._archives.skipped if self._archives else Counter())

    @property
    def carried(self) -> pa.DataType | None:
        """The type of the values that the last listing found beside each image."""
        return self._archives.carried if self._archives else None

    def references(self) -> Iterator[ImageReference]:
        """List the images folder by folder, sorted in each.

        Raises:
            ValueError: there are files of images, and a column is wanted.
        """
        self._left_out, self._archives = Counter(), None
        archives: dict[str, list[str]] = {".tar": [], ".parquet": []}
        num_images = 0
        for names in self._folder.walk(self._glob.enters, self._leave_out):
            repeated = self._repeated_stems(names)
            for chunk in _chunks(names):
                images = [name for name in chunk if self._is_image(name, archives)]
                if images and self._columns != Columns():
                    raise ValueError(
                        f"input {self} has files of images: --image-column and --key-column are for tables"
                    )
                num_images += len(images)
                yield from self._references(images, repeated)
        if num_images == 0 and any(archives.values()):
            kind = ".tar" if archives[".tar"] else ".parquet"
            del self._left_out[kind]
            self._archives = open_archives(self._folder, archives[kind], self._columns, uri=self._uri)
            yield from self._archives.references()

    def read(self, reference: ImageReference) -> bytes:
        """Read the encoded bytes of an image."""
        if reference.file is None:
            return self._folder.read(file_name(reference.key))
        return self.read_sample(reference).data

    def read_sample(self, reference: ImageReference) -> Sample:
        """Read an image with what is carried beside it."""
        if reference.file is None:
            return Sample(self.read(reference))
        if self._archives is None:  # in a worker nothing was listed
            self._archives = open_archives(self._folder, [file_name(reference.file)], self._columns, uri=self._uri)
        return self._archives.read_sample(reference)

    def _references(self, names: Sequence[str], repeated: Hashes) -> Iterator[ImageReference]:
        stems = list(map(without_extension, names))
        for name, stem, is_repeated in zip(names, stems, _are_in(stems, repeated), strict=True):
            yield ImageReference(
                key=utf8(name), source_uri=utf8(f"{self._folder}/{name}"), stem=utf8(name if is_repeated else stem)
            )

    def _repeated_stems(self, names: Sequence[str]) -> Hashes:
        """Return hashes of the stems of a folder that two images have, or that are the name of another, sorted."""
        hashes = [np.empty(0, np.int64)]
        for chunk in _chunks(names):
            images = [name for name in chunk if self._classify(name) in IMAGE_EXTENSIONS]
            hashes += [hashes_of(images), hashes_of(list(map(without_extension, images)))]
        return repeated_hashes(hashes)

    def _is_image(self, name: str, archives: dict[str, list[str]]) -> bool:
        kind = self._classify(name)
        if kind in IMAGE_EXTENSIONS:
            return True
        if kind is not None:
            self._left_out[kind] += 1
        if kind in archives:
            archives[kind].append(name)
        return False

    def _leave_out(self, name: str, reason: str) -> None:
        """Count what is not a file, where it would have been looked at."""
        if self._classify(name) is not None:
            self._left_out[reason] += 1

    def _classify(self, name: str) -> str | None:
        """Return the extension of a file, or why there is none that counts; None where the glob does not match."""
        if self._glob is not _ALL and not self._glob.matches(name):
            return None
        if name.startswith(".") or "/." in name:
            return "hidden"
        return name[len(without_extension(name)) :].lower() or "no extension"


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _CHUNK_NUM_NAMES):
        yield names[start : start + _CHUNK_NUM_NAMES]


def _are_in(texts: Sequence[str], hashes: Hashes) -> list[bool]:
    """Return for each text whether its hash is among the sorted ones."""
    wanted = hashes_of(texts)
    if len(hashes) == 0:
        return [False] * len(texts)
    places = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
    return [bool(found) for found in hashes[places] == wanted]
