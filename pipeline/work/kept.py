"""What a row of bitstreams files holds of an image: its bitstream, or its original file, kept in the place of one."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bls.bitstream import BitstreamError, parse_header
from pipeline import images
from pipeline.images import ImageError, SourceImage
from pipeline.ledger.schema import ORIGINAL
from pipeline.sources.reference import IMAGE_EXTENSIONS

_EXTENSIONS = {"JPEG": ".jpg", "MPO": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif"}


@dataclass(frozen=True)
class KeptFile:
    """The file of an original, byte for byte, with the extension under which it is restored."""

    data: bytes
    extension: str
    crc32: int

    @classmethod
    def of(cls, data: bytes, *, key: str, source_format: str) -> "KeptFile":
        """Return the file of an image; it has the extension of its key if that is one of images."""
        extension = PurePosixPath(key).suffix
        if extension.lower() not in IMAGE_EXTENSIONS:
            extension = _EXTENSIONS.get(source_format, f".{source_format.lower()}")
        return cls(data, extension, zlib.crc32(data))

    def __len__(self) -> int:
        """Return its size in bytes."""
        return len(self.data)

    def columns(self) -> dict[str, Any]:
        """Return the columns that hold it."""
        return dict(zip(ORIGINAL, (self.data, self.extension, self.crc32), strict=True))

    def check(self) -> None:
        """Do nothing if it is whole.

        Raises:
            BitstreamError: it is damaged.
        """
        if zlib.crc32(self.data) != self.crc32:
            raise BitstreamError("checksum of the kept original does not match: it is damaged, fetch it again")

    def decode(self, *, max_pixels: int) -> SourceImage:
        """Decode it as a compress job does.

        Raises:
            BitstreamError: it is damaged, larger than this, or of a format that cannot be read here.
        """
        self.check()
        try:
            return images.decode(self.data, max_pixels=max_pixels)
        except ImageError as error:
            raise BitstreamError(f"the kept original cannot be decoded: {error}") from error


Stored = bytes | KeptFile


def stored(row: Mapping[str, Any]) -> Stored:
    """Return what a row with the columns `bitstream` and `ORIGINAL` holds."""
    if row["bitstream"] is not None:
        return bytes(row["bitstream"])
    return KeptFile(*(row[name] for name in ORIGINAL))


def claimed_pixels(content: Stored) -> int:
    """Return how many pixels a bitstream or file says it has; 0 if it is damaged, which decoding finds."""
    if isinstance(content, KeptFile):
        return images.num_pixels(content.data)
    try:
        header = parse_header(content)
    except BitstreamError:
        return 0
    return header.width * header.height
