"""Rate-distortion curves: means over images, published points, and how far two curves are apart.

A point is a dict: codec, effort, quality, and means over the images that every codec has coded at every setting, so
that no curve has easier images than another. Small images have no MS-SSIM: if there are any, the mean MS-SSIM has a
mean rate of its own beside it.
"""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bls.measures.images import bd_rate
from pipeline.status import Status

Point = dict[str, Any]

MEANS = (
    *("bpp", "estimated_bpp", "mse_255", "psnr_db", "psnr_luma_db", "nlpd"),
    *("megapixels", "encode_seconds", "decode_seconds"),
)
_OF_SOME_IMAGES = ("ms_ssim", "ssimulacra2")
"""Measures that small images do not have."""
MIN_POINTS = 4  # of a curve, as VCEG-M33 has it


@dataclass(frozen=True)
class Scale:
    """A measure by which curves are drawn and compared: columns of it and of the rate that belongs to it.

    Two curves must share `min_overlap` of it: over less, a BD-rate is that of one point.
    """

    column: str
    rate: str
    name: str
    unit: str
    min_overlap: float

    @property
    def label(self) -> str:
        """Return the name of its axis."""
        return f"{self.name} in {self.unit}" if self.unit else self.name

    def text(self, value: float, spec: str) -> str:
        """Return a value with its unit."""
        return f"{value:{spec}} {self.unit}".rstrip()


SCALES = {
    scale.column: scale
    for scale in (
        Scale("psnr_db", "bpp", "PSNR", "dB", 1.0),
        Scale("ms_ssim_db", "ms_ssim_bpp", "MS-SSIM", "dB", 1.0),
        Scale("ssimulacra2", "ssimulacra2_bpp", "SSIMULACRA2", "", 5.0),
    )
}


@dataclass(frozen=True)
class Curve:
    """Mean rates and qualities of a codec, in ascending order; `is_published` if they come from a reference file.

    `effort` is that of our encoder, None of other codecs.
    """

    codec: str
    bpp: tuple[float, ...]
    quality: tuple[float, ...]
    is_published: bool = False
    effort: int | None = None

    @property
    def label(self) -> str:
        """Return the name that distinguishes it from other curves of the same codec."""
        name = self.codec if self.effort is None else f"{self.codec}, effort {self.effort}"
        return f"{name} (published)" if self.is_published else name


def mean_points(table: pa.Table) -> list[Point]:
    """Return the points of an evaluation's rows (`schema.EVALUATION`), in the order of its first codecs and rates."""
    # PSNR has no value without an error; an image that a codec keeps without error is left out for all.
    compared = _without(table, pc.or_(pc.not_equal(table["status"], Status.OK), pc.is_null(table["psnr_db"])))
    compared = _with_megapixels(compared)
    of_some = {name: _means(_without(compared, pc.is_null(compared[name])), ("bpp", name)) for name in _OF_SOME_IMAGES}
    points = []
    for key, means in _means(compared, MEANS).items():
        codec, effort, quality = key
        point = {"codec": codec, "effort": effort, "quality": quality, **means}
        for name, found in of_some.items():
            some = found.get(key, {})
            point[name], point[f"{name}_bpp"] = some.get(name), some.get("bpp")
            point[f"{name}_num_images"] = some.get("num_images", 0)
        for verb in ("encode", "decode"):
            seconds = means[f"{verb}_seconds"]
            point[f"{verb}_mp_per_second"] = means["megapixels"] / seconds if seconds else None
        points.append({**point, "ms_ssim_db": ms_ssim_db(point["ms_ssim"])})
    return points


def ms_ssim_db(ms_ssim: float | None) -> float | None:
    """Return `-10 log10(1 - ms_ssim)`, a scale on which good images lie apart; None if it does not exist."""
    return None if ms_ssim is None or ms_ssim >= 1 else -10 * math.log10(1 - ms_ssim)


def read_reference(data: bytes, names: Iterable[str] | None = None) -> list[Point]:
    """Read published points, a CSV with columns codec, bpp, psnr_rgb_db, ms_ssim; without `names` of all codecs.

    Raises:
        ValueError: it is not a CSV, a column or a codec is missing, or a value is not what it must be.
    """
    expected = ("codec", "bpp", "psnr_rgb_db", "ms_ssim")
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")))
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"reference is not a CSV file ({error}): expected columns {', '.join(expected)}") from error
    if set(expected) - set(columns := reader.fieldnames or []):
        raise ValueError(f"reference has columns {', '.join(columns) or 'none'}, expected {', '.join(expected)}")
    points = [_published_point(row, line) for line, row in rows]
    known = list(dict.fromkeys(point["codec"] for point in points))
    wanted = known if names is None else list(names)
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"reference has no codec {unknown[0]}: expected some of {' '.join(known) or 'none'}")
    return [point for name in wanted for point in points if point["codec"] == name]


def curves(points: Sequence[Point], measure: str, *, is_published: bool = False) -> list[Curve]:
    """Return the curve of each codec and effort whose points have a measure, in the order of the points."""
    found = []
    for codec, effort in dict.fromkeys((point["codec"], point.get("effort")) for point in points):
        pairs = sorted(
            (point[SCALES[measure].rate], point[measure])
            for point in points
            if (point["codec"], point.get("effort")) == (codec, effort) and point.get(measure) is not None
        )
        if pairs:
            rates, qualities = zip(*pairs, strict=True)
            found.append(Curve(codec, rates, qualities, is_published, effort))
    return found


def bd_rate_row(ours: Curve, other: Curve, measure: str) -> Point:
    """Return how much more rate ours needs than another for equal quality (BD-rate), and over which qualities."""
    reference, test, scale = _rising(other), _rising(ours), SCALES[measure]
    low, high = max(reference.quality[0], test.quality[0]), min(reference.quality[-1], test.quality[-1])
    row: Point = {"effort": ours.effort, "codec": other.codec, "other_effort": other.effort}
    row |= {"is_published": other.is_published, "measure": measure, "bd_rate_percent": None}
    if (num_points := min(len(reference.bpp), len(test.bpp))) < MIN_POINTS:
        reason = f"a curve has {num_points} of the {MIN_POINTS} points that are expected at least"
        return {**row, "from": None, "to": None, "reason": reason}
    if 0 < high - low < scale.min_overlap:
        shared, wanted = scale.text(high - low, ".2f"), scale.text(scale.min_overlap, "g")
        reason = f"the curves share {shared}, expected {wanted} or more"
        return {**row, "from": low, "to": high, "reason": reason}
    try:
        percent = bd_rate((reference.bpp, reference.quality), (test.bpp, test.quality))
    except ValueError as error:  # no quality in common
        return {**row, "from": None, "to": None, "reason": str(error)}
    return {**row, "bd_rate_percent": percent, "from": low, "to": high, "reason": None}


def rate_at(curve: Curve, quality: float) -> float | None:
    """Return the rate at which a curve reaches a quality, by straight lines over log rate; None outside its range."""
    rising = _rising(curve)
    if not rising.quality[0] <= quality <= rising.quality[-1]:
        return None
    return float(np.exp(np.interp(quality, rising.quality, np.log(rising.bpp))))


def _rising(curve: Curve) -> Curve:
    """Return the points that are better than all points of lower rate: neighbouring settings may be almost equal."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(zip(curve.bpp, curve.quality, strict=True)):
        if not kept or (rate > kept[-1][0] and quality > kept[-1][1]):
            kept.append((rate, quality))
    rates, qualities = zip(*kept, strict=True)
    return replace(curve, bpp=rates, quality=qualities)


def _without(table: pa.Table, bad: pa.Array) -> pa.Table:
    """Drop every image that has at least one bad row."""
    return table.filter(pc.invert(pc.is_in(table["key"], pc.unique(table.filter(bad)["key"]))))


def _with_megapixels(table: pa.Table) -> pa.Table:
    pixels = pc.multiply(pc.cast(table["width"], pa.float64()), table["height"])
    return table.append_column("megapixels", pc.divide(pixels, 1e6))


def _means(table: pa.Table, columns: Sequence[str]) -> dict[tuple[str, int | None, float], Point]:
    """Return the means by codec, effort and quality, with the number of images."""
    grouped = table.group_by(["codec", "effort", "quality"], use_threads=False)
    rows = grouped.aggregate([("key", "count"), *((column, "mean") for column in columns)]).to_pylist()
    return {
        (row["codec"], row["effort"], row["quality"]): {
            "num_images": row["key_count"],
            **{column: row[f"{column}_mean"] for column in columns},
        }
        for row in rows
    }


def _published_point(row: dict[str, str | None], line: int) -> Point:
    if not row["codec"]:
        raise ValueError(f"reference line {line} has no codec: expected a name")
    rate = _published(row, "bpp", line, low=0)
    if not rate:
        raise ValueError(f"reference line {line} has no bpp above 0: expected the rate of the point")
    ms_ssim = _published(row, "ms_ssim", line, high=1)
    return {
        "codec": row["codec"],
        "bpp": rate,
        "psnr_db": _published(row, "psnr_rgb_db", line),
        "ms_ssim_db": ms_ssim_db(ms_ssim),
        "ms_ssim_bpp": rate,
    }


def _published(
    row: dict[str, str | None], column: str, line: int, *, low: float = -math.inf, high: float = math.inf
) -> float | None:
    """Return the number of a cell, None where it is empty."""
    text = row[column]
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        limits = "" if high == math.inf else f" of at most {high:g}"
        raise ValueError(f"reference line {line} has {column} {text!r}, expected a number{limits}")
    return value
