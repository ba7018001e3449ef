"""The codecs that ours is compared with, as Pillow writes and reads them.

Each has the options that make its files small without making it slow out of proportion: optimised Huffman tables
(JPEG), the 9/7 wavelet and the colour transform without a container (JPEG 2000), the slowest method (WebP), one tile
(AVIF, at libaom's speed 6 and with its default tuning; docs/results.md). Nothing but the picture goes into a file.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, features

from bls.image_files import open_image
from bls.pixels import Pixels

_RATIOS = sorted({round(1.01**step) for step in range(695)}, reverse=True)
"""Compression ratios from 1,000 down to 1, in steps of 1 % or of one."""


@dataclass(frozen=True)
class Baseline:
    """A codec at a ladder of settings, the lowest rate first; `options` are those of Pillow's `save`."""

    format: str
    setting: str  # name of the settings
    settings: tuple[int, ...]
    all_settings: Sequence[int]  # every useful one, for a search by rate or quality; in the same order
    options: Callable[[int, bool], Mapping[str, Any]]  # of a setting and of whether the image is grayscale


def _jpeg(subsampling: str) -> Baseline:
    def options(quality: int, gray: bool) -> Mapping[str, Any]:
        return {"quality": quality, "subsampling": subsampling, "optimize": True}

    return Baseline("jpeg", "quality", (5, 10, 20, 35, 50, 70, 85, 95), range(1, 101), options)


def _jpeg2000() -> Baseline:
    def options(ratio: int, gray: bool) -> Mapping[str, Any]:
        rate = {"quality_mode": "rates", "quality_layers": [ratio]}
        return {**rate, "irreversible": True, "mct": 0 if gray else 1, "no_jp2": True}

    return Baseline("jpeg2000", "compression ratio", (240, 160, 96, 64, 40, 24, 16, 10), _RATIOS, options)


def _webp() -> Baseline:
    def options(quality: int, gray: bool) -> Mapping[str, Any]:
        return {"quality": quality, "method": 6}

    return Baseline("webp", "quality", (1, 10, 25, 45, 65, 80, 90, 95), range(101), options)


def _avif(subsampling: str) -> Baseline:
    def options(quality: int, gray: bool) -> Mapping[str, Any]:
        # One thread: an evaluation's workers share the cores between images.
        one_tile = {"speed": 6, "autotiling": False, "max_threads": 1}
        return {**one_tile, "quality": quality, "subsampling": "4:0:0" if gray else subsampling}

    return Baseline("avif", "quality", (10, 25, 35, 45, 55, 65, 75, 85), range(101), options)


BASELINES: Mapping[str, Baseline] = {
    "jpeg-420": _jpeg("4:2:0"),
    "jpeg-444": _jpeg("4:4:4"),
    "jpeg2000": _jpeg2000(),
    "webp": _webp(),
    "avif-420": _avif("4:2:0"),
    "avif-444": _avif("4:4:4"),
}
"""Names end in the chroma subsampling where there is a choice; WebP's is always 4:2:0."""

_FEATURES = {"jpeg": "jpg", "jpeg2000": "jpg_2000", "webp": "webp", "avif": "avif"}


def check_codecs(names: tuple[str, ...]) -> None:
    """Refuse codecs that are not known, or that this machine's Pillow was built without.

    Raises:
        ValueError: names the codec.
    """
    for name in names:
        if name not in BASELINES:
            raise ValueError(f"--codecs has {name}, expected some of {' '.join(BASELINES)}")
        if not features.check(_FEATURES[BASELINES[name].format]):
            raise ValueError(f"this Pillow has no {BASELINES[name].format}: leave {name} out of --codecs")


def library_versions() -> dict[str, str]:
    """Return the version of the library behind each format."""
    libraries = {**_FEATURES, "jpeg": "libjpeg_turbo"}
    return {name: features.version(library) or "unknown" for name, library in libraries.items()}


def encode(x: Pixels, codec: str, setting: int) -> bytes:
    """Encode an image, (h, w) grayscale or (h, w, 3) RGB, as a file of a codec's format."""
    baseline = BASELINES[codec]
    file = io.BytesIO()
    Image.fromarray(x).save(file, baseline.format, **baseline.options(setting, x.ndim == 2))
    return file.getvalue()


def decode(data: bytes, *, gray: bool) -> Pixels:
    """Decode a file; if a grayscale image comes back in colour, return its luma."""
    return np.asarray(open_image(io.BytesIO(data)).convert("L" if gray else "RGB"))
