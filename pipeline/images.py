"""Encoded images <-> uint8 arrays, without losing what an array cannot hold.

EXIF orientation is applied; EXIF (orientation reset) and ICC profile are carried; alpha is kept losslessly; palette and
CMYK become RGB. An image that would silently lose data is refused with an ImageError: more than 8 bits per sample,
several frames, damage. Every function may be called from several threads.
"""

import io
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from bls.bitstream import MAX_SIDE
from bls.image_files import FORMATS as READ_FORMATS
from bls.image_files import open_image
from pipeline.status import Status

MAX_PNG_ICC_NUM_BYTES = 2**20  # Pillow, and others after it, refuse a PNG with a larger one
FORMATS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}

# On Kodak PNG level 1 writes 14 MP/s and level 6, Pillow's default, 4 MP/s for 2 % fewer bytes; WebP method 0 writes
# 25 MP/s. exact: keeps the colour of transparent pixels.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"compress_level": 1},
    "jpeg": {"quality": 95, "subsampling": "4:4:4"},
    "webp": {"lossless": True, "exact": True, "method": 0, "quality": 0},
}

_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Tags of a TIFF file that say how its own pixels are stored; all others are EXIF in other file formats too.
# fmt: off
_TIFF_STORAGE_TAGS = frozenset((
    254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 330, 338,
    339, 347, 530, 700, 33723, 34377, 34675,
))
# fmt: on


class ImageError(Exception):
    """An image that cannot be used; `status` is the category, the message the reason.

    `facts` holds what is still known of the image: width, height, mode, source_format.
    """

    def __init__(self, status: Status, message: str, facts: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.facts = facts or {}


@dataclass(frozen=True)
class SourceImage:
    """A decoded image: pixels (h, w, 3) or, for gray, (h, w), and what travels beside them."""

    pixels: npt.NDArray[np.uint8]
    mode: str
    source_format: str
    exif: bytes | None
    icc_profile: bytes | None
    alpha_png: bytes | None

    @property
    def beside_num_bytes(self) -> int:
        """Return the size of EXIF, ICC profile and alpha."""
        return sum(len(part) for part in (self.exif, self.icc_profile, self.alpha_png) if part)


def decode(data: bytes, *, max_pixels: int) -> SourceImage:
    """Decode an image file; its size is checked before any pixel is.

    Raises:
        ImageError: `empty`, `not_an_image`, `too_large`, `unsupported`, `truncated` or `corrupt`.
    """
    image = _open(data)
    facts = {"width": image.width, "height": image.height, "mode": image.mode, "source_format": image.format}
    if image.width * image.height > max_pixels or max(image.size) > MAX_SIDE:
        raise ImageError(
            Status.TOO_LARGE,
            f"{image.width} x {image.height} pixels, over the limit of {max_pixels} or {MAX_SIDE} a side",
            facts,
        )
    try:
        _check_supported(image, data)
        image.load()
    except ImageError as error:
        raise ImageError(error.status, str(error), facts) from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever their parsing stumbles on
        status = Status.TRUNCATED if isinstance(error, EOFError) or "truncated" in str(error) else Status.CORRUPT
        raise ImageError(status, f"image data is damaged: {_reason(error)}", facts) from error
    return _to_source_image(image, facts)


def num_pixels(data: bytes) -> int:
    """Return how many pixels an image file says it has; 0 if `decode` does not take the file."""
    try:
        image = _open(data)
    except ImageError:
        return 0
    return image.width * image.height


def encode(
    pixels: npt.NDArray[np.uint8],
    *,
    image_format: str,
    exif: bytes | None = None,
    icc_profile: bytes | None = None,
    alpha_png: bytes | None = None,
) -> bytes:
    """Encode pixels (h, w, 3) or (h, w) with EXIF, ICC profile and alpha as an image file; JPEG has quality 95.

    Raises:
        ImageError: `unsupported`: the format cannot hold the image.
    """
    image = Image.fromarray(pixels)
    if alpha_png is not None:
        if image_format == "jpeg":
            raise ImageError(
                Status.UNSUPPORTED, "the image has an alpha plane, which JPEG cannot hold: use png or webp"
            )
        image.putalpha(_open_alpha(alpha_png, image.size))
    options = dict(_SAVE_OPTIONS[image_format])
    if exif is not None:
        options["exif"] = exif
    if icc_profile is not None:
        if image_format == "png" and len(icc_profile) > MAX_PNG_ICC_NUM_BYTES:
            raise ImageError(
                Status.UNSUPPORTED,
                f"the ICC profile has {len(icc_profile)} bytes, PNG readers take {MAX_PNG_ICC_NUM_BYTES}: use webp",
            )
        options["icc_profile"] = icc_profile
    file = io.BytesIO()
    try:
        image.save(file, image_format, **options)
    except (ValueError, OSError) as error:
        raise ImageError(Status.UNSUPPORTED, f"cannot be written as {image_format}: {error}; use png") from error
    return file.getvalue()


def _open(data: bytes) -> ImageFile.ImageFile:
    if not data:
        raise ImageError(Status.EMPTY, "the file has no bytes")
    try:
        return open_image(io.BytesIO(data))
    except UnidentifiedImageError as error:
        # Nothing of the content is quoted: a list of inputs may name any file.
        if data[4:8] == b"ftyp":
            reason = "the file may be HEIC, which needs a plug-in of Pillow: install one, or convert the file"
        else:
            reason = f"the file is not an image of a format that is read: {', '.join(READ_FORMATS)}"
        raise ImageError(Status.NOT_AN_IMAGE, reason) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(Status.TOO_LARGE, str(error)) from error
    except Exception as error:  # Pillow's parsers raise whatever they stumble on
        if "MAX_TEXT" in str(error):
            message = "has an ICC profile or text of more than 1 MiB, which Pillow does not read: remove it"
            raise ImageError(Status.UNSUPPORTED, message) from error
        raise ImageError(Status.CORRUPT, f"image header is damaged: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return what Pillow says, up to the first thing that it may have quoted from the file."""
    said = error.args[0] if error.args and not isinstance(error, KeyError) else ""
    text = said.decode("ascii", "replace") if isinstance(said, bytes) else str(said)
    return re.split(r"[:('\"]", text)[0].strip() or type(error).__name__


def _open_alpha(png: bytes, size: tuple[int, int]) -> Image.Image:
    """Open a stored alpha plane; it is not decoded if it cannot belong to an image of this size."""
    alpha = Image.open(io.BytesIO(png), formats=["PNG"])
    if alpha.size != size:
        raise ImageError(Status.CORRUPT, f"the alpha plane has {alpha.size} pixels, the image {size}: it is damaged")
    return alpha


def _check_supported(image: ImageFile.ImageFile, data: bytes) -> None:
    # An MPO is a JPEG with previews or depth maps behind it, as many phones write them: its first frame is the image.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError(Status.UNSUPPORTED, "has several frames or pages: split it into single images")
    if image.format == "JPEG" and _cannot_hold_its_blocks(image, data):
        raise ImageError(Status.TRUNCATED, f"{len(data)} bytes cannot hold the pixels that the header claims")
    if image.mode in ("I", "F", "LAB") or image.mode.startswith("I;"):
        raise ImageError(Status.UNSUPPORTED, f"has samples of mode {image.mode}: convert it to 8-bit gray or RGB")
    if _has_deep_samples(image, data):
        raise ImageError(Status.UNSUPPORTED, "has more than 8 bits per sample: convert it to 8 bits")


def _cannot_hold_its_blocks(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Return whether a JPEG has fewer bits than blocks of 8x8; libjpeg would silently paint the missing blocks gray.

    Every block takes a bit or more: the shortest Huffman code of its mean. Arithmetic coding may need less.
    """
    num_blocks = -(-image.width // 8) * -(-image.height // 8)
    is_arithmetic = any(bytes((0xFF, marker)) in data for marker in (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
    return 8 * len(data) < num_blocks and not is_arithmetic


def _has_deep_samples(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Return whether Pillow would silently drop bits, as it does for RGB."""
    if image.format == "JPEG2000":  # the sample depth in the SIZ marker, 38 bytes behind it
        depth = data[data.index(b"\xff\x4f\xff\x51") + 42]
        return (depth & 0x7F) + 1 > 8
    if image.format == "AVIF":  # the flag high_bitdepth of the codec configuration box
        return bool(data[data.index(b"av1C") + 6] & 0x40)
    if image.format == "PPM":  # arguments of the decoder are the mode or (mode, maximum value)
        return any(isinstance(tile.args, tuple) and tile.args[1:] > (255,) for tile in image.tile)
    return any(";16" in str(tile.args) for tile in image.tile)


def _to_source_image(image: Image.Image, facts: dict[str, Any]) -> SourceImage:
    orientation = _orientation(image)
    exif = _exif(image)
    icc_profile = image.info.get("icc_profile") or None
    if image.mode == "CMYK":
        # A CMYK profile would be wrong beside RGB pixels: it is used up here.
        image, icc_profile = _cmyk_to_srgb(image, icc_profile), None
    gray = image.mode in ("1", "L", "LA", "La")
    alpha_png = None
    if image.has_transparency_data:
        image = image.convert("LA" if gray else "RGBA")
        alpha_png = _png(_transpose(image.getchannel("A"), orientation))
    mode = "L" if gray else "RGB"
    if image.mode != mode:  # a conversion to the same mode would be a copy
        image = image.convert(mode)
    pixels = np.array(_transpose(image, orientation))
    return SourceImage(pixels, facts["mode"], facts["source_format"], exif, icc_profile, alpha_png)


def _transpose(image: Image.Image, orientation: int) -> Image.Image:
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def _cmyk_to_srgb(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    if icc_profile is not None:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # an unusable profile counts as none
        else:
            assert converted is not None
            return converted
    return image.convert("RGB")


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF is carried as it is; the pixels are fine
        return 1


def _exif(image: Image.Image) -> bytes | None:
    """Return EXIF with its orientation reset: the file's own bytes, so that maker notes stay valid."""
    exif = image.info.get("exif")
    if exif is not None:
        return _reset_orientation(_EXIF_PREFIX + bytes(exif).removeprefix(_EXIF_PREFIX))
    # TIFF keeps these tags among its own, PNG may keep them as text.
    try:
        tags = image.getexif()
        for tag in (_TIFF_STORAGE_TAGS | {_ORIENTATION_TAG}) & set(tags):
            del tags[tag]
        return tags.tobytes() if tags else None
    except Exception:  # EXIF that cannot be parsed cannot be carried
        return None


def _reset_orientation(exif: bytes) -> bytes:
    """Overwrite the orientation's value in place; EXIF that cannot be followed stays as it is."""
    order = {b"II": "<", b"MM": ">"}.get(exif[6:8])
    if order is None:
        return exif
    patched = bytearray(exif)
    try:
        directory = len(_EXIF_PREFIX) + struct.unpack_from(order + "I", exif, 10)[0]
        for index in range(struct.unpack_from(order + "H", exif, directory)[0]):
            entry = directory + 2 + 12 * index
            tag, type_ = struct.unpack_from(order + "HH", exif, entry)
            if tag == _ORIENTATION_TAG and type_ in (3, 4):  # SHORT, LONG
                struct.pack_into(order + ("H" if type_ == 3 else "I"), patched, entry + 8, 1)
    except struct.error:
        return exif
    return bytes(patched)
