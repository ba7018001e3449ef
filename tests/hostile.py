"""Image files that were made to do harm, or to look as if."""

import io
import struct

from PIL import Image


def tiff_that_claims(width: int, height: int = 1) -> bytes:
    """Return a TIFF of some hundred bytes with a header that says how large it is."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "TIFF")
    tiff = bytearray(file.getvalue())
    (start,) = struct.unpack_from("<I", tiff, 4)
    (num_entries,) = struct.unpack_from("<H", tiff, start)
    for entry in range(start + 2, start + 2 + 12 * num_entries, 12):
        (tag,) = struct.unpack_from("<H", tiff, entry)
        if tag in (256, 257):  # ImageWidth, ImageLength; as LONG
            struct.pack_into("<HII", tiff, entry + 2, 4, 1, width if tag == 256 else height)
    return bytes(tiff)


def jpeg_that_claims(width: int, height: int) -> bytes:
    """Return a small JPEG whose header says that it is larger."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(file, "JPEG")
    jpeg = bytearray(file.getvalue())
    frame = jpeg.index(b"\xff\xc0")
    struct.pack_into(">HH", jpeg, frame + 5, height, width)
    return bytes(jpeg)


def eps() -> bytes:
    """Return an image that Pillow gives to Ghostscript, if it is allowed to."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "EPS")
    return file.getvalue()
