import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bls.codec import Codec
from bls.measures.images import bpp, mse_255, psnr_db
from pipeline import CompressImages
from pipeline.compress.batches import ADDED_COLUMNS
from tests.datasets import pixels


def encoded(image: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, "png", **options)
    return file.getvalue()


def objects(*values: Any) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.fixture(scope="module")
def compress(tiny_bundle: Path) -> CompressImages:
    return CompressImages(quality=4, bundle=str(tiny_bundle), max_pixels=10_000)


def rows(batch: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def test_files_structs_and_arrays_are_compressed(compress: CompressImages, tiny_bundle: Path) -> None:
    colour, gray = pixels(40, 33), pixels(33, 40, gray=True, seed=1)
    values = objects(encoded(colour), {"bytes": encoded(gray), "path": "x.png"}, colour, gray, gray[:, :, None])
    out = compress({"id": np.arange(5), "image": values, "status": objects(*"abcde")})
    assert list(out) == ["id", *ADDED_COLUMNS]
    codec = Codec.load(tiny_bundle)
    for row, x in zip(rows(out), (colour, gray, colour, gray, gray), strict=True):
        x_hat = codec.decompress(row["bitstream"])
        assert (row["status"], row["height"], row["width"]) == ("ok", *x.shape[:2])
        assert row["num_bytes"] == len(row["bitstream"])
        assert row["bpp"] == bpp(row["num_bytes"], height=x.shape[0], width=x.shape[1])
        assert row["psnr_db"] == pytest.approx(psnr_db(mse_255(x, x_hat)), abs=0.05)
        assert row["error_class"] is row["error_message"] is None


def test_arrays_of_one_shape(compress: CompressImages) -> None:
    out = compress({"image": np.stack([pixels(16, 24, seed=seed) for seed in range(3)])})
    assert out["status"].tolist() == ["ok"] * 3
    assert len(set(out["bitstream"].tolist())) == 3


def test_bad_images_become_rows_and_disturb_no_other(compress: CompressImages) -> None:
    good = pixels(20, 20)
    data = encoded(good)
    huge = np.zeros((101, 100, 3), np.uint8)
    values = objects(b"", data[: len(data) // 2], good, "x", None, good / 255, encoded(huge), huge, good[:, :0])
    out = compress({"image": values})
    statuses = ["empty", "truncated", "ok", *["unsupported"] * 3, "too_large", "too_large", "unsupported"]
    assert out["status"].tolist() == statuses
    for row in rows(out):
        if row["status"] != "ok":
            assert row["error_class"] and row["error_message"]
            assert row["bitstream"] is row["bpp"] is row["psnr_db"] is None


def test_what_an_array_cannot_hold_is_kept_beside_it(compress: CompressImages) -> None:
    image = Image.fromarray(pixels(20, 24))
    image.putalpha(Image.linear_gradient("L").resize((24, 20)))
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    (row,) = rows(compress({"image": objects(encoded(image, exif=exif))}))
    assert (row["status"], row["mode"]) == ("ok", "RGBA")
    assert b"Maker" in row["exif"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["alpha_png"]))), np.asarray(image)[:, :, 3])


def test_a_stage_that_fails_for_one_image(compress: CompressImages, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Codec.encode

    def encode(self: Codec, symbols: Any, *, header: Any) -> bytes:
        if header.width == 21:
            raise RuntimeError("cannot")
        return original(self, symbols, header=header)

    monkeypatch.setattr(Codec, "encode", encode)
    out = compress({"image": objects(pixels(20, 20), pixels(20, 21))})
    assert out["status"].tolist() == ["ok", "failed"]
    assert out["error_message"].tolist() == [None, "cannot"]


def test_it_travels_without_the_codec(compress: CompressImages) -> None:
    compress({"image": objects(pixels(16, 16))})
    assert len(pickle.dumps(compress)) < 1000


def test_wrong_usage_is_told_before_any_image(tiny_bundle: Path, compress: CompressImages) -> None:
    with pytest.raises(ValueError, match=r"quality is 8, the bundle serves 2, 4"):
        CompressImages(quality=8, bundle=str(tiny_bundle))
    with pytest.raises(ValueError, match="effort is 9, expected"):
        CompressImages(quality=4, effort=9, bundle=str(tiny_bundle))
    with pytest.raises(ValueError, match="coder is 'best', expected"):
        CompressImages(quality=4, coder="best", bundle=str(tiny_bundle))
    with pytest.raises(ValueError, match="no column 'image', expected it among picture"):
        compress({"picture": objects(b"")})
