import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.ledger.markers import Marker, Stint
from pipeline.ledger.summary import Mean, Summary
from pipeline.provenance import code_version
from pipeline.read.dataset import CompressedDataset
from pipeline.report import page as report_page
from pipeline.report.charts import MAX_SHARDS, MAX_WORKERS, STAGES, shown_shards
from pipeline.report.contact_sheet import Thumbnail
from pipeline.report.equal_quality import Need, spreads
from pipeline.report.page import Comparison, Shown, render
from pipeline.report.pictures import Pictures
from pipeline.report.run import Reason, RunReport, gather
from pipeline.report.samples import Histogram
from pipeline.report.times import JobTimes, job_times
from pipeline.report.words import facts, headline, progress, units, verdicts
from tests.compressed import compress

HOSTILE = "<script>alert(1)</script>\"'&</bdi> ü\u202e.png"
SETTINGS = {
    "input": f"/photos/{HOSTILE}",
    "quality": 4,
    "target": None,
    "coder": "mixed",
    "effort": 2,
    "model_fingerprint": "ab" * 8,
}
SECONDS = {
    "fetch": 9.0,
    "decode": 1.0,
    "analysis": 2.0,
    "entropy_encode": 0.5,
    "entropy_decode": 0.5,
    "synthesis": 3.0,
    "quality": 1.0,
}
MEANS: dict[str, Any] = {
    "bpp": Mean(1.0, 2),
    "psnr_db": Mean(60.0, 2),
    "ms_ssim": Mean(0.97, 1),
    "quality": Mean(8.5, 2),
}
TOTAL = Summary(3, {"empty": 1}, {}, 2_000_000, 6000, 1500, 1250, **MEANS, num_targets_missed=1, stage_seconds=SECONDS)
ROW = {
    **{"key": HOSTILE, "width": 100, "height": 80, "bpp": 0.5, "psnr_db": 30.0, "ms_ssim": None},
    **{"source_format": "PNG", "source_num_bytes": 3000, "num_bytes": 750},
}


class Page(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images_without_text = 0
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values[name] or "" for name in ("src", "href") if name in values]
        self.images_without_text += tag == "img" and not values.get("alt")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(autouse=True)
def small_script(monkeypatch: pytest.MonkeyPatch) -> None:
    # Bundling Vega takes seconds; the integration test has it.
    monkeypatch.setattr(report_page, "_vega", lambda: "window.drawChart = async () => {};")


def run_report(total: Summary = TOTAL) -> RunReport:
    created = "2026-01-02T03:04:05+00:00"
    run = RunReport(total, total.num_images, 1, SETTINGS, created, "0.1.0", [(0, total)], JobTimes())
    run.reasons = [Reason("empty", "ImageError", 1, [{"key": HOSTILE, "error_message": f"empty {HOSTILE}"}])]
    run.sample = [ROW] if run.num_good else []
    run.histograms = {"bpp": Histogram(0.01)}
    return run


def test_what_others_wrote_is_text_and_never_markup() -> None:
    pictures = Pictures(ROW, original="data:,", decoded="data:,", difference="data:,", crop_box=(0, 0, 10, 10))
    plain = Page(render(run_report(), [], None, title="t"))
    page = Page(render(run_report(), [Shown("psnr_db", [("best", pictures)])], None, title=HOSTILE))
    # The page's own: two scripts, and the charts as JSON.
    assert page.tags.count("script") == plain.tags.count("script") == 3
    assert page.texts.count(HOSTILE) == 3  # lead, card, example: whole, as it was
    assert page.texts.count(f"Compression report: {HOSTILE}") == 1
    assert page.images_without_text == 0


def test_the_sheet_has_a_picture_and_a_name_for_each_image() -> None:
    sheet = [Thumbnail(ROW, "data:,a"), Thumbnail({**ROW, "key": "b.png"}, "data:,b")]
    text = render(run_report(), [], None, title="t", sheet=sheet)
    page = Page(text)
    assert page.links.count("data:,a") == page.links.count("data:,b") == 1
    assert page.images_without_text == 0 and page.tags.count("script") == 3
    assert "2 images, at an eighth" in text and "At a glance" not in render(run_report(), [], None, title="t")


def test_json_cannot_end_its_script() -> None:
    text = render(run_report(), [], None, title="t")
    (content,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', text, re.DOTALL)
    assert "<" not in content
    (point,) = json.loads(content)["rate-distortion"]["data"]["values"]
    assert point["key"] == HOSTILE


def test_what_a_job_has_written_has_a_page(tiny_bundle: Path, tmp_path: Path) -> None:
    """The manifest and settings are those of the job, none that a test made up."""
    (tmp_path / "in").mkdir()
    Image.new("L", (20, 30)).save(tmp_path / "in" / "a.png")
    compress(tmp_path / "in", tmp_path / "out", tiny_bundle)
    text = render(gather(CompressedDataset(str(tmp_path / "out"))), [], None, title="t")
    assert f"Made by bls-codec {code_version()};" in text


def test_an_image_with_several_places_is_embedded_once() -> None:
    pictures = Pictures(ROW, original="data:,x", decoded="data:,y", difference="data:,z", crop_box=(0, 0, 10, 10))
    places = [("best", pictures), ("median", pictures), ("worst", pictures)]
    page = Page(render(run_report(), [Shown("psnr_db", places), Shown("bpp", places)], None, title="t"))
    assert page.links.count("data:,x") == 1
    assert page.links.count("#picture-0") == 5
    assert page.ids.count("picture-0") == 1


def test_nothing_is_loaded_from_anywhere() -> None:
    page = Page(render(run_report(), [], None, title="t"))
    assert [link for link in page.links if not link.startswith(("data:", "#"))] == []


@pytest.mark.parametrize("total", [Summary(), Summary(num_images=2, quarantined={"empty": 2}), TOTAL])
def test_any_run_has_a_page(total: Summary) -> None:
    for comparison in (None, Comparison([], 0, 3, 0, 0)):
        page = Page(render(run_report(total), [], comparison, title="t"))
        assert page.tags.count("h1") == 1


def test_unfinished_jobs_say_so() -> None:
    assert progress(run_report()) == ""
    unfinished = replace(run_report(), num_shards_planned=4, num_images_planned=12)
    assert "1 of 4 shards, 3 of 12 images" in progress(unfinished)
    assert "1 of 4 shards" in render(unfinished, [], None, title="t")


def test_each_worker_has_its_bars_and_the_job_its_time() -> None:
    markers = [
        Marker(number, "a", {}, TOTAL, stints=[Stint(f"{HOSTILE}:{number}", 10.0 * number, 10.0 * number + 20)])
        for number in range(MAX_WORKERS + 5)
    ]
    run = replace(run_report(), times=job_times(markers))
    text = render(run, [], None, title="t")
    (content,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', text, re.DOTALL)
    charts = json.loads(content)
    bars = charts["timeline"]["data"]["values"]
    assert len(bars) == MAX_WORKERS and bars[0]["from"] == 0 and bars[0]["to"] == 20
    assert len(charts["workers"]["data"]["values"]) == MAX_WORKERS * len(SECONDS)
    assert f"the {MAX_WORKERS} slowest workers were" in text
    named = {name: (value, meaning) for name, value, meaning in facts(run)}
    assert named["Time"] == ("6.0 min", "in which somebody worked; 35 workers in all, 1.9 at a time on average")
    assert named["Speed"][0] == "0.01 MP/s"


def test_no_two_stages_have_one_colour() -> None:
    numbers = re.search(r"series = \[([\d, ]+)\]", (report_page._FILES / "report.js").read_text("utf-8"))
    css = (report_page._FILES / "report.css").read_text("utf-8")
    assert numbers is not None
    colours = [re.findall(rf"--c{int(number)}: (#\w+);", css) for number in numbers[1].split(",")]
    light, dark = zip(*colours, strict=True)
    assert len(set(light)) == len(set(dark)) == len(colours) == len(STAGES)


def test_the_headline_tells_growth_and_failure() -> None:
    assert headline(run_report()) == "2 images shrank from 6 kB to 1.5 kB."
    assert "grew" in headline(run_report(replace(TOTAL, num_bytes_out=9000)))
    assert headline(run_report(Summary(2, {"empty": 2}))) == "None of 2 images could be compressed."


def test_the_rate_is_all_bits_over_all_pixels() -> None:
    told = {name: (value, meaning) for name, value, meaning in facts(run_report())}
    assert told["Rate"][0] == "0.005 bpp" and told["Rate"][1].endswith("mean of images 0.500")


def test_a_target_is_told_with_the_images_that_miss_it() -> None:
    run = replace(run_report(), settings={**SETTINGS, "quality": None, "target": "psnr_db >= 34"})
    told = {name: (value, meaning) for name, value, meaning in facts(run)}
    assert told["Quality"][0] == "4.25 on average"
    assert told["Target"][0] == "psnr_db >= 34" and "1 images miss it" in told["Target"][1]


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (2.0, "Ours needs 50 % fewer bytes than AVIF (tune=iq)."),
        (0.8, "Ours needs 25 % more bytes than AVIF (tune=iq)."),
        (1.001, "Ours needs as many bytes as AVIF (tune=iq), within 1 %."),
    ],
)
def test_losses_are_told_in_words(ratio: float, words: str) -> None:
    needs = [Need("avif-444-iq", "psnr_db", ratio)]
    told = verdicts(spreads(needs))
    assert list(told) == ["psnr_db"]
    assert told["psnr_db"] == [words]
    text = render(run_report(), [], Comparison(needs, 1, 0, 0, 0), title="t")
    assert units(words) in text and ('class="better"' in text) == (ratio < 0.9)


def test_jpeg_sources_are_told() -> None:
    needs = [Need("jpeg-420", "psnr_db", 2.0)]
    assert "favours JPEG" in render(run_report(), [], Comparison(needs, 3, 0, 2, 0), title="t")
    assert "favours JPEG" not in render(run_report(), [], Comparison(needs, 3, 0, 0, 0), title="t")


def test_of_many_shards_the_slowest_are_drawn() -> None:
    shards = [(n, replace(TOTAL, stage_seconds={"decode": float(n % 97)})) for n in range(500)]
    drawn = shown_shards(replace(run_report(), shards=shards))
    assert len(drawn) == MAX_SHARDS
    assert min(summary.stage_seconds["decode"] for _, summary in drawn) >= 89
    assert [number for number, _ in drawn] == sorted(number for number, _ in drawn)
