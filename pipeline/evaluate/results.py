"""From the rows of an evaluation to its report: tables as CSV, curves as pictures, all of it as Markdown."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bls.entropy.coders import CODERS
from bls.ladder import quality_text
from pipeline.baselines import BASELINES, Baseline, library_versions
from pipeline.console.text import markdown_table, need_text
from pipeline.evaluate.curve_plots import plot_rate_distortion
from pipeline.evaluate.curves import RATES, Curve, Point, bd_rate_row, curves, mean_points, rate_at
from pipeline.evaluate.worker import our_name
from pipeline.measures import MS_SSIM, PSNR
from pipeline.status import Status

_NAMES = {"psnr_db": PSNR.name, "ms_ssim_db": MS_SSIM.name}  # both in dB
_PLOTS = {"psnr_db": "rd_psnr", "ms_ssim_db": "rd_ms_ssim"}
FILES = (
    "summary.csv",
    "bd_rate.csv",
    "README.md",
    *(f"{stem}.{kind}" for stem in _PLOTS.values() for kind in ("png", "svg")),
)
"""Names of all files that a report may have."""
_SUMMARY_COLUMNS = (
    "codec",
    "quality",
    "num_images",
    "bpp",
    "estimated_bpp",
    "mse_255",
    "psnr_db",
    "psnr_luma_db",
    "nlpd",
    "ms_ssim_num_images",
    "ms_ssim_bpp",
    "ms_ssim",
)
_BD_RATE_COLUMNS = ("codec", "is_published", "measure", "bd_rate_percent", "from", "to", "reason")


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
        """Return our codec with the entropy coder that gives the fewest bits: the curve that counts."""
        rates = {name: sum(p["bpp"] for p in self._of(name)) for name in map(our_name, self._coders)}
        return min(rates, key=rates.__getitem__)

    @property
    def our_points(self) -> list[Point]:
        """Return our points with the best entropy coder, the lowest quality first."""
        return sorted(self._of(self.our_codec), key=lambda point: point["quality"])

    @property
    def _coders(self) -> list[str]:
        """Return the entropy coders that the bundle has."""
        return [coder for coder in CODERS if self._of(our_name(coder))]

    def _of(self, codec: str) -> list[Point]:
        return [point for point in self.points if point["codec"] == codec]

    def curves(self, measure: str) -> list[Curve]:
        """Return all curves of a measure, ours first."""
        measured = curves(self.points, measure)
        measured.sort(key=lambda curve: curve.codec != self.our_codec)
        return measured + curves(self.published, measure, is_published=True)

    def bd_rates(self) -> list[Point]:
        """Return the BD-rate of our curve against each other, by measure."""
        rows = []
        for measure in RATES:
            drawn = self.curves(measure)
            if drawn and drawn[0].codec == self.our_codec:
                rows += [bd_rate_row(drawn[0], other, measure) for other in drawn[1:]]
        return rows

    def files(self) -> dict[str, bytes]:
        """Return the content of each file of the report by its name."""
        if not self.points:
            return {"README.md": "\n".join([f"# {self.name}", "", *self._failures()]).encode()}
        files = {
            "summary.csv": _csv(self.points, _SUMMARY_COLUMNS),
            "bd_rate.csv": _csv(self.bd_rates(), _BD_RATE_COLUMNS),
            "README.md": ("\n".join(self._lines()) + "\n").encode(),
        }
        for measure, stem in self._plots().items():
            for image_format in ("png", "svg"):
                files[f"{stem}.{image_format}"] = plot_rate_distortion(
                    self.curves(measure),
                    ours=self.our_codec,
                    quality_label=f"{_NAMES[measure]} in dB",
                    title=f"{self.name}: means over {self.num_images} images",
                    image_format=image_format,
                )
        return files

    def _plots(self) -> dict[str, str]:
        drawn = {measure: {curve.codec for curve in self.curves(measure)} for measure in RATES}
        return {measure: stem for measure, stem in _PLOTS.items() if self.our_codec in drawn[measure]}

    def _lines(self) -> list[str]:
        return [
            f"# Rate and distortion: {self.name}",
            "",
            f"Means of per-image values over {self.num_images} images, coded and decoded again; every byte of a "
            "bitstream or file is counted.",
            f"The curve of this codec is that of its {self.our_codec.removeprefix('bls-')} entropy coder.",
            "",
            *self._failures(),
            *(f"![{_NAMES[measure]} in dB]({stem}.png)" for measure, stem in self._plots().items()),
            "",
            *self._rate_lines(),
            "",
            *self._bd_rate_lines(),
            "",
            *self._equal_psnr_lines(),
            "",
            *self._how_lines(),
        ]

    def _failures(self) -> list[str]:
        failed = self.table.filter(pc.not_equal(self.table["status"], Status.OK)).to_pylist()
        counts = Counter((row["status"], row["codec"] or "all") for row in failed)
        if not counts:
            return []
        keys = {row["key"] for row in failed}
        return [
            f"{len(keys)} images are left out of all means, for these rows of `images.parquet`:",
            "",
            *markdown_table(["reason", "codec", "rows"], [[*key, str(count)] for key, count in sorted(counts.items())]),
            "",
        ]

    def _rate_lines(self) -> list[str]:
        """Return the table of our qualities."""
        by_key = {(point["codec"], point["quality"]): point for point in self.points}
        rows = []
        for point in self.our_points:
            rates = [by_key[our_name(coder), point["quality"]]["bpp"] for coder in self._coders]
            measures = [("psnr_db", ".2f"), ("psnr_luma_db", ".2f"), ("ms_ssim", ".4f"), ("nlpd", ".4f")]
            rows.append(
                [quality_text(point["quality"])]
                + [f"{rate:.3f}" for rate in (*rates, point["estimated_bpp"])]
                + [_number(point[name], spec) for name, spec in measures]
            )
        rates_of = [f"bpp, {coder}" for coder in self._coders]
        return markdown_table(["quality", *rates_of, "estimated bpp", "PSNR RGB", "PSNR luma", "MS-SSIM", "NLPD"], rows)

    def _bd_rate_lines(self) -> list[str]:
        """Return the table of BD-rates, a row per codec."""
        cells: dict[str, dict[str, str]] = {}
        for row in self.bd_rates():
            label = Curve(row["codec"], (), (), row["is_published"]).label
            cells.setdefault(f"than {label}", {})[row["measure"]] = bd_rate_text(row)
        heads = ["for equal quality ours needs", *(_NAMES[measure] for measure in RATES)]
        return markdown_table(heads, [[label, *(by.get(m, "") for m in RATES)] for label, by in cells.items()])

    def _equal_psnr_lines(self) -> list[str]:
        """Return the table of bits that the others need for the PSNR of each of our qualities."""
        ours, *others = self.curves("psnr_db")
        heads = [f"quality {quality_text(point['quality'])}: {point['psnr_db']:.2f} dB" for point in self.our_points]
        rows = [[f"**{ours.label}**", *(f"**{point['bpp']:.3f}**" for point in self.our_points)]]
        for other in others:
            rates = [rate_at(other, point["psnr_db"]) for point in self.our_points]
            rows.append([other.label, *(_number(rate, ".3f") for rate in rates)])
        return markdown_table(["bpp at equal PSNR", *heads], rows)

    def _how_lines(self) -> list[str]:
        codecs = {codec: baseline for codec, baseline in BASELINES.items() if self._of(codec)}
        libraries = library_versions()
        rows = [[codec, *_baseline_cells(baseline), libraries[baseline.format]] for codec, baseline in codecs.items()]
        return [
            "MS-SSIM in dB is -10 log10(1 - MS-SSIM). Bits for equal quality are BD-rates: by Akima interpolation of "
            "the logarithm of the rate, over the qualities that both curves reach. Between its points a curve is read "
            "off along straight lines over the logarithm of the rate; an empty cell lies outside of it.",
            "",
            *(markdown_table(["codec", "settings", "options", "library"], rows) if rows else []),
            "",
            *(f"- {name}: {value}" for name, value in self.provenance.items() if value is not None),
        ]


def bd_rate_text(row: Point) -> str:
    """Say what ours needs for the quality of another codec, or why that is not known."""
    if row["bd_rate_percent"] is not None:
        return f"{need_text(row['bd_rate_percent'], '.1f')} bits ({row['from']:.1f} to {row['to']:.1f} dB)"
    return f"not comparable: {row['reason']}"


def _baseline_cells(baseline: Baseline) -> list[str]:
    """Return the settings of a baseline, and the options that are the same at all of them."""
    last = baseline.settings[-1]
    options = {name: value for name, value in baseline.options(last, False).items() if value not in (last, [last])}
    options |= options.pop("advanced", {})
    settings = ", ".join(map(str, baseline.settings))
    return [f"{baseline.setting} {settings}", ", ".join(f"{name} {value}" for name, value in options.items())]


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else f"{value:{spec}}"


def _csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()} for row in rows
    )
    return file.getvalue().encode()
