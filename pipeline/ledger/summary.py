"""Sums over the images of a shard, which add up to those of a dataset."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.status import GOOD, Status

_COUNTS = (
    *("num_images", "num_pixels", "num_bytes_in", "num_bytes_out", "num_bytes_bitstreams", "num_targets_missed"),
    *("num_bytes_quarantined", "num_grown", "num_bytes_grown", "num_kept", "num_bytes_kept"),
)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean that can be added to others."""

    sum: float = 0.0
    count: int = 0

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.sum + other.sum, self.count + other.count)

    @property
    def value(self) -> float | None:
        """Return the mean, or None if there are no values."""
        return self.sum / self.count if self.count else None


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of some images; sizes and means are those of the images that are not quarantined."""

    num_images: int = 0  # quarantined ones included
    quarantined: Mapping[str, int] = field(default_factory=dict)  # status -> images
    examples: Mapping[str, str] = field(default_factory=dict)  # status -> key and message of one image
    num_pixels: int = 0
    num_bytes_in: int = 0
    num_bytes_out: int = 0
    num_bytes_bitstreams: int = 0  # header and checksum included, and nothing beside them
    bpp: Mean = Mean()
    psnr_db: Mean = Mean()
    ms_ssim: Mean = Mean()
    quality: Mean = Mean()
    num_targets_missed: int = 0  # images that no quality brings to their target
    num_grown: int = 0  # images that take more bytes after than before
    num_bytes_grown: int = 0  # how many more these take
    num_kept: int = 0  # images whose original is stored in the place of a bitstream
    num_bytes_kept: int = 0  # of these originals
    stage_seconds: Mapping[str, float] = field(default_factory=dict)  # stage -> sum over all images
    num_bytes_quarantined: int = 0  # of the sources of quarantined images, as far as they could be read

    @classmethod
    def of_rows(
        cls, rows: Iterable[Mapping[str, Any]], *, bytes_in: Sequence[str], bytes_out: Sequence[str]
    ) -> "Summary":
        """Sum up rows of a metrics table; `bytes_in` and `bytes_out` name columns of sizes."""
        rows = list(rows)
        good = [row for row in rows if row["status"] in GOOD]
        bad = [row for row in rows if row["status"] not in GOOD]
        kept = [row for row in good if row["status"] == Status.KEPT]
        num_bytes_kept = _total(kept, ["num_bytes"])
        grown = [more for row in good if (more := _total([row], bytes_out) - _total([row], bytes_in)) > 0]
        return cls(
            num_images=len(rows),
            quarantined=dict(Counter(row["status"] for row in bad)),
            examples={row["status"]: f"{row['key']}: {row['error_message']}" for row in reversed(bad)},
            num_pixels=sum(row["width"] * row["height"] for row in good),
            num_bytes_in=_total(good, bytes_in),
            num_bytes_quarantined=_total(bad, bytes_in),
            num_bytes_out=_total(good, bytes_out),
            num_bytes_bitstreams=_total(good, ["num_bytes"]) - num_bytes_kept,
            bpp=_mean(good, "bpp"),
            psnr_db=_mean(good, "psnr_db"),
            ms_ssim=_mean(good, "ms_ssim"),
            quality=_mean(good, "quality"),
            num_targets_missed=sum(row.get("target_met") is False for row in good),
            num_grown=len(grown),
            num_bytes_grown=sum(grown),
            num_kept=len(kept),
            num_bytes_kept=num_bytes_kept,
            stage_seconds=_stage_seconds(rows),
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Summary":
        """Read a summary from parsed JSON."""
        for name in _COUNTS:
            if not isinstance(value.get(name, 0), int):
                raise ValueError(f"{name} is {value[name]!r}, expected a whole number")
        for name in ("quarantined", "examples", "stage_seconds"):
            if not isinstance(value.get(name, {}), dict):
                raise ValueError(f"{name} is {value[name]!r}, expected names with values")
        means = {name: Mean(**value[name]) for name in ("bpp", "psnr_db", "ms_ssim", "quality")}
        summary = cls(**{**value, **means})
        _ = cls() + summary  # what cannot be added up is noticed here
        return summary

    def __add__(self, other: "Summary") -> "Summary":
        return Summary(
            num_images=self.num_images + other.num_images,
            quarantined=dict(Counter(self.quarantined) + Counter(other.quarantined)),
            examples={**other.examples, **self.examples},
            num_pixels=self.num_pixels + other.num_pixels,
            num_bytes_in=self.num_bytes_in + other.num_bytes_in,
            num_bytes_quarantined=self.num_bytes_quarantined + other.num_bytes_quarantined,
            num_bytes_out=self.num_bytes_out + other.num_bytes_out,
            num_bytes_bitstreams=self.num_bytes_bitstreams + other.num_bytes_bitstreams,
            bpp=self.bpp + other.bpp,
            psnr_db=self.psnr_db + other.psnr_db,
            ms_ssim=self.ms_ssim + other.ms_ssim,
            quality=self.quality + other.quality,
            num_targets_missed=self.num_targets_missed + other.num_targets_missed,
            num_grown=self.num_grown + other.num_grown,
            num_bytes_grown=self.num_bytes_grown + other.num_bytes_grown,
            num_kept=self.num_kept + other.num_kept,
            num_bytes_kept=self.num_bytes_kept + other.num_bytes_kept,
            stage_seconds=dict(Counter(self.stage_seconds) + Counter(other.stage_seconds)),
        )

    @property
    def num_quarantined(self) -> int:
        """Return how many images are quarantined."""
        return sum(self.quarantined.values())

    @property
    def total_bpp(self) -> float | None:
        """Return all bits over all pixels; one tiny image can rule the mean of rates instead."""
        return 8 * self.num_bytes_images / self.num_pixels if self.num_pixels else None

    @property
    def num_coded(self) -> int:
        """Return how many images have a bitstream."""
        return self.num_images - self.num_quarantined - self.num_kept

    @property
    def num_bytes_images(self) -> int:
        """Return the bytes of all bitstreams and kept originals."""
        return self.num_bytes_bitstreams + self.num_bytes_kept


@dataclass(slots=True)
class Tally:
    """Sums over an output while a job adds to it; progress, events and the end of the job read them here."""

    before: Summary = field(default_factory=Summary)
    added: Summary = field(default_factory=Summary)

    def add(self, summary: Summary) -> None:
        """Count what was committed."""
        self.added += summary

    @property
    def now(self) -> Summary:
        """Return the sum of what was there before and what was added."""
        return self.before + self.added


def _total(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> int:
    return sum(row.get(column) or 0 for row in rows for column in columns)


def _mean(rows: list[Mapping[str, Any]], column: str) -> Mean:
    values = [row[column] for row in rows if row.get(column) is not None]
    return Mean(sum(values), len(values))


def _stage_seconds(rows: list[Mapping[str, Any]]) -> dict[str, float]:
    """Sum up every column of seconds under the name of its stage: `decode` of `decode_seconds`."""
    sums: dict[str, float] = defaultdict(float)
    for row in rows:
        for name, value in row.items():
            if name.endswith("_seconds") and value is not None:
                sums[name.removesuffix("_seconds")] += value
    return dict(sums)
