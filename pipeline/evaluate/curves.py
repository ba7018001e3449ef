"""Rate-distortion curves: means over images, published points, and how far two curves are apart.

A point is a dict: codec, setting, and means over the images that every codec has coded at every setting, so that no
curve has easier images than another. Small images have no MS-SSIM: if there are any, the mean MS-SSIM has a mean rate
of its own beside it.
"""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bls.measures.images import bd_rate
from pipeline.status import Status

Point = dict[str, Any]

MEANS = ("bpp", "estimated_bpp", "mse_255", "psnr_db", "psnr_luma_db", "nlpd")
RATES = {"psnr_db": "bpp", "ms_ssim_db": "ms_ssim_bpp"}
"""Column of each quality that has curves, and the column of the rate that belongs to it."""


MIN_OVERLAP_DB = 1.0
MIN_POINTS = 4  # of a curve, as VCEG-M33 has it
"""Qualities that two curves must share: over less, a BD-rate is that of one point."""


@dataclass(frozen=True)
class Curve:
    """Mean rates and qualities of a codec, in ascending order; `is_published` if they come from a reference file."""

    codec: str
    bpp: tuple[float, ...]
    quality: tuple[float, ...]
    is_published: bool = False

    @property
    def label(self) -> str:
        """Return the name that distinguishes it from a measured curve of the same codec."""
        return f"{self.codec} (published)" if self.is_published else self.codec


def mean_points(table: pa.Table) -> list[Point]:
    """Return the points of an evaluation's rows (`schema.EVALUATION`), in the order of its first codecs and rates."""
    # PSNR has no value without an error; an image that a codec keeps without error is left out for all.
    compared = _without(table, pc.or_(pc.not_equal(table["status"], Status.OK), pc.is_null(table["psnr_db"])))
    with_ms_ssim = _without(compared, pc.is_null(compared["ms_ssim"]))
    similarity = _means(with_ms_ssim, ("bpp", "ms_ssim"))
    points = []
    for key, means in _means(compared, MEANS).items():
        similar = similarity.get(key, {})
        points.append(
            {
                "codec": key[0],
                "quality": key[1],
                **means,
                "ms_ssim": similar.get("ms_ssim"),
                "ms_ssim_db": ms_ssim_db(similar.get("ms_ssim")),
                "ms_ssim_bpp": similar.get("bpp"),
                "ms_ssim_num_images": similar.get("num_images", 0),
            }
        )
    return points


def ms_ssim_db(ms_ssim: float | None) -> float | None:
    """Return `-10 log10(1 - ms_ssim)`, a scale on which good images lie apart; None if it does not exist."""
    return None if ms_ssim is None or ms_ssim >= 1 else -10 * math.log10(1 - ms_ssim)


def read_reference(data: bytes, names: Iterable[str] | None = None) -> list[Point]:
    """Read published points, a CSV with columns codec, bpp, psnr_rgb_db, ms_ssim; without `names` of all codecs.

    Raises:
        ValueError: a column or a codec is missing, or a number is not a number.
    """
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    expected = ("codec", "bpp", "psnr_rgb_db", "ms_ssim")
    if not rows or set(expected) - set(rows[0]):
        raise ValueError(
            f"reference has columns {', '.join(rows[0]) if rows else 'none'}, expected {', '.join(expected)}"
        )
    known = list(dict.fromkeys(row["codec"] for row in rows))
    wanted = known if names is None else list(names)
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"reference has no codec {unknown[0]}: expected some of {' '.join(known)}")
    return [_published_point(row) for name in wanted for row in rows if row["codec"] == name]


def curves(points: Sequence[Point], measure: str, *, is_published: bool = False) -> list[Curve]:
    """Return the curve of each codec whose points have a measure, in the order of the points."""
    found = []
    for codec in dict.fromkeys(point["codec"] for point in points):
        pairs = sorted(
            (point[RATES[measure]], point[measure])
            for point in points
            if point["codec"] == codec and point[measure] is not None
        )
        if pairs:
            rates, qualities = zip(*pairs, strict=True)
            found.append(Curve(codec, rates, qualities, is_published))
    return found


def bd_rate_row(ours: Curve, other: Curve, measure: str) -> Point:
    """Return how much more rate ours needs than another for equal quality (BD-rate), and over which qualities."""
    reference, test = _rising(other), _rising(ours)
    low, high = max(reference.quality[0], test.quality[0]), min(reference.quality[-1], test.quality[-1])
    row: Point = {"codec": other.codec, "is_published": other.is_published, "measure": measure, "bd_rate_percent": None}
    if (num_points := min(len(reference.bpp), len(test.bpp))) < MIN_POINTS:
        reason = f"a curve has {num_points} of the {MIN_POINTS} points that are expected at least"
        return {**row, "from": None, "to": None, "reason": reason}
    if 0 < high - low < MIN_OVERLAP_DB:
        reason = f"the curves share {high - low:.2f} dB, expected {MIN_OVERLAP_DB:g} dB or more"
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
    return Curve(curve.codec, rates, qualities, curve.is_published)


def _without(table: pa.Table, bad: pa.Array) -> pa.Table:
    """Drop every image that has at least one bad row."""
    return table.filter(pc.invert(pc.is_in(table["key"], pc.unique(table.filter(bad)["key"]))))


def _means(table: pa.Table, columns: Sequence[str]) -> dict[tuple[str, int], Point]:
    """Return the means by codec and setting, with the number of images."""
    grouped = table.group_by(["codec", "quality"], use_threads=False)
    rows = grouped.aggregate([("key", "count"), *((column, "mean") for column in columns)]).to_pylist()
    return {
        (row["codec"], row["quality"]): {
            "num_images": row["key_count"],
            **{column: row[f"{column}_mean"] for column in columns},
        }
        for row in rows
    }


def _published_point(row: dict[str, str]) -> Point:
    rate = float(row["bpp"])
    ms_ssim = float(row["ms_ssim"]) if row["ms_ssim"] else None
    return {
        "codec": row["codec"],
        "bpp": rate,
        "psnr_db": float(row["psnr_rgb_db"]) if row["psnr_rgb_db"] else None,
        "ms_ssim_db": ms_ssim_db(ms_ssim),
        "ms_ssim_bpp": rate,
    }
