from typing import Any

import numpy as np
import pytest

from bls.targets import Target
from pipeline.compress.coding import CodedItem
from pipeline.compress.keeping import is_to_be_kept, keep
from pipeline.images import SourceImage


def coded(*, bitstream: int, beside: int = 0, **row: Any) -> CodedItem:
    """Return an image of 10 x 10 pixels whose bitstream has so many bytes, with so many beside it."""
    image = SourceImage(np.zeros((10, 10, 3), np.uint8), "RGB", "PNG", bytes(beside) or None, None, None)
    known = {"key": "a", "status": "ok", "width": 10, "height": 10, **row}
    return CodedItem(0, known, image=image, bitstream=bytes(bitstream))


@pytest.mark.parametrize(("num_bytes", "expected"), [(119, True), (120, False), (121, False)])
def test_all_that_would_be_stored_counts(num_bytes: int, expected: bool) -> None:
    assert is_to_be_kept(coded(bitstream=100, beside=20), num_bytes, None) == expected


@pytest.mark.parametrize(
    ("target", "is_met", "expected"),
    [
        ("num_bytes <= 100", True, False),
        ("num_bytes <= 100", False, True),
        ("num_bytes <= 110", True, True),
        ("bpp <= 8.7", True, False),
        ("bpp <= 8.8", True, True),
        ("psnr_db >= 30", True, True),
        ("psnr_db >= 30", False, True),
    ],
)
def test_a_target_of_size_that_is_met_stays_met(target: str, is_met: bool, expected: bool) -> None:
    item = coded(bitstream=100, beside=20, target_met=is_met)
    assert is_to_be_kept(item, 110, Target.parse(target)) == expected


def test_the_row_is_that_of_an_exact_image() -> None:
    item = coded(bitstream=100, beside_num_bytes=20, target_met=False, mse_255=9.0, psnr_db=38.0, verified=True)
    keep(item, 50, Target.parse("psnr_db >= 40"))
    expected = {"status": "kept", "num_bytes": 50, "beside_num_bytes": 0, "bpp": 4.0, "mse_255": 0.0}
    assert {name: item.row[name] for name in expected} == expected
    assert item.row["psnr_db"] is item.row["ms_ssim"] is item.row["verified"] is None
    assert item.row["target_met"], "its pixels are exact"
    assert item.ok and item.is_kept


def test_a_row_without_a_target_gets_none() -> None:
    item = coded(bitstream=100)
    keep(item, 50, None)
    assert "target_met" not in item.row
