"""How well a set of photographs meets each kind of target, and what a budget gains over a rate or quality for each.

    python -m benchmarks.targets --images FOLDER

The compress job codes all photographs at a fixed quality and to one target of each kind. Then it codes them to a budget
for all together, of the bytes that the target rate took: its mean squared error is compared with that of the target
rate, and with that of JPEG files of one quality that take as many bytes. A job's images per second are counted between
its first and its last commit. Writes benchmarks/results/targets.json.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from benchmarks.provenance import write_result
from benchmarks.timing import images_per_second
from bls.bitstream import MAX_PIXELS
from bls.measures.images import mse_255
from pipeline import baselines, images
from pipeline.ledger.schema import STORED_SIZES
from pipeline.sources.opening import open_source

JOB = Path(__file__).parent.parent / "jobs" / "compress_dataset.py"
TOLERANCES = {"psnr_db": 0.02, "ms_ssim": 0.0005, "bpp": 0.005, "num_bytes": 0.005}
"""What the search ends within; of sizes relatively."""


@dataclass(frozen=True)
class Targets:
    """Code photographs to targets and to a budget."""

    images: Path
    """Folder of photographs, best a thousand."""
    quality: float = 4
    psnr_db: float = 34
    ms_ssim: float = 0.97
    bpp: float = 0.5
    num_bytes: int = 6000
    jpeg: str = "jpeg-420"
    """Baseline that the budget is compared with."""
    num_workers: int = 2


def main(config: Targets) -> None:
    """Run the jobs, print and write what they gave."""
    fixed, speed = _compress(config, "--quality", config.quality)
    result: dict[str, Any] = {"num_images": fixed.num_rows, "quality": config.quality, "images_per_second": speed}
    result["targets"] = {}
    for name in TOLERANCES:
        target = getattr(config, name)
        rows, speed = _compress(config, f"--target-{name.replace('_', '-')}", target)
        result["targets"][name] = _met(rows, name, target) | {"speed_to_fixed": speed / result["images_per_second"]}
        if name == "bpp":
            result["budget"] = _budget(config, rows)
    print(json.dumps(result, indent=2))
    print(write_result("targets", result))


def _compress(config: Targets, *options: object) -> tuple[pa.Table, float]:
    """Return the metrics of the job's images, and images per second."""
    with tempfile.TemporaryDirectory() as output:
        paths = ("--input", config.images, "--output", output, "--num-workers", config.num_workers)
        command = [sys.executable, *map(str, (JOB, *paths, *options))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return pq.read_table(Path(output, "metrics")), images_per_second(Path(output))


def _met(rows: pa.Table, name: str, target: float) -> dict[str, Any]:
    """Return how many images meet the target, and how far they are from it on its safe side."""
    value, met = _column(rows, name), _column(rows, "target_met").astype(bool)
    is_size = name in ("bpp", "num_bytes")
    margin = (1 - value / target) if is_size else value - target
    inside = margin[met]
    return {
        "target": target,
        "met": int(met.sum()),
        "at_an_end_of_the_range": int((~met).sum()),
        "met_but_violated": int((inside < 0).sum()),
        "met_within_tolerance": int((inside <= TOLERANCES[name]).sum()),
        "median_margin": float(np.median(inside)),
        "largest_margin": float(inside.max()),
        "quality_percentiles_5_50_95": np.percentile(_column(rows, "quality"), (5, 50, 95)).tolist(),
    }


def _budget(config: Targets, at_rate: pa.Table) -> dict[str, Any]:
    """Return mean squared errors at the bytes that a rate for each image took."""
    budget = _stored(at_rate)
    rows, _ = _compress(config, "--max-total-bytes", f"{budget / 1000}kB")
    jpeg_quality, jpeg_bytes, jpeg_mse = _jpeg_within(config, _stored(rows))
    mse, mse_at_rate = _mse(rows), _mse(at_rate)
    return {
        "max_total_bytes": budget,
        "stored_bytes": _stored(rows),
        "used": _stored(rows) / budget,
        "quality_min_mean_max": [float(f(_column(rows, "quality"))) for f in (np.min, np.mean, np.max)],
        "mse_255": mse,
        "rate_for_each_image_mse_255": mse_at_rate,
        "mse_to_rate_for_each_image": mse / mse_at_rate,
        "jpeg_quality": jpeg_quality,
        "jpeg_bytes": jpeg_bytes,
        "jpeg_mse_255": jpeg_mse,
        "mse_to_jpeg": mse / jpeg_mse,
    }


def _jpeg_within(config: Targets, budget: float) -> tuple[int, int, float]:
    """Return the highest quality of JPEG whose files of all images fit into a budget, their bytes, and their error."""
    source = open_source(str(config.images))
    pixels = [images.decode(source.read(each), max_pixels=MAX_PIXELS).pixels for each in source.references()]

    def files(quality: int) -> list[bytes]:
        return [baselines.encode(x, config.jpeg, quality) for x in pixels]

    low, high = 1, 95
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(map(len, files(middle))) <= budget else (low, middle - 1)
    best = files(low)
    errors = [mse_255(x, baselines.decode(data, gray=x.ndim == 2)) for x, data in zip(pixels, best, strict=True)]
    return low, sum(map(len, best)), float(np.mean(errors))


def _stored(rows: pa.Table) -> int:
    return int(sum(np.nansum(_column(rows, name)) for name in STORED_SIZES))


def _mse(rows: pa.Table) -> float:
    return float(np.nanmean(_column(rows, "mse_255")))


def _column(rows: pa.Table, name: str) -> npt.NDArray[Any]:
    return np.asarray(rows[name].to_numpy())


if __name__ == "__main__":
    main(tyro.cli(Targets))
