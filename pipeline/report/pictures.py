"""Pictures for a report as data URIs: an original, what was decoded, their difference, and a crop of each.

Whole pictures are made smaller and coded as lossy WebP. Crops are the pixels as they are, lossless, so that every
artifact in them is the codec's.
"""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bls.pixels import Pixels
from pipeline.report.originals import Pair
from pipeline.windows import best_window

AMPLIFIED = 4  # differences are shown this many times as large, around middle gray
PREVIEW_SIDE = 640
CROP_WIDTH, CROP_HEIGHT = 240, 160
_PREVIEW = {"quality": 90, "method": 4}
_CROP = {"lossless": True, "quality": 60, "method": 4, "exact": True}
_STEP = 8  # pixels between the places that are tried for the crop


@dataclass(frozen=True)
class Pictures:
    """Data URIs of one image; those that need the original are empty where it cannot be read."""

    row: dict[str, Any]
    trouble: str = ""
    original: str = ""
    decoded: str = ""
    difference: str = ""
    crop_original: str = ""
    crop_decoded: str = ""
    crop_difference: str = ""
    crop_box: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, top, width, height


def draw(row: dict[str, Any], pair: Pair) -> Pictures:
    """Draw the pictures of one image; the crop is where the squared error is largest."""
    if pair.x_hat is None:
        return Pictures(row, pair.trouble)
    profile = pair.icc_profile
    decoded = preview(pair.x_hat, profile)
    if pair.x is None:
        height, width = min(CROP_HEIGHT, pair.x_hat.shape[0]), min(CROP_WIDTH, pair.x_hat.shape[1])
        left, top = (pair.x_hat.shape[1] - width) // 2, (pair.x_hat.shape[0] - height) // 2
        box = (left, top, width, height)
        return Pictures(row, pair.trouble, decoded=decoded, crop_decoded=_crop(pair.x_hat, box, profile), crop_box=box)
    box = worst_box(pair.x, pair.x_hat)
    error = difference(pair.x, pair.x_hat)
    return Pictures(
        row,
        original=preview(pair.x, profile),
        decoded=decoded,
        difference=preview(error, None),
        crop_original=_crop(pair.x, box, profile),
        crop_decoded=_crop(pair.x_hat, box, profile),
        crop_difference=_crop(error, box, None),
        crop_box=box,
    )


def difference(x: Pixels, x_hat: Pixels) -> Pixels:
    """Return 128 + AMPLIFIED * (x_hat - x), clipped: middle gray where nothing changed."""
    error = np.subtract(x_hat, x, dtype=np.int16)
    amplified: Pixels = np.clip(128 + AMPLIFIED * error, 0, 255).astype(np.uint8)
    return amplified


def worst_box(x: Pixels, x_hat: Pixels) -> tuple[int, int, int, int]:
    """Find the crop with the largest squared error: left, top, width, height."""
    squared = np.square(np.subtract(x_hat, x, dtype=np.float32))
    squared = squared if squared.ndim == 2 else squared.sum(axis=2)
    height, width = min(CROP_HEIGHT, x.shape[0]), min(CROP_WIDTH, x.shape[1])
    top, left = best_window(squared, height, width, step=_STEP)
    return left, top, width, height


def _crop(x: Pixels, box: tuple[int, int, int, int], profile: bytes | None) -> str:
    left, top, width, height = box
    return _data_uri(x[top : top + height, left : left + width], profile, _CROP)


def preview(x: Pixels, profile: bytes | None, *, side: int = PREVIEW_SIDE) -> str:
    """Return an image as a data URI, no larger than `side` in height and width."""
    # Reduced by whole blocks first: a picture of 100 megapixels is not worth a filter over all of them.
    image = Image.fromarray(x)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return _data_uri(np.asarray(image), profile, _PREVIEW)


def _data_uri(x: npt.NDArray[np.uint8], profile: bytes | None, options: dict[str, Any]) -> str:
    file = io.BytesIO()
    # WebP has no grayscale, and a profile of gray would be wrong in it.
    embedded = {"icc_profile": profile} if profile and x.ndim == 3 else {}
    Image.fromarray(x).convert("RGB").save(file, "webp", **options, **embedded)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
