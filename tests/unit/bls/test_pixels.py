from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bls.measures.luma import LUMA_WEIGHTS
from bls.pixels import as_pixels, padded_shape, to_pixels, to_planes, to_uint8


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_planes_are_the_image_and_its_mirror_image(height: int, width: int, gray: bool) -> None:
    x = np.random.default_rng(0).integers(0, 256, (height, width) if gray else (height, width, 3), dtype=np.uint8)
    planes = to_planes(x, padded_shape(height, width), 3)
    assert planes.shape[1] % 16 == planes.shape[2] % 16 == 0
    assert np.array_equal(to_pixels(planes[: 1 if gray else 3, :height, :width]), x)
    if height < planes.shape[1]:
        assert torch.equal(planes[:, height], planes[:, height - 1])


def test_a_gray_model_takes_no_colours() -> None:
    with pytest.raises(ValueError, match="image is RGB, the model codes grayscale"):
        to_planes(np.zeros((16, 16, 3), np.uint8), (16, 16), 1)


@pytest.mark.parametrize("image", ["photo.jpg", Path("photo.jpg"), b"JPEG"])
def test_the_name_or_the_bytes_of_a_file_are_not_an_image(image: Any) -> None:
    with pytest.raises(TypeError, match="expected a PIL image or a uint8 array: open the file first, with Pillow"):
        as_pixels(image)
    with pytest.raises(TypeError, match="image is a Tensor, expected a PIL image or a uint8 array"):
        as_pixels(torch.zeros(3, 8, 8))  # type: ignore[arg-type]


def test_colours_become_their_luma() -> None:
    x = torch.zeros(1, 3, 1, 2)
    x[0, 0, 0, 0], x[0, :, 0, 1] = 1.0, 2.0  # red, and brighter than white
    assert to_uint8(x, gray=True).flatten().tolist() == [round(255 * LUMA_WEIGHTS[0]), 255]
    assert to_uint8(x, gray=False)[0, :, 0, 0].tolist() == [255, 0, 0]
