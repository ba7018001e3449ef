"""Damage to bitstreams and image files: a few edits that a random generator decides, behind the checksum if wanted."""

import io
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from bls import bitstream
from bls.bitstream import BitstreamError
from bls.codec import Codec
from bls.image_files import FORMATS
from bls.ladder import QualityError, quality_of
from pipeline import images
from pipeline.compress.worker import source_columns
from pipeline.ledger.schema import METRICS, to_parquet
from pipeline.status import Status
from pipeline.work.stages import Item

MAX_PIXELS = 2**16  # of what is decoded: damaged sizes are not to cost minutes
_CHECKSUM_NUM_BYTES = 4


def damaged(data: bytes, random: Random, *, within: int | None = None) -> bytes:
    """Return data with one to four edits, all among the first bytes if `within` says how many."""
    edited = bytearray(data)
    for _ in range(random.randint(1, 4)):
        size = min(len(edited), within or len(edited))
        if not size:
            break
        place, length = random.randrange(size), random.randint(1, 8)
        match random.randrange(6):
            case 0:
                edited[place] ^= 1 << random.randrange(8)
            case 1:
                edited[place] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
            case 2:
                edited[place : place + length] = random.randbytes(length)
            case 3:
                del edited[place : place + length]
            case 4:
                edited[place:place] = random.randbytes(length)
            case 5:
                del edited[place:]
    return bytes(edited)


def with_checksum(data: bytes, codec: Codec) -> bytes:
    """Return a bitstream with the checksum that fits it, where a model of the codec could have written it."""
    try:
        quality = quality_of(bitstream.parse_header(data).quality_index)
        fingerprint = codec.bundle.network(quality).fingerprint
    except (BitstreamError, QualityError):
        return data
    body = data[:-_CHECKSUM_NUM_BYTES]
    return body + bitstream._CHECKSUM.pack(bitstream._checksum(body, fingerprint))


def outcome_of_stream(data: bytes, codec: Codec) -> str:
    """Decode a bitstream; what decodes must be what an encoder may have written, and anything else be refused."""
    try:
        header, symbols = codec.decode(data)
    except BitstreamError:
        return "refused"
    _, again = codec.decode(codec.encode(symbols, header=header))
    assert np.array_equal(again, symbols), "symbols that were decoded do not survive a coding"
    return "decoded"


def outcome_of_image(data: bytes) -> str:
    """Take an image file as a worker does; return the status of its row, which its table must be able to hold."""
    item = Item(0, {"key": "x", "source_uri": "x", "shard": 0, "status": Status.OK, "model_fingerprint": "0"})
    with item.stage("decode_seconds"):
        item.row.update(source_columns(images.decode(data, max_pixels=MAX_PIXELS), source_num_bytes=len(data)))
    item.fit(METRICS)
    to_parquet([item.row], METRICS, metadata={})
    return str(item.row["status"])


def image_files() -> dict[str, bytes]:
    """Return a small image in every format that is read, where Pillow has it without a plug-in, and some variants."""
    Image.init()
    x = Image.fromarray(np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3))
    variants = {
        "with EXIF": _file(x, "JPEG", exif=_exif()),
        "progressive": _file(x, "JPEG", progressive=True),
        "CMYK with a profile": _file(x.convert("CMYK"), "JPEG", icc_profile=_profile()),
        "lossless": _file(x, "WEBP", lossless=True),
        "by libtiff": _file(x, "TIFF", compression="tiff_lzw"),
        "with alpha": _file(x.convert("RGBA"), "PNG"),
        "palette": _file(x.convert("P"), "PNG"),
    }
    return {name: _file(x, name) for name in FORMATS if name in Image.OPEN} | variants


def _file(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    exif[0x010E] = "description"
    return exif
