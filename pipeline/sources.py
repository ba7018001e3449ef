"""Where images come from: references to them, in a stable order, and their bytes.

What `open_source` takes for what, in this order; a folder of that name wins over stars, braces and endings:

    photos/                    files with the name of an image; if there are none, the tars or Parquet files in it
    photos/**/*.jpg            files that match, and files in folders that match
    {000..099}.tar, *.tar      WebDataset tars (pipeline/tar_source.py)
    data.parquet, *.parquet    Parquet files with a column of images, or of their URIs (pipeline/parquet_source.py)
    uris.txt                   a list of URIs (pipeline/list_source.py)
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from pipeline.globs import Glob, expand_braces, has_magic, split_magic
from pipeline.key_hashes import Hashes, hashes_of, repeated_hashes
from pipeline.list_source import ListSource
from pipeline.parquet_source import ParquetSource
from pipeline.references import IMAGE_EXTENSIONS, Columns, ImageReference, Sample, Source, utf8, without_extension
from pipeline.storage import Folder, absolute, open_folder, overlaps, redact
from pipeline.tar_source import TarSource

__all__ = [
    "IMAGE_EXTENSIONS",
    "Columns",
    "ImageReference",
    "Sample",
    "Source",
    "check_apart",
    "open_source",
    "open_sources",
]

_ALL = Glob(("**",))
_CHUNK_NUM_NAMES = 10_000  # of a folder that are strings at once

_ArchiveSource = TarSource | ParquetSource


def open_sources(uris: Sequence[str], columns: Columns | None = None) -> Source:
    """Return the source of all images of several URIs.

    Raises:
        ValueError: as `open_source`.
    """
    sources = [open_source(uri, columns) for uri in uris]
    return sources[0] if len(sources) == 1 else UnionSource(sources)


def open_source(uri: str, columns: Columns | None = None) -> Source:
    """Return the source that a URI names; nothing is listed yet.

    Raises:
        ValueError: the URI names nothing that can be read as a set of images.
    """
    uri, columns = absolute(uri).rstrip("/") or "/", columns or Columns()
    folder = open_folder(uri)
    if folder.exists():
        return FolderSource(folder, columns)
    if has_magic(uri):
        return _open_glob(uri, columns)
    above, _, name = uri.rpartition("/")
    if PurePosixPath(name).suffix.lower() in (".tar", ".parquet", ".txt"):
        folder = open_folder(above or "/")
        if folder.holds(name):
            return (
                ListSource(folder, name) if name.lower().endswith(".txt") else _open_archives(folder, [name], columns)
            )
    raise ValueError(
        f"input {redact(uri)} is not there, or nothing that holds images: expected a folder of images, a pattern with "
        "stars, a .tar or .parquet file, or a list of URIs in a .txt file"
    )


def check_apart(output: str, *inputs: str) -> None:
    """Refuse an output that overlaps an input: a job would take its own files for images, or put them among them.

    Raises:
        ValueError: names both.
    """
    for uri in map(absolute, inputs):
        folder, pattern = (uri, None) if open_folder(uri).exists() or not has_magic(uri) else split_magic(uri)
        if not overlaps(folder, output) or (pattern is not None and _is_beside(folder, pattern, output)):
            continue
        raise ValueError(
            f"output {redact(output)} overlaps the input {redact(uri)}: "
            "use an --output that is neither inside of the input nor around it"
        )


def _is_beside(folder: str, pattern: str, output: str) -> bool:
    """Return whether an output below the folder of a pattern is a place where the pattern looks for nothing."""
    above, below = absolute(folder).rstrip("/") + "/", absolute(output).rstrip("/")
    return below.startswith(above) and not Glob(list(expand_braces(pattern))).enters(below.removeprefix(above))


def _open_glob(uri: str, columns: Columns) -> Source:
    base, pattern = split_magic(uri)
    folder = open_folder(base)
    if not folder.exists():
        raise ValueError(f"input {redact(uri)} has no folder {folder}: expected a pattern below a folder that is there")
    patterns = list(expand_braces(pattern))
    endings = {PurePosixPath(each).suffix.lower() for each in patterns}
    if endings not in ({".tar"}, {".parquet"}):
        return FolderSource(folder, columns, Glob(patterns), uri=redact(uri))
    if any("*" in each for each in patterns):
        glob = Glob(patterns)
        names = [name for each in folder.walk(glob.enters) for name in each if _has_ending(name, endings, glob)]
        if not names:
            raise ValueError(f"input {redact(uri)} matches no file: expected {endings.pop()} files below {folder}")
        return _open_archives(folder, names, columns, uri=redact(uri))
    return _open_archives(folder, patterns, columns, uri=redact(uri))


def _has_ending(name: str, endings: set[str], glob: Glob) -> bool:
    return PurePosixPath(name).suffix.lower() in endings and glob.matches(name)


def _open_archives(
    folder: Folder, names: Sequence[str], columns: Columns, *, uri: str | None = None
) -> "_ArchiveSource":
    if names[0].lower().endswith(".tar"):
        return TarSource(folder, names, uri=uri)
    return ParquetSource(folder, names, columns, uri=uri)


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
        """The type of what the last listing found beside each image."""
        return self._archives.carried if self._archives else None

    def references(self) -> Iterator[ImageReference]:
        """List the images folder by folder, sorted in each."""
        self._left_out, self._archives = Counter(), None
        archives: dict[str, list[str]] = {".tar": [], ".parquet": []}
        num_images = 0
        for names in self._folder.walk(self._glob.enters):
            repeated = self._repeated_stems(names)
            for chunk in _chunks(names):
                images = [name for name in chunk if self._is_image(name, archives)]
                num_images += len(images)
                yield from self._references(images, repeated)
        if num_images == 0 and any(archives.values()):
            kind = ".tar" if archives[".tar"] else ".parquet"
            del self._left_out[kind]
            self._archives = _open_archives(self._folder, archives[kind], self._columns, uri=self._uri)
            yield from self._archives.references()

    def read(self, reference: ImageReference) -> bytes:
        """Read the encoded bytes of an image."""
        return self._folder.read(reference.key) if reference.file is None else self.read_sample(reference).data

    def read_sample(self, reference: ImageReference) -> Sample:
        """Read an image with what is carried beside it."""
        if reference.file is None:
            return Sample(self.read(reference))
        if self._archives is None:  # in a worker nothing was listed
            self._archives = _open_archives(self._folder, [reference.file], self._columns, uri=self._uri)
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

    def _classify(self, name: str) -> str | None:
        """Return the extension of a file, or why there is none that counts; None where the glob does not match."""
        if self._glob is not _ALL and not self._glob.matches(name):
            return None
        if name.startswith(".") or "/." in name:
            return "hidden"
        return name[len(without_extension(name)) :].lower() or "no extension"


class UnionSource:
    """The images of several sources one after another; keys begin with the number of the source."""

    carried: pa.DataType | None = None  # the sources would have to agree

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def __str__(self) -> str:
        return ", ".join(map(str, self._sources))

    @property
    def skipped(self) -> Counter[str]:
        """What the last listings left out, by reason."""
        return sum((source.skipped for source in self._sources), Counter())

    def references(self) -> Iterator[ImageReference]:
        """List the images, always in the same order."""
        for number, source in enumerate(self._sources):
            for reference in source.references():
                yield replace(reference, key=f"{number}/{reference.key}", stem=f"{number}/{reference.stem}")

    def read(self, reference: ImageReference) -> bytes:
        """Read the encoded bytes of an image."""
        number, _, key = reference.key.partition("/")
        return self._sources[int(number)].read(replace(reference, key=key, stem=reference.stem.partition("/")[2]))

    def read_sample(self, reference: ImageReference) -> Sample:
        """Read an image alone."""
        return Sample(self.read(reference))


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _CHUNK_NUM_NAMES):
        yield names[start : start + _CHUNK_NUM_NAMES]


def _are_in(texts: Sequence[str], hashes: Hashes) -> list[bool]:
    """Tell for each text whether its hash is among those sorted."""
    wanted = hashes_of(texts)
    if len(hashes) == 0:
        return [False] * len(texts)
    places = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
    return [bool(found) for found in hashes[places] == wanted]
