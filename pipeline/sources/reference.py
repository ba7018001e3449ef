"""What a source of images is: references to images, and what is read by one."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

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
class Columns:
    """Columns of Parquet files: the images or their URIs (None: detected), and the keys (None: numbered)."""

    image: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class ImageReference:
    """One input image.

    `stem` is the path of the restored image without its extension: the key's, or the whole key where two inputs might
    meet (`a.jpg` and `a.png` are restored as `a.jpg.png` and `a.png.png`). An image inside a file is at `start`: the
    first byte of its sample in a tar, which has `num_bytes`, or its row in a Parquet file. All names are as of `utf8`.
    """

    key: str
    source_uri: str
    stem: str
    file: str | None = None
    start: int | None = None
    num_bytes: int | None = None


@dataclass(frozen=True)
class Sample:
    """The encoded bytes of an image, and what is carried beside it: a value of the source's type `carried`, or None."""

    data: bytes
    carried: Any = None


class Source(Protocol):
    """A set of images; iterating lists it as it streams. Sources can be sent to other processes."""

    @property
    def skipped(self) -> Counter[str]:
        """What the last listing left out, by reason."""
        ...

    @property
    def carried(self) -> pa.DataType | None:
        """The type of what the last listing found beside each image: a struct, a map, or None."""
        ...

    def references(self) -> Iterator[ImageReference]:
        """List the images, always in the same order."""
        ...

    def read(self, reference: ImageReference) -> bytes:
        """Read the encoded bytes of an image.

        Raises:
            ImageError: there is no image in the place that the reference names.
        """
        ...

    def read_sample(self, reference: ImageReference) -> Sample:
        """Read an image with what is carried beside it; raises as `read`."""
        ...


def without_extension(name: str) -> str:
    """Return a path without its last extension, as `PurePosixPath.suffix` sees it but quicker."""
    dot = name.rfind(".")
    base = name.rfind("/") + 1
    return name[:dot] if dot > base and dot < len(name) - 1 else name


_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


def utf8(name: str) -> str:
    r"""Escape what is not UTF-8 in a file name, which Parquet cannot hold: the byte FF becomes `\xff`.

    A name that contains this sequence itself gets `\x5c` for the backslash, so that every name has a text of its own.
    """
    if "\\" in name:
        name = _ESCAPE.sub(r"\\x5cx\1", name)
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def file_name(text: str) -> str:
    """Return the name that `utf8` made a text of; opening it hands its bytes to the file system."""
    if "\\" not in text:
        return text
    # Python has a surrogate for each byte that is not UTF-8.
    return _ESCAPE.sub(lambda match: "\\" if match[1] == "5c" else chr(0xDC00 + int(match[1], 16)), text)
