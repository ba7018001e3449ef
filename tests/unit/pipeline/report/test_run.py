import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.ledger.output import Output
from pipeline.measures import MEASURES
from pipeline.read.dataset import CompressedDataset
from pipeline.report import run as run_report
from pipeline.report.charts import histogram, rate_distortion
from pipeline.report.run import MAX_FORMATS, gather
from pipeline.status import Status
from tests.compressed import compress
from tests.datasets import Sample, pixels, write_dataset


@pytest.fixture(scope="module")
def compressed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return eleven images, two of them too small for MS-SSIM, and three that are broken, in shards of four."""
    images = tmp_path_factory.mktemp("images")
    for number in range(9):
        Image.fromarray(pixels(164 + number, 170, gray=number == 4, seed=number)).save(images / f"{number}.png")
    for number in range(2):
        Image.fromarray(pixels(40, 30 + number, seed=number)).save(images / f"small {number}.jpg", quality=90)
    for name in ("x.png", "y.png"):
        (images / name).write_bytes(b"no image")
    (images / "z.png").write_bytes(b"")
    output = tmp_path_factory.mktemp("compressed") / "out"
    compress(images, output, tiny_bundle)
    return output


def rows_of(compressed: Path) -> list[dict[str, object]]:
    names = [marker.files["metrics"].name for marker in Output(str(compressed)).markers()]
    return [row for name in names for row in pq.read_table(compressed / name).to_pylist()]


def test_extremes_are_those_of_all_rows(compressed: Path) -> None:
    run = gather(CompressedDataset(str(compressed)))
    rows = rows_of(compressed)
    assert run.num_good == 11 and run.total.num_images == 14 and len(run.sample) == 11
    for name in MEASURES:
        values = sorted(row[name] for row in rows if row[name] is not None)  # type: ignore[type-var]
        low, high = (run.best, run.worst) if name == "bpp" else (run.worst, run.best)
        assert (low[name][name], high[name][name]) == (values[0], values[-1])
        assert run.histograms[name].count == len(values)
        bin_ = MEASURES[name].bin_width
        assert abs(run.median[name][name] - float(values[(len(values) - 1) // 2])) <= bin_  # type: ignore[arg-type]


def test_savings_are_by_format(compressed: Path) -> None:
    run = gather(CompressedDataset(str(compressed)))
    assert {name: counts.count for name, counts in run.savings.items()} == {"PNG": 9, "JPEG": 2}
    good = [row for row in rows_of(compressed) if row["status"] == Status.OK]
    grown = [row for row in good if row["num_bytes"] > row["source_num_bytes"]]  # type: ignore[operator]
    assert run.num_grown == len(grown)


def test_of_many_formats_the_largest_are_shown_and_the_rest_are_others(tmp_path: Path, tiny_bundle: Path) -> None:
    """The rare ones come first, as in a folder in which they do."""
    formats = [*"ABCDEFG", "RARE", *["WEBP"] * 5, *["PNG"] * 3]
    samples = [Sample(str(number), pixels(16, 16), source_format=name) for number, name in enumerate(formats)]
    write_dataset(tmp_path, tiny_bundle, [samples[:9], samples[9:]])
    run = gather(CompressedDataset(str(tmp_path)))
    assert len(run.savings) == MAX_FORMATS
    counts = {name: histogram.count for name, histogram in run.savings.items()}
    assert list(counts)[:2] == ["WEBP", "PNG"] and counts["WEBP"] == 5 and counts["others"] == 4
    values = rate_distortion(run)["data"]["values"]
    assert {value["format"] for value in values} == set(counts)


def test_rates_that_span_decades_have_a_logarithmic_axis(tmp_path: Path, tiny_bundle: Path) -> None:
    """One image of one pixel is enough."""
    large, small = Sample("a", pixels(96, 96)), Sample("b", pixels(1, 1))
    axes: dict[str, list[str | None]] = {}
    for name, samples in (("wide", [large, small]), ("narrow", [large])):
        write_dataset(tmp_path / name, tiny_bundle, [samples])
        run = gather(CompressedDataset(str(tmp_path / name)))
        rates = run.histograms["bpp"]
        assert rates.count == len(samples)
        for chart in (rate_distortion(run), histogram(rates, "", "", "")):
            axes.setdefault(name, []).append(chart["encoding"]["x"]["scale"].get("type"))
    assert axes == {"wide": ["log", "log"], "narrow": [None, None]}


def test_samples_and_examples_have_a_limit(compressed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_report, "MAX_SAMPLE", 5)
    monkeypatch.setattr(run_report, "MAX_EXAMPLES", 1)
    run = gather(CompressedDataset(str(compressed)), seed=1)
    assert len(run.sample) == 5
    assert [(reason.status, reason.num_images, len(reason.examples)) for reason in run.reasons] == [
        ("not_an_image", 2, 1),
        ("empty", 1, 1),
    ]
    keys = [row["key"] for row in run.sample]
    assert keys == [row["key"] for row in gather(CompressedDataset(str(compressed)), seed=1).sample]
    assert keys != [row["key"] for row in gather(CompressedDataset(str(compressed)), seed=2).sample]


def test_a_job_that_is_not_finished_is_reported_as_far_as_it_is(compressed: Path, tmp_path: Path) -> None:
    shutil.copytree(compressed, tmp_path / "out")
    (tmp_path / "out" / "commits" / "shard-000001.json").unlink()
    run = gather(CompressedDataset(str(tmp_path / "out")))
    assert (len(run.shards), run.num_shards_planned) == (3, 4)
    assert (run.total.num_images, run.num_images_planned) == (10, 14)
