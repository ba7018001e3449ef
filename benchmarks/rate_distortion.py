"""Rate and distortion of real bitstreams over a folder of images, one row per quality, beside published curves.

    python -m benchmarks.rate_distortion --images KODAK --reference kodak.csv --name kodak

Every byte is counted; means are over images of per-image values, as the published ones are. Writes
benchmarks/results/NAME.json and NAME.csv (a row per image, quality and coder).
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from benchmarks.provenance import RESULTS, write_result
from bls import quality as measures
from bls.codec import Codec

ANCHOR = "jpeg-420"
COMPARED = "balle2017-retrained-mse"


@dataclass(frozen=True)
class RateDistortion:
    """Measure rate and distortion of a bundle over a folder of images."""

    images: Path
    """Folder of PNG images."""
    name: str = "rate_distortion"
    """Of the files in benchmarks/results."""
    bundle: Path | None = None
    """Folder of fitted models; by default the shipped one."""
    reference: Path | None = None
    """CSV of published points: codec, bpp, psnr_rgb_db, ms_ssim."""


def main(config: RateDistortion) -> None:
    """Code and decode every image at every quality, print and write the table."""
    codec = Codec.load(config.bundle)
    rows = [row for path in sorted(config.images.glob("*.png")) for row in _measure(codec, path)]
    _write_csv(RESULTS / f"{config.name}.csv", rows)
    points = [_mean(rows, quality) for quality in codec.qualities]
    for point in points:
        print("  ".join(f"{name} {value:.4f}" for name, value in point.items()))
    reference = _read_reference(config.reference) if config.reference else {}
    result = {"bundle": codec.fingerprint, "num_images": len(rows) // len(points), "points": points}
    for codec_name, curve in reference.items():
        result[f"bd_rate_percent_against_{codec_name}"] = _bd_rate(curve, points)
    if reference:
        bpp, psnr_db = reference[COMPARED]
        at_equal_psnr = [float(np.interp(point["psnr_db"], psnr_db, bpp)) for point in points]
        result[f"bpp_of_{COMPARED}_at_equal_psnr"] = at_equal_psnr
    print(write_result(config.name, result))


def _measure(codec: Codec, path: Path) -> Iterator[dict[str, Any]]:
    x = np.asarray(Image.open(path).convert("RGB"))
    height, width = x.shape[:2]
    for quality in codec.qualities:
        sizes = {coder: codec.compress(x, quality=quality, coder=coder) for coder in ("static", "adaptive")}
        x_hat = codec.decompress(sizes["adaptive"])
        assert np.array_equal(x_hat, codec.decompress(sizes["static"]))
        symbols = codec.decode(sizes["static"])[1]
        mse_255 = measures.mse_255(x, x_hat)
        yield {
            "image": path.name,
            "quality": quality,
            "bpp": measures.bpp(len(sizes["adaptive"]), height=height, width=width),
            "static_bpp": measures.bpp(len(sizes["static"]), height=height, width=width),
            "estimated_bpp": codec.estimate_bits(symbols, quality=quality) / (height * width),
            "psnr_db": measures.psnr_db(mse_255),
            "psnr_luma_db": measures.psnr_luma_db(x, x_hat),
            "ms_ssim": measures.ms_ssim(x, x_hat),
            "nlpd": measures.nlpd(x, x_hat),
        }


def _mean(rows: Sequence[dict[str, Any]], quality: int) -> dict[str, float]:
    """Return the mean of every column over the images of one quality."""
    chosen = [row for row in rows if row["quality"] == quality]
    return {name: float(np.mean([row[name] for row in chosen])) for name in chosen[0] if name != "image"}


def _read_reference(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return (bpp, PSNR) curves by codec, those that are compared with."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            if row["codec"] in (ANCHOR, COMPARED):
                rates, qualities = curves.setdefault(row["codec"], ([], []))
                rates.append(float(row["bpp"]))
                qualities.append(float(row["psnr_rgb_db"]))
    return curves


def _bd_rate(curve: tuple[list[float], list[float]], points: Sequence[dict[str, float]]) -> float:
    rates, qualities = (np.array(values) for values in curve)
    # Published curves may fall by a hair between neighbouring settings; keep the points that rise.
    rising = qualities > np.maximum.accumulate(np.concatenate(([-np.inf], qualities[:-1])))
    test = ([p["bpp"] for p in points], [p["psnr_db"] for p in points])
    return measures.bd_rate((list(rates[rising]), list(qualities[rising])), test)


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}
            for row in rows
        )


if __name__ == "__main__":
    main(tyro.cli(RateDistortion))
