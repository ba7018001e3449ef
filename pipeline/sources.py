"""Where images come from: references to them, in a stable order, and their bytes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Protocol

from pipeline.storage import open_folder

# A file with one of these names is an input: it is compressed or it gets a row that says why not. HEIC is here although
# Pillow cannot read it without a plugin: a photograph must not vanish in silence.
# fmt: off
IMAGE_EXTENSIONS = frozenset((
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2c", ".j2k", ".jfif",
    ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pgm",
    ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
))
# fmt: on


@dataclass(frozen=True)
class ImageReference:
    """One input image.

    `stem` is the path of the restored image without its extension: the key's, or the whole key where two inputs of a
    folder would meet (`a.jpg` and `a.png` are restored as `a.jpg.png` and `a.png.png`).
    """

    key: str
    source_uri: str
    stem: str


class Source(Protocol):
    """A set of images; iterating lists it as it streams, and `skipped` counts what the last listing left out."""

    @property
    def skipped(self) -> Counter[str]:
        """What the last listing left out, by reason."""
        ...

    def references(self) -> Iterator[ImageReference]:
        """List the images, always in the same order."""
        ...

    def read(self, reference: ImageReference) -> bytes:
        """Read the encoded bytes of an image."""
        ...


def open_sources(uris: Sequence[str]) -> Source:
    """Return the source of all images of several URIs.

    Raises:
        ValueError: as `open_source`.
    """
    sources = [open_source(uri) for uri in uris]
    return sources[0] if len(sources) == 1 else UnionSource(sources)


def open_source(uri: str) -> Source:
    """Return the source that a URI names.

    Raises:
        ValueError: the URI names nothing that can be read as a set of images.
    """
    return FolderSource(uri)


class FolderSource:
    """All files below a folder whose names have an image extension; files and folders whose names begin with a dot
    are left out."""

    def __init__(self, uri: str) -> None:
        self._folder = open_folder(uri)
        self.skipped: Counter[str] = Counter()
        if not self._folder.exists():
            raise ValueError(
                f"input {self} is not a folder, or there is none of that name: expected a folder of images"
            )

    def __str__(self) -> str:
        return str(self._folder)

    def references(self) -> Iterator[ImageReference]:
        """List the images folder by folder, sorted in each."""
        self.skipped = Counter()
        for names in self._folder.walk():
            keys = [name for name in names if self._is_image(name)]
            taken = Counter(_without_extension(key) for key in keys) + Counter(keys)
            for key in keys:
                stem = _without_extension(key)
                yield ImageReference(
                    key=_utf8(key),
                    source_uri=_utf8(f"{self}/{key}"),
                    stem=_utf8(stem if taken[stem] == 1 else key),
                )

    def read(self, reference: ImageReference) -> bytes:
        """Read the encoded bytes of an image."""
        return self._folder.read(reference.key)

    def _is_image(self, name: str) -> bool:
        path = PurePosixPath(name)
        if any(part.startswith(".") for part in path.parts):
            self.skipped["hidden"] += 1
            return False
        if path.suffix.lower() not in IMAGE_EXTENSIONS:
            self.skipped[path.suffix.lower() or "no extension"] += 1
            return False
        return True


class UnionSource:
    """The images of several sources one after another; keys begin with the number of the source."""

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


def _without_extension(key: str) -> str:
    return key.removesuffix(PurePosixPath(key).suffix)


def _utf8(name: str) -> str:
    """Escape what is no UTF-8 in a file name: Parquet holds none. Such an image cannot be read and is quarantined."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
