"""What a compress job costs by the image and by the megapixel, and what jobs of any size take by that.

    python -m benchmarks.scaling measure --images PHOTOS --held-out OTHER_PHOTOS
    python -m benchmarks.scaling predict --num-images 1e8 --megapixels 1 --num-workers 100

`measure` runs the compress and the decompress job over squares of several sizes made from photographs, in small and in
large shards, on one worker and on one per CPU. From the commit markers it fits

    seconds of a shard = shard + image * images + megapixel * megapixels

by least squares of the relative error, from the rows the same of every stage; what the wall clock has beside the work
is the start. Then it predicts a compress job over other photographs, in the sizes that they have, and runs it; and runs
it at every quality. Writes benchmarks/results/scaling.json, from which `predict` works.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tyro
from PIL import Image
from scipy.optimize import nnls

from benchmarks.provenance import RESULTS, write_result
from bls.bundle import load_bundle
from pipeline.console.text import duration_text, markdown_table
from pipeline.ledger.output import Output
from pipeline.report.times import job_times

JOBS = Path(__file__).parent.parent / "jobs"
SQUARES = {64: 384, 128: 384, 256: 256, 512: 96, 1024: 32, 2048: 16}
"""Side -> how many images: about two minutes of one worker in all."""


@dataclass(frozen=True)
class Measure:
    """Fit costs to runs, and check what they predict on other runs."""

    images: Path
    """Folder of photographs to make squares from."""
    held_out: Path
    """Folder of other photographs, some hundred, whose jobs are predicted."""
    quality: float = 4
    shard_sizes: tuple[int, ...] = (8, 64)


@dataclass(frozen=True)
class Costs:
    """Seconds of a worker; `start` is what the job takes beside the work, once."""

    start: float
    shard: float
    image: float
    megapixel: float

    def predict(self, num_images: float, megapixels: float, num_shards: float, num_workers: float) -> float:
        """Return the seconds that workers take for images with this sum of megapixels."""
        work = num_shards * self.shard + num_images * self.image + megapixels * self.megapixel
        # At the end workers wait for the last one: half a shard, on average.
        last = work / num_shards / 2 if num_workers > 1 else 0.0
        return self.start + work / num_workers + last


@dataclass(frozen=True)
class Predict:
    """Predict what a job takes, from the measured costs of a worker on a machine that is full."""

    num_images: tuple[float, ...] = (1e6, 1e7, 1e8, 1e9)
    megapixels: float = 1.0
    """Size of each image."""
    num_workers: tuple[int, ...] = (1, 16, 256, 4096)
    shard_size: int = 128
    price_per_worker_hour: float = 0.0
    """Price of a worker's CPUs for an hour, in the currency of your choice."""


@dataclass
class _Run:
    """A job that was run: its wall time and what its markers and rows say."""

    seconds: float
    working_seconds: float
    shards: list[tuple[float, int, float]] = field(default_factory=list)  # seconds, images, megapixels
    images: list[dict[str, Any]] = field(default_factory=list)


def main(config: Measure | Predict) -> None:
    """Measure or predict."""
    if isinstance(config, Measure):
        _measure(config)
    else:
        print("\n".join(_table(config)))


def _measure(config: Measure) -> None:
    result: dict[str, Any] = {"quality": config.quality, "compress": {}, "decompress": {}}
    with tempfile.TemporaryDirectory() as folder:
        squares, output = Path(folder, "squares"), Path(folder, "compressed")
        _make_squares(config.images, squares)
        for num_workers in sorted({1, os.cpu_count() or 1}):
            compressed, restored = [], []
            for size in config.shard_sizes:
                compressed.append(_compress(squares, output, num_workers, quality=config.quality, shard_size=size))
                restored.append(_run("decompress_dataset", output, Path(folder, "restored"), num_workers))
                shutil.rmtree(output)
                shutil.rmtree(Path(folder, "restored"))
            check = _check(config, _fit(compressed), num_workers, output)
            for job, runs in (("compress", compressed), ("decompress", restored)):
                stages = [name for name in runs[0].images[0] if name.endswith("_seconds")]
                result[job][f"{num_workers}_workers"] = {
                    "costs": asdict(_fit(runs)),
                    "stages": {name.removesuffix("_seconds"): _fit_stage(runs, name) for name in stages},
                    **({"check": check} if job == "compress" else {}),
                }
        result["work_seconds_per_megapixel_by_quality"] = {
            quality: _seconds_per_megapixel(config.held_out, output, quality)
            for quality in load_bundle().whole_qualities
        }
    print(json.dumps(result, indent=1))
    print(write_result("scaling", result))


def _check(config: Measure, costs: Costs, num_workers: int, output: Path) -> dict[str, float]:
    """Predict a job over other photographs, and run it."""
    run = _compress(config.held_out, output, num_workers, quality=config.quality)
    shutil.rmtree(output)
    num_images, megapixels = len(run.images), sum(shard[2] for shard in run.shards)
    seconds = costs.predict(num_images, megapixels, len(run.shards), num_workers)
    return {
        "num_images": num_images,
        "megapixels": megapixels,
        "num_shards": len(run.shards),
        "seconds": run.seconds,
        "predicted_seconds": seconds,
        "predicted_to_measured": seconds / run.seconds,
        "predicted_to_measured_without_start": (seconds - costs.start) / run.working_seconds,
    }


def _seconds_per_megapixel(images: Path, output: Path, quality: float) -> float:
    """Return what a worker takes when all CPUs work."""
    run = _compress(images, output, os.cpu_count() or 1, quality=quality)
    shutil.rmtree(output)
    seconds, _, megapixels = np.sum(run.shards, axis=0)
    return float(seconds / megapixels)


def _make_squares(photographs: Path, folder: Path) -> None:
    """Make squares of the middles of photographs, as JPEG; each size is a folder, so that shards are mostly of one."""
    paths = sorted(path for path in photographs.iterdir() if path.suffix in (".jpg", ".png"))
    for side, count in SQUARES.items():
        (folder / f"{side:04d}").mkdir(parents=True)
        for number, path in enumerate(islice(cycle(paths), count)):
            with Image.open(path) as image:
                edge = min(image.size)
                left, top = (image.width - edge) // 2, (image.height - edge) // 2
                square = image.convert("RGB").crop((left, top, left + edge, top + edge))
            square.resize((side, side), Image.Resampling.LANCZOS).save(
                folder / f"{side:04d}" / f"{number:04d}.jpg", quality=90
            )


def _compress(images: Path, output: Path, num_workers: int, *, quality: float, shard_size: int | None = None) -> _Run:
    options = ["--quality", quality, *(["--shard-size", shard_size] if shard_size else [])]
    return _run("compress_dataset", images, output, num_workers, *options)


def _run(job: str, images: Path, output: Path, num_workers: int, *options: object) -> _Run:
    """Run a job."""
    command = [sys.executable, JOBS / f"{job}.py", "--input", images, "--output", output]
    command += ["--num-workers", num_workers, *options]
    start = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    markers = Output(str(output)).markers()
    run = _Run(seconds, job_times(markers).seconds)
    for marker in markers:
        (stint,) = marker.stints
        run.shards.append((stint.seconds, marker.summary.num_images, marker.summary.num_pixels / 1e6))
        run.images += pq.read_table(output / marker.files["metrics"].name).to_pylist()
    return run


def _fit(runs: Sequence[_Run]) -> Costs:
    shards = np.array([shard for run in runs for shard in run.shards])
    seconds = shards[:, 0]
    shard, image, megapixel = _least_squares(np.column_stack((np.ones(len(shards)), shards[:, 1:])), seconds)
    start = float(np.mean([run.seconds - run.working_seconds for run in runs]))
    return Costs(start, shard, image, megapixel)


def _fit_stage(runs: Sequence[_Run], column: str) -> dict[str, float]:
    """Fit a stage's seconds to the means over images of one size: single ones have outliers."""
    by_size: dict[float, list[float]] = {}
    for run in runs:
        for row in run.images:
            by_size.setdefault(row["width"] * row["height"] / 1e6, []).append(row[column])
    megapixels = np.array(list(by_size))
    seconds = np.array([np.mean(values) for values in by_size.values()])
    image, megapixel = _least_squares(np.column_stack((np.ones(len(megapixels)), megapixels)), seconds)
    return {"image": image, "megapixel": megapixel}


def _least_squares(terms: np.ndarray, seconds: np.ndarray) -> list[float]:
    """Return the non-negative coefficients with the least relative error."""
    coefficients, _ = nnls(terms / seconds[:, None], np.ones(len(seconds)))
    return [float(value) for value in coefficients]


def _table(config: Predict) -> list[str]:
    measured = _result("scaling")["compress"]
    costs = Costs(**measured[max(measured, key=lambda name: int(name.partition("_")[0]))]["costs"])
    planning_seconds = _result("planning")["plan_1000000_cpu_seconds_per_100000"] / 1e5
    driver_seconds = max(run["run_cpu_milliseconds_per_shard"] for run in _result("driver")["runs"]) / 1e3
    heads = ["images", "worker hours", *(f"workers: {num_workers:,}" for num_workers in config.num_workers)]
    rows = []
    for num_images in config.num_images:
        num_shards = max(num_images / config.shard_size, 1.0)
        sizes = num_images, num_images * config.megapixels, num_shards
        alone = costs.start + driver_seconds * num_shards  # one driver gives out all shards
        work = (costs.predict(*sizes, 1) - costs.start) / 3600
        rows.append([f"{num_images:,.0f}", f"{work:,.0f}"])
        for num_workers in config.num_workers:
            seconds = planning_seconds * num_images + max(costs.predict(*sizes, num_workers), alone)
            rows[-1].append(duration_text(seconds))
        if config.price_per_worker_hour:
            rows[-1].append(f"{work * config.price_per_worker_hour:,.2f}")
    return markdown_table([*heads, *(["price"] if config.price_per_worker_hour else [])], rows)


def _result(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


if __name__ == "__main__":
    main(tyro.cli(Measure | Predict))
