"""One image by one codec."""

import time
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from bls.codec import Codec
from bls.entropy.coders import CODERS
from bls.measures import images as measures
from pipeline import baselines
from pipeline.evaluate.coding import code_other, code_ours, measure, our_name, timed
from pipeline.images import ImageError


@pytest.fixture(scope="module")
def codec(tiny_bundle: Path) -> Codec:
    return Codec.load(tiny_bundle)


def test_ours_has_a_row_for_each_coder_with_one_picture(codec: Codec) -> None:
    x = data.astronaut()[:90, :100]
    rows = code_ours(codec, x, quality=4, effort=1)
    assert [row["codec"] for row in rows] == [our_name(coder) for coder in CODERS]
    assert {row["effort"] for row in rows} == {1}
    assert len(codec.compress(x, quality=4, effort=1)) == rows[0]["num_bytes"]
    for row in rows:
        assert row["bpp"] == 8 * row["num_bytes"] / 9000 and row["mse_255"] == rows[0]["mse_255"]
        assert row["encode_seconds"] > 0 and row["decode_seconds"] > 0


def test_a_bitstream_that_does_not_give_its_symbols_back_is_an_error(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = codec.decode
    monkeypatch.setattr(codec, "decode", lambda bitstream: (decode(bitstream)[0], decode(bitstream)[1] + 1))
    with pytest.raises(ImageError, match="does not give its symbols back"):
        code_ours(codec, data.astronaut()[:32, :32], quality=4, effort=0)


def test_another_codec_is_measured_by_what_it_decodes_to() -> None:
    x = data.astronaut()[:90, :100]
    row = code_other(x, "webp", 45)
    file = baselines.encode(x, "webp", 45)
    assert (row["codec"], row["num_bytes"]) == ("webp", len(file))
    assert row["mse_255"] == measures.mse_255(x, baselines.decode(file, gray=False))
    assert row["encode_seconds"] > 0 and row["decode_seconds"] > 0


def test_times_are_of_the_cpu() -> None:
    _, waiting = timed(lambda: time.sleep(0.3))
    total, working = timed(lambda: sum(range(10**6)))
    assert waiting < 0.1 and working > 0 and total == 499999500000


def test_measures_that_do_not_exist_are_none() -> None:
    x = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    same = measure(x, x)
    assert (same["mse_255"], same["psnr_db"], same["psnr_luma_db"]) == (0, None, None)
    assert (same["ms_ssim"], same["ssimulacra2"]) == (None, None)
    assert measure(x, x + np.uint8(1))["psnr_db"] == pytest.approx(48.13, abs=0.01)
