"""The files of an evaluation: tables as CSV, curves as pictures, all of it as Markdown."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from bls.ladder import quality_text
from pipeline.baselines import BASELINES, Baseline, library_versions
from pipeline.console.text import markdown_table, need_text
from pipeline.evaluate.coding import our_name
from pipeline.evaluate.curve_plots import plot_rate_distortion
from pipeline.evaluate.curves import SCALES, Curve, Point, rate_at
from pipeline.evaluate.results import Report
from pipeline.status import Status

_PLOTS = {"psnr_db": "rd_psnr", "ms_ssim_db": "rd_ms_ssim", "ssimulacra2": "rd_ssimulacra2"}
FILES = (
    *("summary.csv", "bd_rate.csv", "bd_rate_of_all.csv", "README.md"),
    *(f"{stem}.{kind}" for stem in _PLOTS.values() for kind in ("png", "svg")),
)
"""Names of all files that an evaluation may have."""
_SUMMARY_COLUMNS = (
    *("codec", "effort", "quality", "num_images", "bpp", "estimated_bpp"),
    *("mse_255", "psnr_db", "psnr_luma_db", "nlpd"),
    *("ms_ssim_num_images", "ms_ssim_bpp", "ms_ssim", "ssimulacra2_num_images", "ssimulacra2_bpp", "ssimulacra2"),
    *("encode_mp_per_second", "decode_mp_per_second"),
)
_BD_RATE_COLUMNS = (
    *("effort", "codec", "other_effort", "is_published", "measure"),
    *("bd_rate_percent", "from", "to", "reason"),
)
_OF_ALL_COLUMNS = ("codec", "effort", "is_published", "reference", "measure", "bd_rate_percent", "from", "to", "reason")


def files(report: Report) -> dict[str, bytes]:
    """Return the content of each file by its name."""
    if not report.points:
        return {"README.md": "\n".join([f"# {report.name}", "", *_failures(report)]).encode()}
    found = {
        "summary.csv": _csv(report.points, _SUMMARY_COLUMNS),
        "bd_rate.csv": _csv(report.bd_rates(), _BD_RATE_COLUMNS),
        "README.md": ("\n".join(_lines(report)) + "\n").encode(),
    }
    if report.reference is not None:
        found["bd_rate_of_all.csv"] = _csv(report.bd_rates_of_all(), _OF_ALL_COLUMNS)
    for measure, stem in _plots(report).items():
        for image_format in ("png", "svg"):
            found[f"{stem}.{image_format}"] = plot_rate_distortion(
                _drawn(report, measure),
                ours=report.our_codec,
                quality_label=SCALES[measure].label,
                title=f"{report.name}: means over {report.num_images} images",
                image_format=image_format,
            )
    return found


def _plots(report: Report) -> dict[str, str]:
    """Return the names of the plots, by measure."""
    drawn = {measure: {curve.codec for curve in report.curves(measure)} for measure in SCALES}
    return {measure: stem for measure, stem in _PLOTS.items() if report.our_codec in drawn[measure]}


def _drawn(report: Report, measure: str) -> list[Curve]:
    """Return the curves of a plot: with several efforts, only the best of our entropy coders."""
    one_effort = len(report.efforts) == 1
    return [c for c in report.curves(measure) if one_effort or c.effort is None or report.is_ours(c)]


def _lines(report: Report) -> list[str]:
    return [
        f"# Rate and distortion: {report.name}",
        "",
        f"Means of per-image values over {report.num_images} images, coded and decoded again; every byte of a "
        "bitstream or file is counted.",
        f"Our curves are those of the {report.our_codec.removeprefix('bls-')} entropy coder.",
        "",
        *_failures(report),
        *(f"![{SCALES[measure].label}]({stem}.png)" for measure, stem in _plots(report).items()),
        "",
        *_rate_lines(report),
        "",
        *_bd_rate_lines(report),
        *_of_all_lines(report),
        *_equal_psnr_lines(report),
        "",
        *_speed_lines(report),
        *_how_lines(report),
    ]


def _failures(report: Report) -> list[str]:
    failed = report.table.filter(pc.not_equal(report.table["status"], Status.OK)).to_pylist()
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


def _rate_lines(report: Report) -> list[str]:
    """Return the table of our qualities at each effort."""
    by_key = {(point["codec"], point["effort"], point["quality"]): point for point in report.points}
    rows = []
    for point in report.our_points:
        rates = [by_key[our_name(c), point["effort"], point["quality"]]["bpp"] for c in report.coders]
        columns = (
            ("psnr_db", ".2f"),
            ("psnr_luma_db", ".2f"),
            ("ms_ssim", ".4f"),
            ("ssimulacra2", ".1f"),
            ("nlpd", ".4f"),
        )
        rows.append(
            [quality_text(point["quality"]), str(point["effort"])]
            + [f"{rate:.3f}" for rate in (*rates, point["estimated_bpp"])]
            + [_number(point[name], spec) for name, spec in columns]
        )
    rates_of = [f"bpp, {coder}" for coder in report.coders]
    names = ["PSNR RGB", "PSNR luma", "MS-SSIM", "SSIMULACRA2", "NLPD"]
    return markdown_table(["quality", "effort", *rates_of, "estimated bpp", *names], rows)


def _bd_rate_lines(report: Report) -> list[str]:
    """Return a table of BD-rates for each effort, a row per codec."""
    lines = []
    for effort in report.efforts:
        cells: dict[str, dict[str, str]] = {}
        for row in report.bd_rates():
            if row["effort"] == effort:
                label = Curve(row["codec"], (), (), row["is_published"], row["other_effort"]).label
                cells.setdefault(f"than {label}", {})[row["measure"]] = bd_rate_text(row)
        heads = [f"for equal quality ours at effort {effort} needs", *(scale.name for scale in SCALES.values())]
        rows = [[label, *(by.get(measure, "") for measure in SCALES)] for label, by in cells.items()]
        lines += [*markdown_table(heads, rows), ""]
    return lines


def _of_all_lines(report: Report) -> list[str]:
    """Return the table of what every codec needs for the quality of the reference."""
    cells: dict[str, dict[str, str]] = {}
    for row in report.bd_rates_of_all():
        label = Curve(row["codec"], (), (), row["is_published"], row["effort"]).label
        cells.setdefault(label, {})[row["measure"]] = bd_rate_text(row)
    if not cells:
        return []
    measures = [measure for measure in SCALES if any(measure in by for by in cells.values())]
    heads = [f"bits for the quality of {report.reference} (published)", *(SCALES[each].name for each in measures)]
    return [*markdown_table(heads, [[label, *(by.get(m, "") for m in measures)] for label, by in cells.items()]), ""]


def _equal_psnr_lines(report: Report) -> list[str]:
    """Return the table of bits that the others need for the PSNR of each of our qualities at the lowest effort."""
    ours, *others = report.curves("psnr_db")
    points = [point for point in report.our_points if point["effort"] == ours.effort]
    heads = [f"quality {quality_text(point['quality'])}: {point['psnr_db']:.2f} dB" for point in points]
    rows = [[f"**{ours.label}**", *(f"**{point['bpp']:.3f}**" for point in points)]]
    for other in others:
        rates = [rate_at(other, point["psnr_db"]) for point in points]
        rows.append([other.label, *(_number(rate, ".3f") for rate in rates)])
    return markdown_table(["bpp at equal PSNR", *heads], rows)


def _speed_lines(report: Report) -> list[str]:
    """Return the table of speeds, from the slowest setting of a codec to the fastest."""
    rows = []
    for codec, effort in dict.fromkeys((point["codec"], point["effort"]) for point in report.points):
        points = [point for point in report.of(codec) if point["effort"] == effort]
        spans = [_span(point[f"{verb}_mp_per_second"] for point in points) for verb in ("encode", "decode")]
        if all(spans):
            rows.append([Curve(codec, (), (), effort=effort).label, *spans])
    if not rows:
        return []
    return [
        *markdown_table(["megapixels a second, slowest to fastest setting", "encode", "decode"], rows),
        "",
        "Speeds are of this run: CPU time of one thread, on a machine that other work may have kept busy.",
        "",
    ]


def _span(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{min(known):.3g} to {max(known):.3g}" if known else ""


def _how_lines(report: Report) -> list[str]:
    codecs = {codec: baseline for codec, baseline in BASELINES.items() if report.of(codec)}
    libraries = library_versions()
    rows = [[codec, *_baseline_cells(baseline), libraries[baseline.format]] for codec, baseline in codecs.items()]
    return [
        "MS-SSIM in dB is -10 log10(1 - MS-SSIM). Bits for equal quality are BD-rates: by Akima interpolation of "
        "the logarithm of the rate, over the qualities that both curves reach. Between its points a curve is read "
        "off along straight lines over the logarithm of the rate; an empty cell lies outside of it.",
        "",
        *(markdown_table(["codec", "settings", "options", "library"], rows) if rows else []),
        "",
        *(f"- {name}: {value}" for name, value in report.provenance.items() if value is not None),
    ]


def bd_rate_text(row: Point) -> str:
    """Say what ours needs for the quality of another codec, or why that is not known."""
    if row["bd_rate_percent"] is not None:
        reach = f"{row['from']:.1f} to {SCALES[row['measure']].text(row['to'], '.1f')}"
        return f"{need_text(row['bd_rate_percent'], '.1f')} bits ({reach})"
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
