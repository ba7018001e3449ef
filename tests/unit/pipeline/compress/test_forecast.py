from typing import Any

import pytest

from pipeline.compress.forecast import Forecast, draw_sample, measure
from pipeline.ledger.shard import Shard
from pipeline.sources.reference import ImageReference


def references(count: int) -> list[ImageReference]:
    return [ImageReference(f"{index}.png", f"/in/{index}.png", str(index)) for index in range(count)]


def row(index: int, status: str = "ok") -> dict[str, Any]:
    """Return the metrics of an image of 16 x 100 pixels, or of one pixel."""
    width, height = (100, 16) if index % 2 == 0 else (1, 1)
    sizes: dict[str, Any] = {
        "source_num_bytes": 1000 + index,
        "num_bytes": 100,
        "bpp": 800 / width / height,
        "psnr_db": 30.0,
    }
    sizes |= {"width": width, "height": height, "beside_num_bytes": 50, "carried_num_bytes": 0}
    sizes |= {"effort": 0, "analysis_seconds": 0.3, "synthesis_seconds": 0.1, "quality_seconds": None}
    return {"status": status, **(sizes if status == "ok" else dict.fromkeys(sizes))}


class Compressor:
    """Notes what it is given; every fifth image is bad."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def measure(self, shard: Shard) -> list[dict[str, Any]]:
        self.keys += [reference.key for reference in shard.items]
        return [row(0, "ok" if int(reference.stem) % 5 else "empty") for reference in shard.items]


def test_a_sample_is_drawn_from_all_and_always_the_same() -> None:
    count, sample = draw_sample(iter(references(1000)), 20)
    assert count == 1000 and len(set(sample)) == 20
    assert draw_sample(references(1000), 20) == (count, sample)
    assert {int(reference.stem) // 250 for reference in sample} == {0, 1, 2, 3}
    assert draw_sample(references(3), 20) == (3, references(3))
    assert draw_sample([], 20) == (0, [])


def test_the_whole_sample_is_measured_once() -> None:
    compressor = Compressor()
    forecast = measure(compressor, references(20))
    assert compressor.keys == [reference.key for reference in references(20)]
    assert sum(row["status"] == "ok" for row in forecast.rows) == 16 and forecast.seconds > 0


def test_a_slow_sample_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.compress.forecast._MAX_SECONDS", 0.0)
    monkeypatch.setattr("time.perf_counter", iter([0.0, -1.0, 1.0, 2.0]).__next__)
    forecast = measure(Compressor(), references(20))
    assert (len(forecast.rows), forecast.seconds) == (8, 2.0)


def test_the_part_that_effort_takes_is_told() -> None:
    rows = [{**row(0), "effort": 2}, {**row(0), "effort": 2}, row(0, "empty")]
    told = dict(Forecast(rows, seconds=8.0).report(num_images=3, num_left=3, num_workers=1))
    assert told["effort 2"] == "75 % of the work is analysis, 1.9e+02 s a megapixel"


def test_sums_are_those_of_the_good_with_their_standard_error() -> None:
    forecast = Forecast([row(0), row(1), row(0, "empty"), row(1, "empty")], seconds=8.0)
    told = dict(forecast.report(num_images=4000, num_left=3600, num_workers=2))
    assert told == {
        "source": "2 MB ± 1 kB",  # 2000 good images of 1000.5 bytes; sqrt(1/2) / sqrt(2) * 2000
        "stored": "300 kB ± 0 B",
        # 200 bytes over 1601 pixels; the mean of the two rates would be 400.
        "bpp": "0.999 (all bits over all pixels), images from 0.500 to 800.000 in the sample",
        "PSNR": "30.00 dB, from 30.00 to 30.00 in the sample",
        "time": "about 1.0 h with 2 workers such as this process",
        "sample": "4 of 4000 images at random, 2 of them quarantined",
    }


def test_a_sample_of_bad_images_says_nothing_of_sizes() -> None:
    told = dict(Forecast([row(0, "empty")], seconds=1.0).report(num_images=9, num_left=9, num_workers=1))
    assert (told["source"], told["bpp"], told["time"]) == (
        "unknown",
        "unknown",
        "about 9.0 s with 1 workers such as this process",
    )
