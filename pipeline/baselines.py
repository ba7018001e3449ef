"""The codecs that ours is compared with, as Pillow writes and reads them, and JPEG XL as imagecodecs does.

Each has the options that make its files small without making it slow out of proportion: optimised Huffman tables
(JPEG), the 9/7 wavelet and the colour transform without a container (JPEG 2000), the slowest method (WebP), one tile
and libaom's speed 6 (AVIF), effort 7 (JPEG XL). AVIF comes in two tunings, each named: `psnr` for the squared error,
`iq` for perception, which libavif takes by default since 1.4. Nothing but the picture goes into a file. HEIC is not
among them: the packages that encode it bring x265, which is under the GPL.
"""

import importlib.util
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, features

from bls.image_files import open_image
from bls.pixels import Pixels

_RATIOS = sorted({round(1.01**step) for step in range(695)}, reverse=True)
"""Compression ratios from 1,000 down to 1, in steps of 1 % or of one."""
_DISTANCES = [round(15 * 0.98**step, 3) for step in range(250)]
"""Distances of JPEG XL from 15 down to 0.1; above 15 its rate does not fall with the distance."""
_JPEG_XL = "jpegxl"
_JPEG_XL_START = b"\xff\x0a"


@dataclass(frozen=True)
class Baseline:
    """A codec at a ladder of settings, the lowest rate first; `options` are those of its encoder."""

    format: str
    setting: str  # name of the settings
    settings: tuple[float, ...]
    all_settings: Sequence[float]  # every useful one, for a search by rate or quality; in the same order
    options: Callable[[float, bool], Mapping[str, Any]]  # of a setting and of whether the image is grayscale


def _jpeg(subsampling: str) -> Baseline:
    def options(quality: float, gray: bool) -> Mapping[str, Any]:
        return {"quality": quality, "subsampling": subsampling, "optimize": True}

    return Baseline("jpeg", "quality", (5, 10, 20, 35, 50, 70, 85, 95), range(1, 101), options)


def _jpeg2000() -> Baseline:
    def options(ratio: float, gray: bool) -> Mapping[str, Any]:
        rate = {"quality_mode": "rates", "quality_layers": [ratio]}
        return {**rate, "irreversible": True, "mct": 0 if gray else 1, "no_jp2": True}

    return Baseline("jpeg2000", "compression ratio", (240, 160, 96, 64, 40, 24, 16, 10), _RATIOS, options)


def _webp() -> Baseline:
    def options(quality: float, gray: bool) -> Mapping[str, Any]:
        return {"quality": quality, "method": 6}

    return Baseline("webp", "quality", (1, 10, 25, 45, 65, 80, 90, 95), range(101), options)


def avif(subsampling: str, *, tune: str | None, speed: int = 6) -> Baseline:
    """Return AVIF at a speed and a tuning of libaom; None leaves the tuning to libavif."""

    def options(quality: float, gray: bool) -> Mapping[str, Any]:
        # One thread: an evaluation's workers share the cores between images.
        one_tile = {"speed": speed, "autotiling": False, "max_threads": 1}
        tuned = {} if tune is None else {"advanced": {"tune": tune}}
        return {**one_tile, **tuned, "quality": quality, "subsampling": "4:0:0" if gray else subsampling}

    return Baseline("avif", "quality", (10, 25, 35, 45, 55, 65, 75, 85), range(101), options)


def jpeg_xl(*, effort: int = 7) -> Baseline:
    """Return JPEG XL at an effort of libjxl."""

    def options(distance: float, gray: bool) -> Mapping[str, Any]:
        return {"effort": effort, "distance": distance, "numthreads": 1}

    return Baseline(_JPEG_XL, "distance", (14, 9, 6, 4, 2.5, 1.5, 0.9, 0.5), _DISTANCES, options)


BASELINES: Mapping[str, Baseline] = {
    "jpeg-420": _jpeg("4:2:0"),
    "jpeg-444": _jpeg("4:4:4"),
    "jpeg2000": _jpeg2000(),
    "webp": _webp(),
    "jpeg-xl": jpeg_xl(),
    "avif-444-psnr": avif("4:4:4", tune="psnr"),
    "avif-444-iq": avif("4:4:4", tune="iq"),
}
"""Names have the chroma subsampling where there is a choice (WebP's is always 4:2:0), and the tuning."""

_FEATURES = {"jpeg": "jpg", "jpeg2000": "jpg_2000", "webp": "webp", "avif": "avif"}


def check_codecs(names: Iterable[str]) -> None:
    """Refuse codecs that are not known, or that this machine does not have.

    Raises:
        ValueError: names the codec.
    """
    for name in names:
        if name not in BASELINES:
            raise ValueError(f"--codecs has {name}, expected some of {' '.join(BASELINES)}")
        if reason := missing(name):
            raise ValueError(f"{reason}, or leave {name} out of --codecs")


@cache
def missing(name: str) -> str:
    """Return why this machine does not have a codec and what to do about it; empty if it has it."""
    baseline = BASELINES[name]
    if baseline.format == _JPEG_XL:
        has_it = importlib.util.find_spec("imagecodecs") is not None
        return "" if has_it else f"imagecodecs is required for {name}: pip install 'bls-codec[compare]'"
    if not features.check(_FEATURES[baseline.format]):
        return f"this Pillow has no {baseline.format}, needed for {name}: install another build"
    try:
        encode(np.zeros((16, 16, 3), np.uint8), name, baseline.settings[0])
    except ValueError as error:  # libaom learned `tune=iq` in 3.12
        return f"this Pillow's AVIF encoder refuses {name} ({error}): install a newer Pillow"
    return ""


def library_versions() -> dict[str, str]:
    """Return the version of the library behind each format that is there."""
    libraries = {**_FEATURES, "jpeg": "libjpeg_turbo"}
    versions = {name: features.version(library) or "unknown" for name, library in libraries.items()}
    if not missing("jpeg-xl"):
        import imagecodecs

        versions[_JPEG_XL] = imagecodecs.jpegxl_version().removeprefix("libjxl ")
    return versions


def encode(x: Pixels, codec: str | Baseline, setting: float) -> bytes:
    """Encode an image, (h, w) grayscale or (h, w, 3) RGB, as a file of a codec's format."""
    baseline = BASELINES[codec] if isinstance(codec, str) else codec
    options = baseline.options(setting, x.ndim == 2)
    if baseline.format == _JPEG_XL:
        import imagecodecs

        return bytes(imagecodecs.jpegxl_encode(x, **options))
    file = io.BytesIO()
    Image.fromarray(x).save(file, baseline.format, **options)
    return file.getvalue()


def decode(data: bytes, *, gray: bool) -> Pixels:
    """Decode a file; if a grayscale image comes back in colour, return its luma."""
    if data.startswith(_JPEG_XL_START):
        import imagecodecs

        return np.asarray(imagecodecs.jpegxl_decode(data, numthreads=1))
    return np.asarray(open_image(io.BytesIO(data)).convert("L" if gray else "RGB"))
