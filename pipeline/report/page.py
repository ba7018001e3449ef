"""The page of a report: one HTML file with its charts, pictures, styles and scripts inside, which loads nothing.

The template escapes all its values; keys and messages are other people's input. The page's own policy (CSP)
forbids all requests, and script beside its own.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from pipeline.console.text import need_text
from pipeline.measures import MEASURES, MS_SSIM, PSNR
from pipeline.report import charts as report_charts
from pipeline.report import words as report_words
from pipeline.report.contact_sheet import Thumbnail
from pipeline.report.equal_quality import CODECS, Need, spreads
from pipeline.report.pictures import AMPLIFIED, CROP_HEIGHT, CROP_WIDTH, Pictures
from pipeline.report.run import MAX_SAMPLE, RunReport

_FILES = files("pipeline.report") / "template"
_GENERATOR = "bls-codec report"


@dataclass(frozen=True)
class Shown:
    """A group of pictures: the measure that they are extremes of, and (place, pictures) of each."""

    measure: str
    places: Sequence[tuple[str, Pictures]]


@dataclass(frozen=True)
class Comparison:
    """The bytes that other codecs need for the quality of ours, measured on a sample."""

    needs: Sequence[Need]
    num_images: int
    num_unreadable: int
    num_jpeg: int  # images of the sample that were JPEG before
    seed: int


def is_report(head: bytes) -> bool:
    """Return whether a file is a report, by its first 4 kB."""
    return f'<meta name="generator" content="{_GENERATOR}">'.encode() in head


def render(
    run: RunReport,
    shown: Sequence[Shown],
    comparison: Comparison | None,
    *,
    title: str,
    sheet: Sequence[Thumbnail] = (),
) -> str:
    """Return the page."""
    import jinja2

    charts = _charts(run, comparison)
    sums = spreads(comparison.needs) if comparison else []
    scripts = [_vega(), (_FILES / "report.js").read_text("utf-8")]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report", "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "units": report_words.units,
        "need": need_text,
    }
    return environment.get_template("report.html").render(
        title=title,
        generator=_GENERATOR,
        run=run,
        words=report_words,
        measures=MEASURES,
        facts=report_words.facts(run),
        shown=shown,
        sheet=sheet,
        comparison=comparison,
        spreads=sums,
        verdicts=report_words.verdicts(sums),
        codecs=CODECS,
        charts=charts,
        charts_json=_json_for_html(charts),
        style=(_FILES / "report.css").read_text("utf-8"),
        scripts=scripts,
        script_hashes=[_csp_hash(script) for script in scripts],
        stages=report_words.stage_rows(run),
        num_shards_drawn=len(report_charts.shown_shards(run)),
        num_workers_drawn=len(report_charts.shown_workers(run)),
        amplified=AMPLIFIED,
        crop_size=(CROP_WIDTH, CROP_HEIGHT),
        max_sample=MAX_SAMPLE,
    )


def _charts(run: RunReport, comparison: Comparison | None) -> Mapping[str, Any]:
    charts: dict[str, Any] = {}
    if run.num_good:
        if any(row["psnr_db"] is not None for row in run.sample):
            charts["rate-distortion"] = report_charts.rate_distortion(run)
        for name, counts in run.histograms.items():
            if counts.count:
                measure = MEASURES[name]
                median = f"{counts.quantile(0.5):{measure.format}}"
                description = f"Histogram of {measure.label} of {counts.count} images, median {median}."
                charts[f"histogram-{name}"] = report_charts.histogram(
                    counts, measure.label, description, measure.format
                )
        for number, (name, counts) in enumerate(run.savings.items()):
            description = f"Histogram of the saving of {counts.count} images that were {name}, in percent."
            charts[f"saving-{number}"] = report_charts.histogram(counts, "bytes saved, %", description, ".0f")
        charts["stages"] = report_charts.stages(run.total)
        charts["shards"] = report_charts.shards(run)
        if run.times.workers:
            charts["workers"], charts["timeline"] = report_charts.workers(run), report_charts.timeline(run)
    for column in (PSNR.column, MS_SSIM.column):
        if comparison and any(need.measure == column and need.ratio is not None for need in comparison.needs):
            charts[f"equal-{column}"] = report_charts.equal_quality(comparison.needs, column)
    return charts


@cache
def _vega() -> str:
    """Return Vega, Vega-Lite and what puts them into a page (all BSD-3-Clause) as one script."""
    import vl_convert

    return str(
        vl_convert.javascript_bundle("window.drawChart = (place, chart, options) => vegaEmbed(place, chart, options);")
    )


def _json_for_html(value: Any) -> str:
    """Return JSON in which nothing can end the element that it stands in."""
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _csp_hash(script: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
