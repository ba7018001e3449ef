"""From the rows of an evaluation to its results: curves, and how far they are apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from bls.entropy.coders import CODERS
from pipeline.evaluate.coding import our_name
from pipeline.evaluate.curves import SCALES, Curve, Point, bd_rate_row, curves, mean_points


@dataclass(frozen=True)
class Report:
    """An evaluation summed up: `name` of the images, `points` measured, `published` ones of a reference."""

    name: str
    table: pa.Table
    points: Sequence[Point]
    published: Sequence[Point] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_rows(
        cls, table: pa.Table, *, name: str, published: Sequence[Point] = (), provenance: Mapping[str, Any]
    ) -> "Report":
        """Sum up the rows of an evaluation."""
        return cls(name, table, mean_points(table), published, provenance)

    @property
    def num_images(self) -> int:
        """Return how many images the curves are means over."""
        return max((point["num_images"] for point in self.points), default=0)

    @property
    def our_codec(self) -> str:
        """Return our codec with the entropy coder that gives the fewest bits: the curves that count."""
        rates = {name: sum(p["bpp"] for p in self.of(name)) for name in map(our_name, self.coders)}
        return min(rates, key=rates.__getitem__)

    @property
    def our_points(self) -> list[Point]:
        """Return our points with the best entropy coder, the lowest effort first, the lowest quality first."""
        return sorted(self.of(self.our_codec), key=lambda point: (point["effort"], point["quality"]))

    @property
    def coders(self) -> list[str]:
        """Return the entropy coders that the rows have."""
        return [coder for coder in CODERS if self.of(our_name(coder))]

    @property
    def efforts(self) -> list[int]:
        """Return the efforts of our encoder, ascending."""
        return sorted({point["effort"] for point in self.our_points})

    def of(self, codec: str) -> list[Point]:
        """Return the points of a codec."""
        return [point for point in self.points if point["codec"] == codec]

    def curves(self, measure: str) -> list[Curve]:
        """Return all curves of a measure, ours first, the lowest effort first."""
        measured = curves(self.points, measure)
        measured.sort(key=lambda curve: (curve.codec != self.our_codec, curve.effort or 0))
        return measured + curves(self.published, measure, is_published=True)

    def is_ours(self, curve: Curve) -> bool:
        """Return whether a curve is ours with the best entropy coder."""
        return curve.codec == self.our_codec and not curve.is_published

    def bd_rates(self) -> list[Point]:
        """Return the BD-rate of each of our curves against the others and our lower efforts, by measure."""
        rows = []
        for measure in SCALES:
            drawn = self.curves(measure)
            for ours in filter(self.is_ours, drawn):
                rows += [bd_rate_row(ours, other, measure) for other in drawn if self._are_compared(ours, other)]
        return rows

    def _are_compared(self, ours: Curve, other: Curve) -> bool:
        if other.effort is None:
            return True
        if self.is_ours(other):
            return other.effort < (ours.effort or 0)
        return other.effort == ours.effort

    @property
    def reference(self) -> str | None:
        """Return the published codec that all others are compared with: the first that was asked for."""
        return self.published[0]["codec"] if self.published else None

    def bd_rates_of_all(self) -> list[Point]:
        """Return the BD-rate of every curve against the reference, by measure; none without a reference."""
        rows = []
        for measure in SCALES:
            drawn = self.curves(measure)
            for reference in drawn:
                if reference.is_published and reference.codec == self.reference:
                    rows += [
                        {**bd_rate_row(curve, reference, measure), **_names(curve), "reference": reference.codec}
                        for curve in drawn
                        if curve is not reference
                    ]
        return rows


def _names(curve: Curve) -> Point:
    return {"codec": curve.codec, "effort": curve.effort, "is_published": curve.is_published}
