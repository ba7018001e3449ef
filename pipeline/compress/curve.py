"""Size and PSNR of a dataset's images by quality, measured on a sample: what a budget is steered by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bls.ladder import INDEX_STEPS, QualityRange, index_of, quality_of, quality_text
from pipeline.compress.forecast import Measuring
from pipeline.console.text import num_bytes_text
from pipeline.ledger.schema import STORED_SIZES
from pipeline.ledger.shard import Shard
from pipeline.sources.reference import ImageReference
from pipeline.status import GOOD

MAX_PIXELS = 2**24
"""Pixels of a sample, about: a minute or two of one CPU."""
_FIRST_QUALITY = 4.0
_CHUNK_SIZE = 8  # images that are measured together, until their pixels are enough


class Point(NamedTuple):
    """A quality with the mean stored size of an image, quarantined ones included, and its mean PSNR."""

    quality: float
    num_bytes: float
    psnr_db: float | None


@dataclass(frozen=True)
class Curve:
    """A curve from a sample of so many images; the lowest quality comes first."""

    num_images: int
    points: Sequence[Point]

    def to_json(self) -> dict[str, Any]:
        """Return what a manifest keeps."""
        return {"num_images": self.num_images, "points": [list(point) for point in self.points]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Curve":
        """Read it again."""
        return cls(value["num_images"], [Point(*point) for point in value["points"]])

    def num_bytes(self, quality: Any) -> Any:
        """Return the size of an image at a quality, or at each of an array; its logarithm is linear between points."""
        sizes = np.maximum.accumulate([max(point.num_bytes, 1.0) for point in self.points])
        return np.exp(np.interp(quality, [point.quality for point in self.points], np.log(sizes)))

    def highest_quality(
        self, num_bytes: float, served: Sequence[QualityRange], *, within: tuple[float, float] = (0.0, np.inf)
    ) -> float:
        """Return the highest served quality at which an image has no more bytes than this, or the lowest served.

        If any served quality lies `within` these bounds, it is one of those.
        """
        indices = np.concatenate([np.arange(index_of(each.low), index_of(each.high) + 1) for each in served])
        inside = (within[0] <= indices / INDEX_STEPS) & (indices / INDEX_STEPS <= within[1])
        indices = indices[inside] if inside.any() else indices
        small = indices[self.num_bytes(indices / INDEX_STEPS) <= num_bytes]
        return quality_of(int(small[-1] if len(small) else indices[0]))

    def check_reaches(self, max_num_bytes: int, num_images: int) -> None:
        """Refuse a budget for this many images that no quality fits.

        Raises:
            ValueError: says what the range of qualities reaches.
        """
        least, most = (round(num_images * self.points[end].num_bytes) for end in (0, -1))
        if not least <= max_num_bytes <= most:
            low, high = (quality_text(self.points[end].quality) for end in (0, -1))
            raise ValueError(
                f"--max-total-bytes is {num_bytes_text(max_num_bytes)}, expected a budget from about "
                f"{num_bytes_text(least)}, which the {num_images} images take at quality {low}, to "
                f"{num_bytes_text(most)} at quality {high}"
            )

    def table(self, num_images: int) -> list[tuple[str, str]]:
        """Return rows that tell the total of this many images, and their PSNR, by quality."""
        return [
            (
                f"quality {quality_text(point.quality)}",
                f"{num_bytes_text(round(point.num_bytes * num_images))}"
                + ("" if point.psnr_db is None else f", {point.psnr_db:.2f} dB"),
            )
            for point in self.points
        ]


def measure_curve(
    compressor: Measuring,
    sample: Sequence[ImageReference],
    served: Sequence[QualityRange],
    *,
    max_pixels: int = MAX_PIXELS,
) -> Curve:
    """Compress a sample, or as much of it as has `max_pixels`, at the ends of the range and the whole numbers between.

    Raises:
        ValueError: no image of the sample can be compressed.
    """
    first = min((quality for each in served for quality in each.whole), key=lambda q: abs(q - _FIRST_QUALITY))
    rows: list[dict[str, Any]] = []
    while len(rows) < len(sample) and sum(_num_pixels(row) for row in rows) < max_pixels:
        chunk = tuple(sample[len(rows) : len(rows) + _CHUNK_SIZE])
        rows += compressor.measure(Shard(0, chunk, quality=first))
    if not any(row["status"] in GOOD for row in rows):
        raise ValueError(f"none of {len(rows)} images can be compressed, {rows[0]['key']}: {rows[0]['error_message']}")
    qualities = {served[0].low, *(quality for each in served for quality in each.whole), served[-1].high}
    shard = Shard(0, tuple(sample[: len(rows)]))
    points = [
        _point(quality, rows if quality == first else compressor.measure(_at(shard, quality)))
        for quality in sorted(qualities)
    ]
    return Curve(len(rows), points)


def _at(shard: Shard, quality: float) -> Shard:
    return Shard(shard.index, shard.items, quality=quality)


def _point(quality: float, rows: Sequence[Mapping[str, Any]]) -> Point:
    good = [row for row in rows if row["status"] in GOOD]
    num_bytes = sum(row[name] or 0 for row in good for name in STORED_SIZES)
    psnrs_db = [row["psnr_db"] for row in good if row["psnr_db"] is not None]
    return Point(quality, num_bytes / len(rows), sum(psnrs_db) / len(psnrs_db) if psnrs_db else None)


def _num_pixels(row: Mapping[str, Any]) -> int:
    return row["width"] * row["height"] if row["status"] in GOOD else 0
