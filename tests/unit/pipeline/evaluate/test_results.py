import csv
import io
from itertools import product
from typing import Any

import pyarrow as pa
import pytest

from bls.entropy.coders import CODERS
from pipeline.baselines import BASELINES
from pipeline.evaluate.coding import our_name
from pipeline.evaluate.curves import read_reference
from pipeline.evaluate.result_page import files
from pipeline.evaluate.results import Report
from pipeline.ledger.schema import EVALUATION

REFERENCE = b"codec,bpp,psnr_rgb_db,ms_ssim\njpeg-420,0.2,26,0.8\njpeg-420,0.4,30,0.9\njpeg-420,1.6,36,0.98\n"


def row(
    codec: str, setting: float, bpp: float, psnr_db: float, ms_ssim: float | None, effort: int = 0
) -> dict[str, Any]:
    effort_of = {"effort": effort} if codec.startswith("bls-") else {}
    measured = {"bpp": bpp, "estimated_bpp": bpp, "psnr_db": psnr_db, "ms_ssim": ms_ssim, "mse_255": 1.0, "nlpd": 0.1}
    times = {"width": 1000, "height": 500, "encode_seconds": 0.25, "decode_seconds": 0.1}
    return {"key": "a.png", "status": "ok", "codec": codec, "quality": setting, **effort_of, **measured, **times}


def rows(*, ms_ssim: bool = True, best: str = CODERS[-1], efforts: tuple[int, ...] = (0,)) -> list[dict[str, Any]]:
    found = []
    for effort, coder in product(efforts, CODERS):
        factor = (1.0 if coder == best else 1.25) * 0.9**effort
        for quality, bpp, psnr_db in ((2, 0.2, 28.0), (4, 0.4, 31.0), (6, 0.8, 34.0), (8, 1.6, 37.0)):
            similarity = psnr_db / 40 if ms_ssim else None
            found.append(row(our_name(coder), quality, factor * bpp, psnr_db, similarity, effort))
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
    told = [line for line in files(found)["README.md"].decode().splitlines() if line.startswith("| than bls-")]
    assert len(told) == 2 and all("| 20.0 % fewer bits (28.0 to 37.0 dB) |" in line for line in told)


def test_files_of_a_report() -> None:
    written = files(report(rows()))
    assert set(written) == {
        *("summary.csv", "bd_rate.csv", "bd_rate_of_all.csv", "README.md"),
        *(f"{stem}.{image_format}" for stem in ("rd_psnr", "rd_ms_ssim") for image_format in ("png", "svg")),
    }
    means = list(csv.DictReader(io.StringIO(written["summary.csv"].decode())))
    assert len(means) == 4 * len(CODERS) + len(BASELINES["webp"].settings)
    assert means[0]["codec"] == our_name(CODERS[0]) and float(means[0]["psnr_db"]) == 28.0
    rates = list(csv.DictReader(io.StringIO(written["bd_rate.csv"].decode())))
    assert {r["measure"] for r in rates} == {"psnr_db", "ms_ssim_db"}
    # All settings of webp have the same MS-SSIM here, which makes no curve.
    (flat,) = (r for r in rates if r["codec"] == "webp" and r["measure"] == "ms_ssim_db")
    assert flat["bd_rate_percent"] == "" and "expected" in flat["reason"]


def test_markdown_tells_what_each_codec_needs_for_our_psnr() -> None:
    text = files(report(rows()))["README.md"].decode()
    (line,) = (line for line in text.splitlines() if line.startswith("| jpeg-420 (published) |") and "%" not in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    # Between 26 and 30 dB at 0.2 and 0.4 bpp, half way over the logarithm.
    assert float(cells[1]) == pytest.approx(0.2 * 2**0.5, abs=1e-3)
    assert "- commit: abc" in text and "| webp | quality 1, 10, 25, 45, 65, 80, 90, 95 | method 6 | " in text
    assert "| quality | effort | bpp, " in text and "left out" not in text


def test_small_images_have_no_ms_ssim_curve() -> None:
    written = files(report(rows(ms_ssim=False)))
    assert "rd_psnr.png" in written and "rd_ms_ssim.png" not in written
    assert "| 2 | " in written["README.md"].decode()


def test_a_single_quality_is_reported_too() -> None:
    table = pa.Table.from_pylist([row(our_name(coder), 4, 0.4, 31.0, 0.95) for coder in CODERS], schema=EVALUATION)
    written = files(Report.of_rows(table, name="kodak", provenance={}))  # without a warning of the plots
    assert "rd_psnr.png" in written
    text = written["README.md"].decode()
    assert "| 4 | 0 | 0.400 | " in text and "a curve has" in text and "settings" not in text


def test_images_that_are_left_out_are_counted() -> None:
    bad = {"key": "b.png", "status": "empty", "codec": None, "quality": None}
    half = {"key": "c.png", "status": "failed", "codec": "webp", "quality": 10}
    text = files(report([*rows(), bad, half]))["README.md"].decode()
    assert "2 images are left out of all means" in text
    assert "| empty | all | 1 |" in text and "| failed | webp | 1 |" in text
    assert list(files(report([bad]))) == ["README.md"]


def test_each_effort_is_a_curve_that_is_compared_with_the_others() -> None:
    found = report(rows(efforts=(0, 3)))
    ours = our_name(CODERS[-1])
    assert [(curve.codec, curve.effort) for curve in found.curves("psnr_db")[:2]] == [(ours, 0), (ours, 3)]
    rates = {
        (row["effort"], row["codec"], row["other_effort"]): row["bd_rate_percent"]
        for row in found.bd_rates()
        if row["measure"] == "psnr_db"
    }
    others = {our_name(coder) for coder in CODERS[:-1]}
    assert set(rates) == {
        *((effort, other, effort) for effort in (0, 3) for other in others),
        *((effort, other, None) for effort in (0, 3) for other in ("webp", "jpeg-420")),
        (3, ours, 0),
    }
    assert rates[3, ours, 0] == pytest.approx(100 * (0.9**3 - 1))
    written = files(found)
    text = written["README.md"].decode()
    (line,) = (line for line in text.splitlines() if line.startswith("| 4 | 3 | "))
    assert "| 0.292 |" in line and "| 4 | 0 | " in text
    assert f"| than {ours}, effort 0 | 27.1 % fewer bits (28.0 to 37.0 dB)" in text
    drawn = written["rd_psnr.svg"].decode()
    assert f"<!-- {ours}, effort 0 -->" in drawn and f"<!-- {ours}, effort 3 -->" in drawn
    assert our_name(CODERS[0]) not in drawn


def test_every_codec_is_compared_with_the_first_published_curve() -> None:
    bits = ((0.25, 28), (0.5, 31), (1.0, 34), (2.0, 37))
    lines = ["codec,bpp,psnr_rgb_db,ms_ssim", *(f"old,{bpp},{psnr_db}," for bpp, psnr_db in bits)]
    lines += [f"older,{2 * bpp},{psnr_db}," for bpp, psnr_db in bits]
    found = report(rows(efforts=(0, 1)), "\n".join(lines).encode())
    rates = {
        (row["codec"], row["effort"]): row["bd_rate_percent"]
        for row in found.bd_rates_of_all()
        if row["measure"] == "psnr_db" and row["reference"] == "old"
    }
    assert set(rates) == {*product(map(our_name, CODERS), (0, 1)), ("webp", None), ("older", None)}
    assert [rates[our_name(CODERS[-1]), effort] for effort in (0, 1)] == pytest.approx([-20, -28])
    assert rates["older", None] == pytest.approx(100)
    written = files(found)
    text = written["README.md"].decode()
    assert "| bits for the quality of old (published) | PSNR |" in text
    assert "| older (published) | 100.0 % more bits (28.0 to 37.0 dB) |" in text
    assert len(written["bd_rate_of_all.csv"].splitlines()) == 1 + len(found.bd_rates_of_all())
    assert "bd_rate_of_all.csv" not in files(Report.of_rows(found.table, name="kodak", provenance={}))


def test_speeds_are_megapixels_over_seconds() -> None:
    slow = [{**each, "encode_seconds": 1.0} if each["quality"] == 8 else each for each in rows()]
    text = files(report(slow))["README.md"].decode()
    assert f"| {our_name(CODERS[0])}, effort 0 | 0.5 to 2 | 5 to 5 |" in text
    assert "| webp | 2 to 2 | 5 to 5 |" in text
    untimed = [{**each, "encode_seconds": None, "decode_seconds": None} for each in rows()]
    assert "megapixels a second" not in files(report(untimed))["README.md"].decode()


def test_scores_of_ssimulacra2_make_a_curve() -> None:
    scored = [{**each, "ssimulacra2": 2 * each["psnr_db"]} for each in rows()]
    written = files(report(scored))
    assert {"rd_ssimulacra2.png", "rd_ssimulacra2.svg"} < set(written)
    text = written["README.md"].decode()
    assert "% fewer bits (56.0 to 74.0) |" in text and "![SSIMULACRA2](rd_ssimulacra2.png)" in text
    assert "<!-- SSIMULACRA2 -->" in written["rd_ssimulacra2.svg"].decode()
