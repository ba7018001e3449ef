import base64
import io

import numpy as np
import pytest
from PIL import Image

from bls.pixels import Pixels
from pipeline.report.originals import Pair
from pipeline.report.pictures import CROP_HEIGHT, CROP_WIDTH, PREVIEW_SIDE, difference, draw, worst_box
from tests.datasets import pixels

ROW = {"key": "a.png"}


def opened(uri: str) -> Pixels:
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_differences_are_amplified_around_gray() -> None:
    x = np.full((1, 4), 100, np.uint8)
    assert difference(x, np.array([[100, 101, 97, 200]], np.uint8)).tolist() == [[128, 132, 116, 255]]


def test_the_crop_is_where_the_error_is() -> None:
    x = pixels(600, 900)
    x_hat = x.copy()
    x_hat[400:420, 700:720] ^= 64
    left, top, width, height = worst_box(x, x_hat)
    assert (width, height) == (CROP_WIDTH, CROP_HEIGHT)
    assert left <= 700 and left + width >= 720 and top <= 400 and top + height >= 420


@pytest.mark.parametrize("gray", [False, True])
def test_crops_are_lossless_and_previews_small(gray: bool) -> None:
    x, x_hat = pixels(500, 1000, gray=gray), pixels(500, 1000, gray=gray, seed=1)
    pictures = draw(ROW, Pair(x_hat, x))
    left, top, width, height = pictures.crop_box
    box = np.s_[top : top + height, left : left + width]
    for uri, whole in ((pictures.crop_original, x), (pictures.crop_decoded, x_hat)):
        crop = opened(uri)
        assert np.array_equal(crop[:, :, 0] if gray else crop, whole[box])
    assert opened(pictures.original).shape == (PREVIEW_SIDE // 2, PREVIEW_SIDE, 3)


def test_small_images_are_whole_crops() -> None:
    x = pixels(20, 30)
    assert draw(ROW, Pair(x, x)).crop_box == (0, 0, 30, 20)


def test_without_an_original_there_is_the_decoded_alone() -> None:
    pictures = draw(ROW, Pair(pixels(300, 400), None, trouble="gone"))
    assert (pictures.original, pictures.difference, pictures.crop_original) == ("", "", "")
    assert pictures.trouble == "gone"
    assert opened(pictures.crop_decoded).shape == (CROP_HEIGHT, CROP_WIDTH, 3)
    assert draw(ROW, Pair(None, None, trouble="damaged")).decoded == ""
