"""Image files as Pillow opens them: of the formats that photographs come in, and of no others.

Pillow knows some forty formats and tries all of them, whatever a file is called. Its reader of EPS starts Ghostscript,
others are hardly ever used. Whoever sends a file must not be able to choose one of these.
"""

from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "JXL", "JPEG2000", "GIF", "TIFF", "BMP", "DIB", "PPM", "QOI", "TGA")
"""Names that Pillow and its plug-ins give the formats; HEIF and JXL (JPEG XL) need a plug-in, MPO is opened as JPEG."""


def open_image(file: Path | IO[bytes]) -> ImageFile.ImageFile:
    """Open an image file of one of these formats; no pixel is decoded yet.

    Raises:
        UnidentifiedImageError: it is a file of another kind.
    """
    Image.init()
    image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    assert isinstance(image, ImageFile.ImageFile)
    return image
