from typing import Any

import pytest

from bls.ladder import QualityRange
from pipeline.compress.curve import Curve, Point, measure_curve
from pipeline.ledger.shard import Shard
from pipeline.sources.reference import ImageReference
from pipeline.status import Status

CURVE = Curve(2, [Point(1, 100, 28.0), Point(4, 800, 34.0), Point(8, 12_800, None)])
SERVED = [QualityRange(1, 4), QualityRange(5, 8)]


class FakeCompressor:
    """Doubles the size with each quality; every fourth image is bad."""

    def __init__(self) -> None:
        self.asked: list[tuple[float | None, int]] = []

    def measure(self, shard: Shard) -> list[dict[str, Any]]:
        assert shard.quality is not None
        self.asked.append((shard.quality, len(shard.items)))
        sizes = {"num_bytes": int(100 * 2**shard.quality), "beside_num_bytes": None, "carried_num_bytes": 10}
        good = {**sizes, "status": Status.OK, "width": 100, "height": 100, "psnr_db": 30 + shard.quality}
        bad = {"status": Status.EMPTY, "key": "bad", "error_message": "no bytes"}
        return [bad if item.key.endswith("3") else good for item in shard.items]


def references(count: int) -> list[ImageReference]:
    return [ImageReference(f"{number % 4}", "uri", "stem") for number in range(count)]


def test_sizes_grow_evenly_between_the_points() -> None:
    assert CURVE.num_bytes(1) == pytest.approx(100)
    assert CURVE.num_bytes(2) == pytest.approx(200)
    assert list(CURVE.num_bytes([4, 6])) == pytest.approx([800, 3200])
    assert Curve.from_json(CURVE.to_json()) == CURVE


@pytest.mark.parametrize(
    ("num_bytes", "quality"), [(50, 1), (100, 1), (200.001, 2), (800.001, 4), (1000, 4), (1600.001, 5), (10**9, 8)]
)
def test_the_highest_served_quality_of_a_size_is_found(num_bytes: float, quality: float) -> None:
    assert CURVE.highest_quality(num_bytes, SERVED) == quality


@pytest.mark.parametrize("budget", [999, 128_001])
def test_a_budget_beyond_the_range_is_refused_with_the_numbers(budget: int) -> None:
    CURVE.check_reaches(1000, 10)
    CURVE.check_reaches(128_000, 10)
    with pytest.raises(ValueError, match="from about 1 kB, which the 10 images take at quality 1, to 128 kB at qual"):
        CURVE.check_reaches(budget, 10)


def test_the_table_tells_totals_and_psnr() -> None:
    assert CURVE.table(10) == [
        ("quality 1", "1 kB, 28.00 dB"),
        ("quality 4", "8 kB, 34.00 dB"),
        ("quality 8", "128 kB"),
    ]


def test_a_sample_is_measured_at_the_whole_qualities_and_both_ends() -> None:
    compressor = FakeCompressor()
    curve = measure_curve(compressor, references(40), [QualityRange(1.5, 3), QualityRange(4, 5.5)], max_pixels=100_000)
    assert curve.num_images == 16  # 8 have 60,000 pixels
    assert [quality for quality, _ in compressor.asked[:2]] == [4, 4]
    assert [point.quality for point in curve.points] == [1.5, 2, 3, 4, 5, 5.5]
    assert compressor.asked[2:] == [(quality, 16) for quality in (1.5, 2, 3, 5, 5.5)]
    for point in curve.points:
        assert point.num_bytes == 0.75 * (int(100 * 2**point.quality) + 10)
        assert point.psnr_db == 30 + point.quality


def test_a_sample_without_a_good_image_is_refused() -> None:
    bad = [ImageReference("3", "uri", "stem")]
    with pytest.raises(ValueError, match="none of 1 images can be compressed, bad: no bytes"):
        measure_curve(FakeCompressor(), bad, SERVED)
