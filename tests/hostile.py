"""Image files that were made to do harm, or to look as if, and datasets of them."""

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.datasets import pixels

SECRET = b"hunter2-is-the-password"


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


def image_file(image_format: str = "PNG", **options: Any) -> bytes:
    """Return a good image."""
    file = io.BytesIO()
    Image.fromarray(pixels(20, 24)).save(file, image_format, **options)
    return file.getvalue()


FILES: dict[bytes, tuple[bytes, str]] = {
    b"good.png": (image_file(), "ok"),
    b"caf\xe9.png": (image_file(), "ok"),
    b"caf\\xe9.png": (image_file(), "ok"),
    b"=HYPERLINK(1).png": (image_file(), "ok"),
    b"profile.jpg": (image_file("JPEG", icc_profile=np.random.default_rng(0).bytes(2**20 + 1)), "ok"),
    b"huge.tif": (tiff_that_claims(3_000_000_000), "too_large"),
    b"claims.jpg": (jpeg_that_claims(8000, 8000), "truncated"),
    b"eps.jpg": (eps(), "not_an_image"),
    b"passwords.png": (SECRET, "not_an_image"),
    b"passwords.ppm": (b"P6 " + SECRET, "corrupt"),
    b"half.png": (image_file()[:200], "truncated"),
    b"empty.webp": (b"", "empty"),
}
"""Files by their names, with the status of their rows."""


def write_folder(folder: Path) -> dict[str, str]:
    """Write the files, and links, pipes and devices beside them; return the status of each key."""
    folder.mkdir()
    for name, (data, _) in FILES.items():
        (folder / os.fsdecode(name)).write_bytes(data)
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "self.png").symlink_to("self.png")
    (folder / "up").symlink_to(folder)
    (folder / "null.png").symlink_to("/dev/null")
    os.mkfifo(folder / "pipe.png")
    keys = {name: name.decode(errors="backslashreplace") for name in FILES}
    keys[b"caf\\xe9.png"] = "caf\\x5cxe9.png"
    return {keys[name]: status for name, (_, status) in FILES.items()} | {"gone.png": "unreadable"}


def write_table(path: Path) -> dict[str, str]:
    """Write a table of the files, with columns without any value; return the status of each key."""
    images = [data for data, _ in FILES.values()]
    nothing = pa.nulls(len(images))
    nested = pa.array([{"none": [None]}] * len(images), pa.struct([("none", pa.list_(pa.null()))]))
    table = {"image": images, "nothing": nothing, "nested": nested}
    pq.write_table(pa.table({**table, "when": pa.array([2**62] * len(images), pa.timestamp("us"))}), path)
    return {f"{path.stem}/{row}": status for row, (_, status) in enumerate(FILES.values())}
