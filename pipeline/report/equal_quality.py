"""Bytes that other codecs need for the quality that ours gave an image: found by bisection over their settings.

Between the last setting that falls short and the first that reaches the quality, the logarithm of the size is
interpolated: settings of JPEG 2000 and AVIF are coarse. Files hold the picture and nothing else, as our bitstreams do.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np

from bls.measures import images as measures
from bls.pixels import Pixels
from pipeline import baselines
from pipeline.baselines import BASELINES

CODECS: Mapping[str, str] = {
    "jpeg-420": "JPEG",
    "jpeg2000": "JPEG 2000",
    "webp": "WebP",
    "jpeg-xl": "JPEG XL",
    "avif-444-psnr": "AVIF (tune=psnr)",
    "avif-444-iq": "AVIF (tune=iq)",
}
"""The codecs of pipeline/baselines.py that a report compares with, where the machine has them; their common names."""


@dataclass(frozen=True)
class Target:
    """An image and what our codec made of it; a quality that does not exist is None."""

    x: Pixels
    num_bytes: int
    psnr_db: float | None
    ms_ssim: float | None


@dataclass(frozen=True)
class Need:
    """Bytes that a codec needs as a multiple of ours, None where it is unknown: `reach` says why."""

    codec: str
    measure: str
    ratio: float | None
    reach: str = "reached"  # or "too_low": its best setting falls short; "too_high": its worst setting is better


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of what ours needs more than a codec, in percent (a minus: fewer); None of no image."""

    codec: str
    measure: str
    num_images: int
    num_too_low: int
    num_too_high: int
    quartiles: tuple[float, float, float] | None


def compare(targets: Sequence[Target], *, codecs: Sequence[str], num_threads: int) -> list[Need]:
    """Code every image with every codec until the qualities meet; images run beside each other."""
    with ThreadPoolExecutor(num_threads) as pool:
        jobs = [(target, codec) for target in targets for codec in codecs]
        return [need for needs in pool.map(lambda job: needs_of(*job), jobs) for need in needs]


def needs_of(target: Target, codec: str) -> list[Need]:
    """Find what one codec needs for the PSNR and for the MS-SSIM of an image."""
    settings, gray = BASELINES[codec].all_settings, target.x.ndim == 2

    @cache
    def coded(index: int) -> bytes:
        return baselines.encode(target.x, codec, settings[index])

    @cache
    def psnr_db(index: int) -> float:
        return measures.psnr_db(measures.mse_255(target.x, baselines.decode(coded(index), gray=gray)))

    @cache
    def ms_ssim(index: int) -> float:
        value = measures.ms_ssim(target.x, baselines.decode(coded(index), gray=gray))
        assert value is not None, "it was measured of this image before"
        return value

    wanted: dict[str, tuple[Callable[[int], float], float | None]] = {
        "psnr_db": (psnr_db, target.psnr_db),
        "ms_ssim": (ms_ssim, target.ms_ssim),
    }
    found = []
    for measure, (quality, value) in wanted.items():
        if value is not None:
            num_bytes, reach = bytes_at(value, quality, lambda index: len(coded(index)), len(settings))
            found.append(Need(codec, measure, num_bytes and num_bytes / target.num_bytes, reach))
    return found


def bytes_at(
    wanted: float, quality: Callable[[int], float], num_bytes: Callable[[int], int], num_settings: int
) -> tuple[float | None, str]:
    """Find the bytes at which a quality is reached, settings 0 to `num_settings` - 1 being ever better."""
    # The best settings are the slowest: bisection tries them only if no lower setting suffices.
    high = bisect_left(range(num_settings), wanted, key=quality)
    low = high - 1
    if high == num_settings:
        return None, "too_low"
    if low < 0:
        return (None, "too_high") if quality(0) > wanted else (float(num_bytes(0)), "reached")
    below, above = quality(low), quality(high)
    share = (wanted - below) / (above - below) if math.isfinite(above) and above > below else 1.0
    logarithm = (1 - share) * math.log(num_bytes(low)) + share * math.log(num_bytes(high))
    return math.exp(logarithm), "reached"


def spreads(needs: Sequence[Need]) -> list[Spread]:
    """Sum up what each codec that was tried needs for each measure."""
    tried = {need.codec for need in needs}
    return [
        _spread(codec, measure, [need for need in needs if (need.codec, need.measure) == (codec, measure)])
        for measure in ("psnr_db", "ms_ssim")
        for codec in CODECS
        if codec in tried
    ]


def _spread(codec: str, measure: str, needs: Sequence[Need]) -> Spread:
    percents = [100 * (1 / need.ratio - 1) for need in needs if need.ratio is not None]
    quartiles = tuple(np.percentile(percents, (25, 50, 75)).tolist()) if percents else None
    reaches = [need.reach for need in needs]
    return Spread(codec, measure, len(percents), reaches.count("too_low"), reaches.count("too_high"), quartiles)
