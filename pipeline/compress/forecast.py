"""What compressing a dataset would take, estimated from a sample of its images (`--dry-run`)."""

import random
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.console.text import duration_text, num_bytes_text
from pipeline.ledger.schema import SOURCE_SIZES, STORED_SIZES
from pipeline.ledger.shard import Shard
from pipeline.sources.reference import ImageReference
from pipeline.status import GOOD, Status

SAMPLE_SIZE = 32
_CHUNK_SIZE = 8  # images that are measured together
_MAX_SECONDS = 60.0  # after which a sample of large images is large enough


class Measuring(Protocol):
    """What compresses the sample; see pipeline/compress/worker.py."""

    def measure(self, shard: Shard) -> list[dict[str, Any]]:
        """Do a shard and write nothing; return the rows of its metrics."""
        ...


@dataclass(frozen=True)
class Forecast:
    """Rows of the metrics of a sample, and the seconds that one worker needed for it."""

    rows: Sequence[Mapping[str, Any]]
    seconds: float

    def report(self, *, num_images: int, num_left: int, num_workers: int) -> list[tuple[str, str]]:
        """Return the rows of a table with estimates for the whole."""
        seconds = self.seconds / len(self.rows) * num_left / num_workers
        num_bad = sum(row["status"] not in GOOD for row in self.rows)
        num_kept = sum(row["status"] == Status.KEPT for row in self.rows)
        kept = f", {num_kept} kept" if num_kept else ""
        return [
            ("source", self._total(SOURCE_SIZES, num_images)),
            ("stored", self._total(STORED_SIZES, num_images)),
            ("bpp", self._rate()),
            ("PSNR", self._mean("psnr_db", ".2f", " dB")),
            ("time", f"about {duration_text(seconds)} with {num_workers} workers such as this process"),
            *self._effort(),
            ("sample", f"{len(self.rows)} of {num_images} images at random{kept}, {num_bad} of them quarantined"),
        ]

    def _effort(self) -> list[tuple[str, str]]:
        """Tell what part of the work effort takes, if there is any."""
        good = [row for row in self.rows if row["status"] in GOOD]
        if not good or not good[0]["effort"]:
            return []
        seconds = sum(row["analysis_seconds"] for row in good)
        total = sum(row[name] for row in good for name in row if name.endswith("_seconds") and row[name] is not None)
        pixels = sum(row["width"] * row["height"] for row in good)
        speed = f"{seconds * 1e6 / pixels:.2g} s a megapixel"
        return [(f"effort {good[0]['effort']}", f"{100 * seconds / total:.0f} % of the work is analysis, {speed}")]

    def _values(self, column: str) -> list[float]:
        return [row[column] for row in self.rows if row["status"] in GOOD and row[column] is not None]

    def _total(self, columns: Sequence[str], num_images: int) -> str:
        """Say what the images add up to, quarantined ones left out, and the standard error of that."""
        values = [sum(row[column] or 0 for column in columns) for row in self.rows if row["status"] in GOOD]
        if not values:
            return "unknown"
        num_good = num_images * len(values) / len(self.rows)
        error = statistics.stdev(values) / len(values) ** 0.5 * num_good if len(values) > 1 else 0.0
        if len(self.rows) == num_images:
            error = 0.0
        return f"{num_bytes_text(round(statistics.mean(values) * num_good))} ± {num_bytes_text(round(error))}"

    def _rate(self) -> str:
        """Say what all bits over all pixels are."""
        good = [row for row in self.rows if row["status"] in GOOD]
        if not good:
            return "unknown"
        total = 8 * sum(row["num_bytes"] for row in good) / sum(row["width"] * row["height"] for row in good)
        rates = [row["bpp"] for row in good]
        return f"{total:.3f} (all bits over all pixels), images from {min(rates):.3f} to {max(rates):.3f} in the sample"

    def _mean(self, column: str, spec: str, unit: str = "") -> str:
        values = self._values(column)
        if not values:
            return "unknown"
        low, high = min(values), max(values)
        return f"{statistics.mean(values):{spec}}{unit}, from {low:{spec}} to {high:{spec}} in the sample"


def draw_sample(references: Iterable[ImageReference], size: int = SAMPLE_SIZE) -> tuple[int, list[ImageReference]]:
    """Count references and draw a uniform sample, always the same, holding no more than the sample."""
    rng = random.Random(0)
    sample: list[ImageReference] = []
    count = 0
    for count, reference in enumerate(references, start=1):
        if len(sample) < size:
            sample.append(reference)
        elif (place := rng.randrange(count)) < size:
            sample[place] = reference
    return count, sample


def measure(compressor: Measuring, sample: Sequence[ImageReference], *, quality: float | None = None) -> Forecast:
    """Compress a sample, or as much of it as a minute lets, at a quality or as the compressor is set up."""
    start = time.perf_counter()
    rows: list[dict[str, Any]] = []
    while len(rows) < len(sample) and time.perf_counter() - start < _MAX_SECONDS:
        rows += compressor.measure(Shard(0, tuple(sample[len(rows) : len(rows) + _CHUNK_SIZE]), quality=quality))
    return Forecast(rows, time.perf_counter() - start)
