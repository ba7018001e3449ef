import json
from dataclasses import asdict
from typing import Any

from pipeline.ledger.summary import Summary

ROWS: list[dict[str, Any]] = [
    {"key": "a", "status": "ok", "width": 3, "height": 2, "in": 100, "num_bytes": 10, "bpp": 1.0, "psnr_db": 30.0},
    {"key": "b", "status": "ok", "width": 1, "height": 1, "in": 50, "num_bytes": 20, "bpp": 2.0, "psnr_db": None},
    {"key": "c", "status": "empty", "error_message": "no bytes", "in": 0},
    {"key": "d", "status": "empty", "error_message": "no bytes", "in": 0},
    {"key": "e", "status": "crashed", "error_message": "died", "decode_seconds": 0.5, "analysis_seconds": None},
    {"key": "f", "status": "empty", "error_message": "no bytes", "in": 0, "decode_seconds": 0.25},
]


def of(rows: list[dict[str, Any]]) -> Summary:
    return Summary.of_rows(rows, bytes_in=["in"], bytes_out=["num_bytes"])


def test_sums_and_means() -> None:
    summary = of(ROWS)
    assert (summary.num_images, summary.num_quarantined) == (6, 4)
    assert summary.quarantined == {"empty": 3, "crashed": 1}
    assert summary.examples == {"empty": "c: no bytes", "crashed": "e: died"}
    assert (summary.num_pixels, summary.num_bytes_in, summary.num_bytes_out) == (7, 150, 30)
    assert summary.bpp.value == 1.5
    assert summary.total_bpp == 8 * 30 / 7
    assert (summary.psnr_db.value, summary.psnr_db.count) == (30.0, 1)
    assert summary.ms_ssim.value is None
    assert summary.stage_seconds == {"decode": 0.75}


def test_the_total_rate_is_that_of_the_bitstreams_alone() -> None:
    """What lies beside them is stored too, and is not what an image costs per pixel."""
    rows = [{**row, "beside": 1000} for row in ROWS[:2]]
    summary = Summary.of_rows(rows, bytes_in=["in"], bytes_out=["num_bytes", "beside"])
    assert (summary.num_bytes_out, summary.total_bpp) == (2030, 8 * 30 / 7)
    assert Summary().total_bpp is None


def test_images_that_grew_are_counted_and_do_not_hide_behind_the_others() -> None:
    rows = [{**row, "in": size} for row, size in zip(ROWS[:2], (4, 500), strict=True)]
    summary = of([*rows, *ROWS[2:]])
    assert (summary.num_grown, summary.num_bytes_grown) == (1, 6)
    assert (of(ROWS).num_grown, of(ROWS).num_bytes_grown) == (0, 0)


def test_kept_originals_are_good_and_no_bitstreams() -> None:
    summary = of([ROWS[0], {**ROWS[1], "status": "kept"}])
    assert (summary.num_images, summary.num_quarantined, summary.num_kept) == (2, 0, 1)
    assert (summary.num_bytes_bitstreams, summary.num_bytes_kept, summary.num_bytes_out) == (10, 20, 30)
    assert summary.total_bpp == 8 * 30 / 7


def test_parts_add_up_to_the_whole() -> None:
    rows = [*ROWS, {**ROWS[0], "status": "kept"}]
    assert of(rows[:2]) + of(rows[2:4]) + of(rows[4:]) == of(rows)
    assert sum((of([row]) for row in ROWS), Summary()) == of(ROWS)
    grown = [{**row, "in": 1} for row in ROWS[:2]]
    assert sum((of([row]) for row in grown), Summary()) == of(grown)


def test_a_marker_of_an_earlier_release_has_no_seconds() -> None:
    value = asdict(of(ROWS))
    del value["stage_seconds"]
    assert Summary.from_json(value).stage_seconds == {}


def test_json_round_trip() -> None:
    assert Summary.from_json(json.loads(json.dumps(asdict(of(ROWS))))) == of(ROWS)
