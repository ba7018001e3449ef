"""What the tuning of AVIF is worth on Kodak: how many bits more or less ours needs at equal PSNR, per tuning.

    python -m benchmarks.avif_tuning --images KODAK

The curve of ours is the one in benchmarks/results/kodak/summary.csv. `default` leaves the tuning to
libavif. Writes benchmarks/results/avif_tuning.json.
"""

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import tyro
from PIL import Image

from benchmarks.provenance import RESULTS, write_result
from bls.measures.images import bd_rate, bpp, mse_255, psnr_db
from bls.pixels import Pixels
from pipeline.baselines import Baseline, avif, decode, encode, library_versions

SUBSAMPLING = "4:4:4"
TUNINGS = {"default": None, "iq": "iq", "psnr": "psnr", "ssim": "ssim"}


@dataclass(frozen=True)
class AvifTuning:
    """Code a folder of lossless colour images as AVIF at the evaluation's settings, once per tuning."""

    images: Path


def main(config: AvifTuning) -> None:
    """Measure each tuning."""
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(config.images.glob("*.png"))]
    result: dict[str, Any] = {
        "subsampling": SUBSAMPLING,
        "libavif": library_versions()["avif"],
        "num_images": len(images),
    }
    for name, tune in TUNINGS.items():
        rates, qualities = curve(images, avif(SUBSAMPLING, tune=tune))
        percent = bd_rate((rates, qualities), our_curve())
        result[name] = {"bpp": rates, "psnr_db": qualities, "bd_rate_of_ours_percent": percent}
        print(f"{name}: ours needs {percent:+.1f} % bits at equal PSNR")
    print(write_result("avif_tuning", result))


def curve(images: list[Pixels], codec: Baseline) -> tuple[list[float], list[float]]:
    """Return mean bpp and mean PSNR of the images at each setting."""
    points = []
    with ThreadPoolExecutor() as pool:
        for setting in codec.settings:
            of_images = list(pool.map(partial(measure, codec=codec, setting=setting), images))
            points.append([fmean(values) for values in zip(*of_images, strict=True)])
    rates, qualities = zip(*points, strict=True)
    return list(rates), list(qualities)


def measure(x: Pixels, *, codec: Baseline, setting: float) -> tuple[float, float]:
    """Return the bpp and the PSNR in dB of one image."""
    data = encode(x, codec, setting)
    x_hat = decode(data, gray=False)
    height, width = x.shape[:2]
    return bpp(len(data), height=height, width=width), psnr_db(mse_255(x, x_hat))


def our_curve() -> tuple[list[float], list[float]]:
    """Return the committed curve of the mixed coder."""
    with (RESULTS / "kodak" / "summary.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["codec"] == "bls-mixed"]
    return [float(row["bpp"]) for row in rows], [float(row["psnr_db"]) for row in rows]


if __name__ == "__main__":
    main(tyro.cli(AvifTuning, description=__doc__))
