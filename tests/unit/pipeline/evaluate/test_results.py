import csv
import io
from typing import Any

import pyarrow as pa
import pytest

from bls.entropy.coders import CODERS
from pipeline.baselines import BASELINES
from pipeline.evaluate.curves import read_reference
from pipeline.evaluate.results import Report
from pipeline.evaluate.worker import our_name
from pipeline.ledger.schema import EVALUATION

REFERENCE = b"codec,bpp,psnr_rgb_db,ms_ssim\njpeg-420,0.2,26,0.8\njpeg-420,0.4,30,0.9\njpeg-420,1.6,36,0.98\n"


def row(codec: str, setting: float, bpp: float, psnr_db: float, ms_ssim: float | None) -> dict[str, Any]:
    measured = {"bpp": bpp, "estimated_bpp": bpp, "psnr_db": psnr_db, "ms_ssim": ms_ssim, "mse_255": 1.0}
    return {"key": "a.png", "status": "ok", "codec": codec, "quality": setting, "nlpd": 0.1, **measured}


def rows(*, ms_ssim: bool = True, best: str = CODERS[-1]) -> list[dict[str, Any]]:
    found = []
    for coder in CODERS:
        factor = 1.0 if coder == best else 1.25
        for quality, bpp, psnr_db in ((2, 0.2, 28.0), (4, 0.4, 31.0), (6, 0.8, 34.0), (8, 1.6, 37.0)):
            found.append(row(our_name(coder), quality, factor * bpp, psnr_db, psnr_db / 40 if ms_ssim else None))
    for setting, psnr_db in zip(BASELINES["webp"].settings, range(26, 42, 2), strict=True):
        found.append(row("webp", setting, 0.1 * 1.6 ** (psnr_db / 2 - 13), float(psnr_db), 0.9 if ms_ssim else None))
    return found


def report(table_rows: list[dict[str, Any]], reference: bytes = REFERENCE) -> Report:
    table = pa.Table.from_pylist(table_rows, schema=EVALUATION)
    return Report.of_rows(table, name="kodak", published=read_reference(reference), provenance={"commit": "abc"})


@pytest.mark.parametrize("best", CODERS)
def test_the_coder_with_the_fewest_bits_is_the_curve_that_counts(best: str) -> None:
    found = report(rows(best=best))
    assert found.our_codec == our_name(best)
    assert [point["bpp"] for point in found.our_points] == [0.2, 0.4, 0.8, 1.6]
    assert found.curves("psnr_db")[0].codec == our_name(best)
    rates = {
        (r["codec"], r["is_published"]): r["bd_rate_percent"] for r in found.bd_rates() if r["measure"] == "psnr_db"
    }
    others = {(our_name(coder), False) for coder in CODERS if coder != best}
    assert set(rates) == others | {("webp", False), ("jpeg-420", True)}
    assert [rates[other] for other in others] == pytest.approx([-20.0] * len(others))
    told = [line for line in found.files()["README.md"].decode().splitlines() if line.startswith("| than bls-")]
    assert len(told) == 2 and all("| 20.0 % fewer bits (28.0 to 37.0 dB) |" in line for line in told)


def test_files_of_a_report() -> None:
    files = report(rows()).files()
    assert set(files) == {
        *("summary.csv", "bd_rate.csv", "README.md"),
        *(f"{stem}.{image_format}" for stem in ("rd_psnr", "rd_ms_ssim") for image_format in ("png", "svg")),
    }
    means = list(csv.DictReader(io.StringIO(files["summary.csv"].decode())))
    assert len(means) == 4 * len(CODERS) + len(BASELINES["webp"].settings)
    assert means[0]["codec"] == our_name(CODERS[0]) and float(means[0]["psnr_db"]) == 28.0
    rates = list(csv.DictReader(io.StringIO(files["bd_rate.csv"].decode())))
    assert {r["measure"] for r in rates} == {"psnr_db", "ms_ssim_db"}
    # All settings of webp have the same MS-SSIM here, which makes no curve.
    (flat,) = (r for r in rates if r["codec"] == "webp" and r["measure"] == "ms_ssim_db")
    assert flat["bd_rate_percent"] == "" and "expected" in flat["reason"]


def test_markdown_tells_what_each_codec_needs_for_our_psnr() -> None:
    text = report(rows()).files()["README.md"].decode()
    (line,) = (line for line in text.splitlines() if line.startswith("| jpeg-420 (published) |") and "%" not in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    # Between 26 and 30 dB at 0.2 and 0.4 bpp, half way over the logarithm.
    assert float(cells[1]) == pytest.approx(0.2 * 2**0.5, abs=1e-3)
    assert "- commit: abc" in text and "| webp | quality 1, 10, 25, 45, 65, 80, 90, 95 | method 6 | " in text
    assert "| quality | bpp, " in text and "left out" not in text


def test_small_images_have_no_ms_ssim_curve() -> None:
    files = report(rows(ms_ssim=False)).files()
    assert "rd_psnr.png" in files and "rd_ms_ssim.png" not in files
    assert "| 2 | " in files["README.md"].decode()


def test_a_single_quality_is_reported_too() -> None:
    table = pa.Table.from_pylist([row(our_name(coder), 4, 0.4, 31.0, 0.95) for coder in CODERS], schema=EVALUATION)
    files = Report.of_rows(table, name="kodak", provenance={}).files()  # without a warning of the plots
    assert "rd_psnr.png" in files
    text = files["README.md"].decode()
    assert "| 4 | 0.400 | " in text and "a curve has" in text and "with Pillow" not in text


def test_images_that_are_left_out_are_counted() -> None:
    bad = {"key": "b.png", "status": "empty", "codec": None, "quality": None}
    half = {"key": "c.png", "status": "failed", "codec": "webp", "quality": 10}
    text = report([*rows(), bad, half]).files()["README.md"].decode()
    assert "2 images are left out of all means" in text
    assert "| empty | all | 1 |" in text and "| failed | webp | 1 |" in text
    assert list(report([bad]).files()) == ["README.md"]
