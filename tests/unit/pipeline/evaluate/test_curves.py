import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pytest

from pipeline.evaluate.curves import Curve, bd_rate_row, curves, mean_points, ms_ssim_db, rate_at, read_reference
from pipeline.ledger.schema import EVALUATION

BENCHMARKS = Path(__file__).parents[4] / "benchmarks"
CSV = b"codec,bpp,psnr_rgb_db,ms_ssim,source\na,0.5,30,0.9,x\na,0.25,28,0.8,x\nb,1.0,33,,x\n"


def row(key: str, codec: str | None, setting: int | None, **values: Any) -> dict[str, Any]:
    measured = {"bpp": 1.0, "mse_255": 10.0, "psnr_db": 30.0, "psnr_luma_db": 31.0, "ms_ssim": 0.9, "nlpd": 0.2}
    return {"key": key, "status": "ok", "codec": codec, "quality": setting, **measured, **values}


def points(*rows: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    found = mean_points(pa.Table.from_pylist(list(rows), schema=EVALUATION))
    return {(point["codec"], point["quality"]): point for point in found}


def test_means_are_over_images() -> None:
    found = points(
        row("1", "webp", 10, bpp=1.0, psnr_db=30.0, ms_ssim=0.9),
        row("2", "webp", 10, bpp=3.0, psnr_db=36.0, ms_ssim=0.99),
        row("1", "webp", 20, bpp=5.0),
        row("2", "webp", 20, bpp=5.0),
    )
    point = found["webp", 10]
    assert (point["num_images"], point["bpp"], point["psnr_db"]) == (2, 2.0, 33.0)
    assert point["ms_ssim"] == pytest.approx(0.945)
    assert point["ms_ssim_db"] == pytest.approx(-10 * math.log10(0.055))  # of the mean, not the mean of decibels
    assert list(found) == [("webp", 10), ("webp", 20)]


def test_an_image_that_one_codec_misses_counts_for_none() -> None:
    found = points(
        row("1", "bls-static", 4, bpp=1.0),
        row("1", "webp", 10, bpp=1.0),
        row("2", "bls-static", 4, bpp=9.0),
        row("2", "webp", 10, status="failed", bpp=None),
        row("3", "bls-static", 4, bpp=8.0),
        row("3", "webp", 10, bpp=8.0, mse_255=0.0, psnr_db=None),
        row("4", None, None, status="empty"),
    )
    assert {key: (point["num_images"], point["bpp"]) for key, point in found.items()} == {
        ("bls-static", 4): (1, 1.0),
        ("webp", 10): (1, 1.0),
    }


def test_ms_ssim_of_small_images_has_a_rate_of_its_own() -> None:
    found = points(row("1", "webp", 10, bpp=1.0), row("2", "webp", 10, bpp=3.0, ms_ssim=None))
    point = found["webp", 10]
    assert (point["num_images"], point["bpp"]) == (2, 2.0)
    assert (point["ms_ssim_num_images"], point["ms_ssim_bpp"], point["ms_ssim"]) == (1, 1.0, 0.9)
    (alone,) = points(row("2", "webp", 10, ms_ssim=None)).values()
    assert (alone["ms_ssim"], alone["ms_ssim_db"], alone["num_images"]) == (None, None, 1)


def test_ms_ssim_in_decibels() -> None:
    assert ms_ssim_db(0.99) == pytest.approx(20)
    assert ms_ssim_db(1.0) is None and ms_ssim_db(None) is None


def test_published_points_are_read_by_name() -> None:
    published = read_reference(CSV, ["b", "a"])
    psnr, similarity = curves(published, "psnr_db", is_published=True), curves(published, "ms_ssim_db")
    assert [(c.label, c.bpp, c.quality) for c in psnr] == [
        ("b (published)", (1.0,), (33.0,)),
        ("a (published)", (0.25, 0.5), (28.0, 30.0)),
    ]
    assert [c.label for c in similarity] == ["a"]
    assert similarity[0].quality == pytest.approx((-10 * math.log10(0.2), 10))
    with pytest.raises(ValueError, match="reference has no codec c: expected some of a b"):
        read_reference(CSV, ["a", "c"])
    with pytest.raises(ValueError, match="reference has columns codec, rate, expected codec, bpp"):
        read_reference(b"codec,rate\na,1\n")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (b"\xff\xfe\x00binary", "reference is not a CSV file"),
        (b"", "reference has columns none, expected codec, bpp"),
        (b"codec,bpp,psnr_rgb_db,ms_ssim\n", "reference has no codec a: expected some of none"),
        (b"codec,bpp,psnr_rgb_db,ms_ssim\na,0.5,30,0.9\na,fast,30,0.9\n", "line 3 has bpp 'fast', expected a number"),
        (b"codec,bpp,psnr_rgb_db,ms_ssim\na,-0.5,30,0.9\n", "line 2 has bpp '-0.5', expected a number"),
        (b"codec,bpp,psnr_rgb_db,ms_ssim\na,,30,0.9\n", "line 2 has no bpp above 0"),
        (b"codec,bpp,psnr_rgb_db,ms_ssim\na,0.5,nan,0.9\n", "line 2 has psnr_rgb_db 'nan', expected a number"),
        (b"codec,bpp,psnr_rgb_db,ms_ssim\na,0.5,30,9\n", "line 2 has ms_ssim '9', expected a number of at most 1"),
        (b"codec,bpp,psnr_rgb_db,ms_ssim\n,0.5,30,0.9\n", "line 2 has no codec"),
    ],
)
def test_a_bad_reference_is_one_clear_line(reference: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_reference(reference, ["a"])
    assert "\n" not in str(error.value)


def test_a_short_line_lacks_what_it_lacks() -> None:
    (point,) = read_reference(b"\xef\xbb\xbfcodec,bpp,psnr_rgb_db,ms_ssim\na,0.5,30\n")
    assert (point["bpp"], point["psnr_db"], point["ms_ssim_db"]) == (0.5, 30.0, None)


OURS = Curve("ours", (0.1, 0.2, 0.4, 0.8), (26.0, 29.0, 32.0, 34.5))


def test_bd_rate_is_that_of_our_curve_over_the_common_qualities() -> None:
    twice = Curve("webp", tuple(2 * rate for rate in OURS.bpp), OURS.quality, is_published=True)
    found = bd_rate_row(OURS, twice, "psnr_db")
    assert found["bd_rate_percent"] == pytest.approx(-50)
    assert (found["codec"], found["is_published"], found["measure"]) == ("webp", True, "psnr_db")
    assert (found["from"], found["to"], found["reason"]) == (26.0, 34.5, None)
    half = Curve("webp", (0.3, 1.0, 2.0, 3.0), (29.0, 33.0, 38.0, 40.0))
    assert (bd_rate_row(OURS, half, "psnr_db")["from"], bd_rate_row(OURS, half, "psnr_db")["to"]) == (29.0, 34.5)


def test_points_that_do_not_rise_are_passed_over() -> None:
    bumpy = Curve("jpeg", (0.1, 0.2, 0.2, 0.3, 0.4, 0.8), (26.0, 29.0, 29.5, 28.9, 32.0, 34.5))
    assert bd_rate_row(OURS, bumpy, "psnr_db")["bd_rate_percent"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("other", [Curve("webp", (1.0, 2.0), (40.0, 41.0)), Curve("webp", (0.5,), (30.0,))])
def test_curves_that_cannot_be_compared_have_a_reason(other: Curve) -> None:
    found = bd_rate_row(OURS, other, "psnr_db")
    assert found["bd_rate_percent"] is None and found["from"] is None
    assert "expected" in found["reason"]


def test_scores_without_a_unit_must_share_more() -> None:
    near = Curve("webp", OURS.bpp, tuple(quality + 6 for quality in OURS.quality))
    reason = bd_rate_row(OURS, near, "ssimulacra2")["reason"]
    assert reason == "the curves share 2.50, expected 5 or more"


def test_less_than_a_decibel_in_common_is_no_result() -> None:
    far = Curve("jpeg2000", (1.0, 2.0, 3.0, 4.0), (33.7, 38.0, 40.0, 41.0))
    found = bd_rate_row(OURS, far, "psnr_db")
    assert found["bd_rate_percent"] is None and (found["from"], found["to"]) == (33.7, 34.5)
    assert found["reason"] == "the curves share 0.80 dB, expected 1 dB or more"
    near = Curve("jpeg2000", (1.0, 2.0, 3.0, 4.0), (33.5, 38.0, 40.0, 41.0))
    assert bd_rate_row(OURS, near, "psnr_db")["bd_rate_percent"] < 0


def test_a_line_through_few_points_is_no_result() -> None:
    two = Curve("webp", OURS.bpp[::3], OURS.quality[::3])
    three = Curve("webp", OURS.bpp[1:], OURS.quality[1:])
    for ours, other, num_points in [(OURS, two, 2), (two, OURS, 2), (OURS, three, 3)]:
        found = bd_rate_row(ours, other, "psnr_db")
        assert found["bd_rate_percent"] is None
        assert found["reason"] == f"a curve has {num_points} of the 4 points that are expected at least"


def test_rate_at_a_quality() -> None:
    assert rate_at(OURS, 29.0) == pytest.approx(0.2)
    assert rate_at(OURS, 30.5) == pytest.approx(0.2 * math.sqrt(2))  # straight over the logarithm
    assert rate_at(OURS, 25.9) is None and rate_at(OURS, 34.6) is None


def test_the_committed_comparison_follows_from_the_committed_curves() -> None:
    """A reader can check the published comparison with what is in the repository."""
    kodak = BENCHMARKS / "results" / "kodak"
    summary = pcsv.read_csv(kodak / "summary.csv").to_pylist()
    (ours,) = curves([point for point in summary if point["codec"] == "bls-mixed"], "psnr_db")
    reference = (BENCHMARKS / "reference" / "kodak.csv").read_bytes()
    published = curves(read_reference(reference, ["balle2017-retrained-mse", "jpeg-420"]), "psnr_db", is_published=True)
    found = [bd_rate_row(ours, curve, "psnr_db") for curve in published]
    rows = pcsv.read_csv(kodak / "bd_rate.csv").to_pylist()
    expected = [row for row in rows if row["is_published"] and row["measure"] == "psnr_db"]
    assert [row["codec"] for row in found] == [row["codec"] for row in expected]
    assert [row["bd_rate_percent"] for row in found] == pytest.approx(
        [row["bd_rate_percent"] for row in expected], abs=1e-3
    )
