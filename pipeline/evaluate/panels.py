"""Pictures to compare by eye: an image as our codec and others show it at about equal size.

Every other codec runs at its lowest setting whose file is at least as large as our bitstream, so none is shown with
fewer bits unless it has no larger setting. All code the same array, grayscale as one channel.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from bls.codec import Codec
from bls.ladder import quality_text
from bls.measures import images as measures
from bls.pixels import Pixels
from bls.targets import Target, compress_to_target
from pipeline import baselines
from pipeline.baselines import BASELINES
from pipeline.evaluate.coding import OURS, Row, measure, size
from pipeline.windows import best_window

CODECS = ("jpeg-420", "jpeg2000", "webp", "jpeg-xl", "avif-444-psnr", "avif-444-iq")
"""The codecs that are shown by default: one of each format, AVIF in both tunings."""
QUALITIES = (1, 2, 4)
"""Our qualities by default: rates at which codecs can be distinguished by eye."""
CROP_SIDE = 144


@dataclass(frozen=True)
class Decoded:
    """What a codec made of an image: `row` has codec, quality, effort, num_bytes, bpp and the measures of `pixels`."""

    row: Row
    pixels: Pixels


@dataclass(frozen=True)
class Panel:
    """An image at one of our qualities, ours first, and the region that is shown enlarged."""

    key: str
    quality: float
    original: Pixels
    decoded: Sequence[Decoded]
    crop: tuple[slice, slice]

    @property
    def gray(self) -> bool:
        """Return whether the image is grayscale."""
        return self.original.ndim == 2

    def file_name(self, number: int) -> str:
        """Return a name for its picture, unique by the number of its image."""
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", self.key.rpartition("/")[2].rpartition(".")[0] or self.key).strip("-")
        return f"{number:03d}-{stem[:60]}-quality-{quality_text(self.quality)}.png"


def make_panel(
    x: Pixels,
    *,
    key: str,
    codec: Codec,
    quality: float,
    efforts: Sequence[int] = (0,),
    others: Iterable[str] = CODECS,
    corner: tuple[int, int] | None = None,
) -> Panel:
    """Code an image with ours and the others; `corner` is left and top of the region to enlarge.

    The first effort codes at the quality, the others at the highest whose bitstream is not larger. Without a corner
    the region is the most detailed one.

    Raises:
        ValueError: the corner lies outside.
    """
    ours = _code_ours(x, codec, quality=quality, effort=efforts[0])
    refined = [_code_ours_within(x, codec, num_bytes=ours.row["num_bytes"], effort=effort) for effort in efforts[1:]]
    decoded = [ours, *refined, *(code_at(x, other, bpp=ours.row["bpp"]) for other in others)]
    return Panel(key, quality, x, decoded, most_detailed(x) if corner is None else _region(x, *corner))


def code_at(x: Pixels, codec: str, *, bpp: float) -> Decoded:
    """Code an image with another codec, at the lowest rate that is not below `bpp`, or the highest there is."""
    height, width = x.shape[:2]

    @cache
    def encoded(setting: float) -> bytes:
        return baselines.encode(x, codec, setting)

    def rate(setting: float) -> float:
        return measures.bpp(len(encoded(setting)), height=height, width=width)

    setting = first_at_or_above(bpp, BASELINES[codec].all_settings, rate)
    data = encoded(setting)
    x_hat = baselines.decode(data, gray=x.ndim == 2)
    return Decoded(
        {"codec": codec, "quality": setting, "effort": None, **size(x, len(data)), **measure(x, x_hat)}, x_hat
    )


def first_at_or_above(wanted: float, settings: Sequence[float], rate: Callable[[float], float]) -> float:
    """Find by bisection the first setting whose rate is not below the wanted one, or else the last setting."""
    return settings[bisect_left(settings, wanted, hi=len(settings) - 1, key=rate)]


def most_detailed(x: Pixels) -> tuple[slice, slice]:
    """Return the square in which neighbouring pixels differ most, a sum over rows and columns of the luma."""
    luma = measures.luma(x)
    detail = np.zeros_like(luma)
    detail[:, 1:] += np.abs(np.diff(luma, axis=1))
    detail[1:] += np.abs(np.diff(luma, axis=0))
    top, left = best_window(detail, *_crop_shape(x))
    return _region(x, left, top)


def _region(x: Pixels, left: int, top: int) -> tuple[slice, slice]:
    height, width = _crop_shape(x)
    if not (0 <= left <= x.shape[1] - width and 0 <= top <= x.shape[0] - height):
        raise ValueError(
            f"crop begins at {left}, {top}: expected at most {x.shape[1] - width}, {x.shape[0] - height} in an image "
            f"of {x.shape[1]}x{x.shape[0]} pixels"
        )
    return slice(top, top + height), slice(left, left + width)


def _crop_shape(x: Pixels) -> tuple[int, int]:
    return min(CROP_SIDE, x.shape[0]), min(CROP_SIDE, x.shape[1])


def _code_ours(x: Pixels, codec: Codec, *, quality: float, effort: int) -> Decoded:
    return _decode_ours(x, codec, codec.compress(x, quality=quality, effort=effort), quality=quality, effort=effort)


def _code_ours_within(x: Pixels, codec: Codec, *, num_bytes: int, effort: int) -> Decoded:
    """Code an image at the highest quality whose bitstream has at most so many bytes."""
    found = compress_to_target(codec, x, Target("num_bytes", num_bytes), effort=effort)
    return _decode_ours(x, codec, found.bitstream, quality=found.quality, effort=effort)


def _decode_ours(x: Pixels, codec: Codec, bitstream: bytes, *, quality: float, effort: int) -> Decoded:
    x_hat = codec.decompress(bitstream)
    row = {"codec": OURS, "quality": quality, "effort": effort, **size(x, len(bitstream)), **measure(x, x_hat)}
    return Decoded(row, x_hat)
