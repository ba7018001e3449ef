"""What effort saves and what it costs: bits at equal PSNR and MS-SSIM against CPU seconds a megapixel.

    python -m benchmarks.effort --images KODAK

Every level of effort at some qualities, all bytes by the real coder, compared with effort 0 at the same PSNR (between
neighbouring qualities, straight lines in the logarithm of the rate). At one quality AVIF's speeds (`tune=psnr`) and,
where the package `imagecodecs` is installed, JPEG XL's efforts stand beside it, on the same images, at the PSNR of
effort 0. Times are of this process on one thread. Writes benchmarks/results/effort.json and effort.svg.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

from benchmarks.effort_plot import draw
from benchmarks.provenance import RESULTS, write_result
from bls import use_huge_pages
from bls.codec import Codec
from bls.measures import images as measures
from bls.pixels import Pixels
from bls.refinement.descent import SCHEDULES
from pipeline.baselines import Baseline, avif, decode, encode, jpeg_xl, library_versions, missing
from pipeline.evaluate.coding import timed

AVIF_SPEEDS = (9, 8, 6, 4, 2, 0)
JPEG_XL_EFFORTS = (3, 5, 7, 9)
ABOVE = (0.0, 0.5, 1.0)
"""How far above a quality the curve of effort 0 reaches with which its efforts are compared."""


@dataclass(frozen=True)
class EffortBenchmark:
    """Code a folder of lossless colour images at every level of effort."""

    images: Path
    qualities: tuple[float, ...] = (2, 4, 6)
    others_at: float = 4
    """The quality at which other codecs are compared."""
    max_images: int | None = None


@dataclass(frozen=True)
class Point:
    """An image coded once."""

    num_bytes: int
    psnr_db: float
    ms_ssim: float
    seconds: float


def main(config: EffortBenchmark) -> None:
    """Measure and draw."""
    use_huge_pages()
    torch.set_num_threads(1)
    paths = sorted(config.images.glob("*.png"))[: config.max_images]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    codec = Codec.load()
    rows = []
    for quality in config.qualities:
        curves = [[measured(x, partial(ours, codec, quality + above, 0)) for above in ABOVE] for x in images]
        for effort in (0, *SCHEDULES):
            codec.compress(images[0][:64, :64], quality=quality, effort=effort)  # compiles what compiles on first use
            points = [measured(x, partial(ours, codec, quality, effort)) for x in images]
            rows.append({"codec": "bls", "quality": quality, "level": effort, **summary(points, curves, images)})
            print(rows[-1], flush=True)
        if quality == config.others_at:
            for row in others(images, [curve[0].psnr_db for curve in curves], [c[0].num_bytes for c in curves]):
                rows.append({"quality": quality, **row})
                print(rows[-1], flush=True)
    result = {"images": [path.name for path in paths], "libraries": library_versions(), "rows": rows}
    print(write_result("effort", result))
    (RESULTS / "effort.svg").write_bytes(draw([row for row in rows if row["quality"] == config.others_at]))


def ours(codec: Codec, quality: float, effort: int, x: Pixels) -> tuple[int, float, Pixels]:
    """Return bytes, seconds and the decoded image."""
    stream, seconds = timed(partial(codec.compress, x, quality=quality, effort=effort))
    return len(stream), seconds, codec.decompress(stream)


def other(codec: Baseline, setting: float, x: Pixels) -> tuple[int, float, Pixels]:
    """Return the same for another codec."""
    data, seconds = timed(partial(encode, x, codec, setting))
    return len(data), seconds, decode(data, gray=False)


def measured(x: Pixels, coded: Callable[[Pixels], tuple[int, float, Pixels]]) -> Point:
    """Code an image and measure what it decodes to."""
    num_bytes, seconds, x_hat = coded(x)
    ms_ssim = measures.ms_ssim(x, x_hat)
    assert ms_ssim is not None
    return Point(num_bytes, measures.psnr_db(measures.mse_255(x, x_hat)), ms_ssim, seconds)


def summary(points: Sequence[Point], curves: Sequence[Sequence[Point]], images: Sequence[Pixels]) -> dict[str, float]:
    """Return means over images: time, and bits relative to effort 0 at equal PSNR and MS-SSIM."""
    pairs = list(zip(points, curves, strict=True))
    at_psnr = [p.num_bytes / at([(c.psnr_db, c.num_bytes) for c in curve], p.psnr_db) for p, curve in pairs]
    at_ms_ssim = [
        p.num_bytes / at([(_ms_ssim_db(c), c.num_bytes) for c in curve], _ms_ssim_db(p)) for p, curve in pairs
    ]
    megapixels = sum(x.shape[0] * x.shape[1] for x in images) / 1e6
    return {
        "cpu_seconds_per_megapixel": sum(p.seconds for p in points) / megapixels,
        "bits_at_equal_psnr_percent": 100 * (fmean(at_psnr) - 1),
        "bits_at_equal_ms_ssim_percent": 100 * (fmean(at_ms_ssim) - 1),
        "num_bytes": sum(p.num_bytes for p in points),
        "psnr_db": fmean(p.psnr_db for p in points),
        "ms_ssim": fmean(p.ms_ssim for p in points),
    }


def others(images: Sequence[Pixels], psnrs_db: Sequence[float], num_bytes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield a row for each speed or effort of the other codecs: bits relative to ours, effort 0, at its PSNR."""
    codecs = {"avif": {speed: avif("4:4:4", tune="psnr", speed=speed) for speed in AVIF_SPEEDS}}
    if not missing("jpeg-xl"):
        codecs["jpeg-xl"] = {effort: jpeg_xl(effort=effort) for effort in JPEG_XL_EFFORTS}
    megapixels = sum(x.shape[0] * x.shape[1] for x in images) / 1e6
    for name, levels in codecs.items():
        fast = next(iter(levels.values()))
        brackets = [bracket(x, fast, psnr_db) for x, psnr_db in zip(images, psnrs_db, strict=True)]
        for level, codec in levels.items():
            ratios, seconds = [], []
            for x, pair, psnr_db, ours_num_bytes in zip(images, brackets, psnrs_db, num_bytes, strict=True):
                points = [measured(x, partial(other, codec, setting)) for setting in pair]
                ratios.append(at([(p.psnr_db, p.num_bytes) for p in points], psnr_db) / ours_num_bytes)
                seconds.append(fmean(p.seconds for p in points))
            yield {
                "codec": name,
                "level": level,
                "cpu_seconds_per_megapixel": sum(seconds) / megapixels,
                "bits_at_equal_psnr_percent": 100 * (fmean(ratios) - 1),
            }


def bracket(x: Pixels, codec: Baseline, psnr_db: float) -> tuple[float, float]:
    """Return two neighbouring settings, the PSNR between them if possible."""
    settings, place = codec.settings, 1
    while place < len(settings) - 1 and measured(x, partial(other, codec, settings[place])).psnr_db < psnr_db:
        place += 1
    return settings[place - 1], settings[place]


def at(curve: Sequence[tuple[float, float]], place: float) -> float:
    """Return a rate between points, or beyond the ends, along straight lines of its logarithm."""
    inner = [quality for quality, _ in curve[1:-1]]
    segment = int(np.searchsorted(inner, place))
    (left, low), (right, high) = curve[segment], curve[segment + 1]
    part = (place - left) / (right - left)
    return math.exp(math.log(low) + part * (math.log(high) - math.log(low)))


def _ms_ssim_db(point: Point) -> float:
    return -10 * math.log10(1 - point.ms_ssim)


if __name__ == "__main__":
    main(tyro.cli(EffortBenchmark, description=__doc__))
